"""Noise that is fixed to the surface: standard normal in every image, the same at the same place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steindreamer.distill import GeometryBuffers
from steindreamer.distill.noise.source import NoiseSource
from steindreamer.distill.noise.surface import SurfaceNoise
from steindreamer.representations import Cameras

SIZE = 32


def plane(offset: float = 0.0, turn: float = 0.0, size: int = SIZE) -> GeometryBuffers:
    """A wall through the origin that fills the left two thirds of the image, seen from a camera 3 m before it."""
    cameras = Cameras.orbit(torch.tensor([turn]), torch.tensor([0.0]), distance=torch.tensor([3.0]), height=size)
    pose = cameras.camera_to_world.clone()
    pose[:, :3, 3] += offset * pose[:, :3, 0]
    cameras = Cameras(pose, cameras.intrinsics, size, size)
    rays = cameras.rays()
    depth = -cameras.position[:, 2, None, None] / rays[:, 2]
    seen = (torch.arange(size) < 2 * size // 3).float().expand(1, 1, size, size)
    normal = torch.tensor([0.0, 0.0, 1.0])[None, :, None, None].expand(1, 3, size, size)
    return GeometryBuffers(seen, seen * depth[:, None], seen * normal, pose, cameras.intrinsics)


def draw(source: NoiseSource, geometry: GeometryBuffers, seed: int = 0, channels: int = 3, size: int = SIZE) -> Tensor:
    clean, timestep = torch.zeros(1, channels, size, size), torch.tensor([500])
    return source(clean, timestep, geometry, torch.Generator().manual_seed(seed))


def test_the_same_view_gets_the_same_noise_on_the_surface_and_new_noise_beside_it() -> None:
    source, geometry = SurfaceNoise(), plane()
    first, second = draw(source, geometry, 1), draw(source, geometry, 2)
    equal = (first == second).all(1)[0]
    solid = geometry.opacity[0, 0] > 0.5
    assert not equal[~solid].any()
    assert equal[solid].float().mean() > 0.5  # the pixels that own a cell
    assert not torch.equal(draw(SurfaceNoise(seed=1), geometry, 1)[0, :, solid], first[0, :, solid])


def test_noise_moves_with_the_surface() -> None:
    """A camera that is moved along the wall by whole pixels sees the noise of the same places."""
    still, pixel = plane(), 3.0 / float(plane().intrinsics[0, 1, 1])  # pyright: ignore[reportOptionalSubscript]
    moved = plane(offset=4 * pixel)
    source = SurfaceNoise(cell=0.4)
    first, second = draw(source, still, 1), draw(source, moved, 2)
    width = 2 * SIZE // 3
    here, there = first[0, :, :, 4:width], second[0, :, :, : width - 4]
    assert (here == there).all(0).float().mean() > 0.8
    assert (first[0, :, :, : width - 4] == there).all(0).float().mean() < 0.05


def test_every_image_has_standard_normal_noise() -> None:
    """Over seeds: mean 0, variance 1, no correlation between neighbors, also where cells are larger than pixels."""
    geometry = plane()
    found = torch.stack([draw(SurfaceNoise(seed, cell=3.0), geometry, seed)[0] for seed in range(200)])
    flat = found.flatten(1).double()
    count = flat.numel()
    assert abs(float(flat.mean())) < 4 / count**0.5
    assert abs(float(flat.var()) - 1) < 4 * (2 / count) ** 0.5
    assert abs(float((flat**4).mean()) - 3) < 4 * (96 / count) ** 0.5
    for a, b in (
        (found[..., 1:], found[..., :-1]),
        (found[..., 1:, :], found[..., :-1, :]),
        (found[:, 1:], found[:, :-1]),
    ):
        product = (a * b).double()
        assert abs(float(product.mean())) < 4 / product.numel() ** 0.5


def test_it_follows_the_size_of_the_encoded_image() -> None:
    assert draw(SurfaceNoise(), plane(size=64), channels=4, size=8).shape == (1, 4, 8, 8)


def test_buffers_without_intrinsics_are_refused() -> None:
    known = plane()
    bare = GeometryBuffers(known.opacity, known.depth, known.normal, known.camera_to_world)
    with pytest.raises(ValueError, match="needs the intrinsics"):
        draw(SurfaceNoise(), bare)
    with pytest.raises(ValueError, match=r"above 0, got 0\.0"):
        SurfaceNoise(cell=0.0)
