"""The depth and normal baselines with the shipped estimator tell true geometry from false, in the right sense."""

from __future__ import annotations

import importlib.resources
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from steindreamer import assets
from steindreamer.distill import GeometryBuffers, NoiseLevel, NoiseSchedule
from steindreamer.distill.control_variates.baselines import DepthBaseline, NormalBaseline
from steindreamer.distill.geometry.tiny_estimator import load_tiny_estimator
from steindreamer.representations import Cameras
from steindreamer.world import random_caption, sample_object
from steindreamer.world.views import render_objects

COUNT, SIZE = 20, 64
Scene = tuple[Tensor, GeometryBuffers]


@pytest.fixture(scope="module")
def scene() -> Scene:
    """Objects of the world over white, in the prior's space, and what the renderer knows about them."""
    rng = np.random.default_rng([77, 1])
    objects = [sample_object(random_caption(rng), rng) for _ in range(COUNT)]
    azimuth, elevation = torch.linspace(-180, 162, COUNT), torch.linspace(-10, 60, COUNT)
    cameras = Cameras.orbit(azimuth, elevation, distance=3.2, field_of_view=40.0, height=SIZE)
    out = render_objects(objects, cameras, torch.ones(COUNT, 3), supersample=2)
    return out.rgb * 2 - 1, GeometryBuffers(out.opacity, out.depth, out.normal, cameras.camera_to_world)


def phi(
    kind: type[DepthBaseline] | type[NormalBaseline], clean: Tensor, timestep: int, geometry: GeometryBuffers
) -> Tensor:
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(timestep))
    sample = NoiseSchedule.scaled_linear().add_noise(clean, noise, torch.full((COUNT,), timestep))
    estimator = load_tiny_estimator(importlib.resources.files(assets).joinpath("tiny_geometry_estimator"))
    with torch.no_grad():
        baseline = kind(estimator, lambda latent: (latent + 1) / 2)
        return baseline(sample.noisy, NoiseLevel(sample.timestep, sample.alpha, sample.sigma), geometry)


def shuffled(geometry: GeometryBuffers) -> GeometryBuffers:
    """The geometry of every object's pixels in random order: the same silhouette and the same values."""
    generator = torch.Generator().manual_seed(0)
    depth, normal = geometry.depth.clone(), geometry.normal.clone()
    for i, occupied in enumerate(geometry.depth[:, 0] > 0):
        order = torch.randperm(int(occupied.sum()), generator=generator)
        depth[i, :, occupied] = geometry.depth[i, :, occupied][:, order]
        normal[i, :, occupied] = geometry.normal[i, :, occupied][:, order]
    return replace(geometry, depth=depth, normal=normal)


@pytest.mark.parametrize(("timestep", "gap"), [(0, 0.5), (400, 0.45), (700, 0.35)])
def test_depth_prefers_the_true_depth_and_means_disparity(scene: Scene, timestep: int, gap: float) -> None:
    """phi is near 0 for the true depth, -1 for shuffled depth, near -2 where far and near are exchanged."""
    clean, geometry = scene
    true, random = (phi(DepthBaseline, clean, timestep, each) for each in (geometry, shuffled(geometry)))
    inverse = torch.where(geometry.depth > 0, 1 / geometry.depth.clamp(min=1e-6), 0.0)
    exchanged = phi(DepthBaseline, clean, timestep, replace(geometry, depth=inverse))
    assert random.mean() == pytest.approx(-1, abs=0.05)
    assert true.mean() > random.mean() + gap and (true > random).float().mean() >= 0.85
    assert exchanged.mean() < random.mean() - gap


@pytest.mark.parametrize("timestep", [0, 400, 700])
def test_normal_prefers_the_true_normals_in_the_right_axes(scene: Scene, timestep: int) -> None:
    clean, geometry = scene
    true = phi(NormalBaseline, clean, timestep, geometry)
    random = phi(NormalBaseline, clean, timestep, shuffled(geometry))
    assert true.mean() > random.mean() + 0.12 and (true > random).float().mean() >= 0.85
    assert true.mean() > -0.21  # -0.26 and less if the rotation is applied the wrong way round
    turned = replace(geometry, camera_to_world=geometry.camera_to_world.roll(COUNT // 2, 0))
    assert phi(NormalBaseline, clean, timestep, turned).mean() < true.mean() - 0.5
