"""Penalties on pictures: closed forms on planes and spheres."""

import math

import pytest
import torch

from steindreamer.pipelines.penalties import PENALTIES, depth_normals
from steindreamer.representations import Cameras, RenderOutput

CAMERAS = Cameras.orbit([0.0, 70.0], [10.0, -20.0], distance=3.0, height=96)


def _sphere(radius: float = 0.8, tilt: float = 0.0) -> RenderOutput:
    """A sphere, ray-traced; `tilt` (radians) turns the drawn normals away from the true ones."""
    rays, origin = CAMERAS.rays(), CAMERAS.position[:, :, None, None]
    a, b = (rays * rays).sum(1, keepdim=True), (rays * origin).sum(1, keepdim=True)
    discriminant = b * b - a * ((origin * origin).sum(1, keepdim=True) - radius**2)
    hit = discriminant > 0
    depth = torch.where(hit, (-b - discriminant.clamp(min=0).sqrt()) / a, 0.0)
    normal = torch.nn.functional.normalize(CAMERAS.unproject(depth), dim=1)
    other = torch.nn.functional.normalize(
        torch.linalg.cross(normal, torch.tensor([0.0, 1, 0])[None, :, None, None], dim=1), dim=1
    )
    normal = torch.where(hit, normal * math.cos(tilt) + other * math.sin(tilt), 0.0)
    opacity = hit.float()
    return RenderOutput(opacity.expand(-1, 3, -1, -1), opacity, depth, normal)


def test_depth_normals_of_a_sphere() -> None:
    output = _sphere()
    normal, solid = depth_normals(output, CAMERAS)
    inside = solid & ((normal * -CAMERAS.rays()[..., 1:-1, 1:-1]).sum(1, keepdim=True) > 0.4)
    cosine = (normal * output.normal[..., 1:-1, 1:-1]).sum(1, keepdim=True)[inside]
    assert len(cosine) > 1000 and cosine.min() > 0.99


@pytest.mark.parametrize("tilt", [0.3, 0.8])
def test_normal_consistency_measures_the_angle(tilt: float) -> None:
    tilted, true = (PENALTIES["normal_consistency"](_sphere(tilt=t), CAMERAS).item() for t in (tilt, 0.0))
    assert true < 0.01
    assert tilted == pytest.approx(1 - math.cos(tilt), abs=0.02)


def test_normal_smoothness_prefers_the_smooth(generator: torch.Generator) -> None:
    smooth = _sphere()
    noise = 0.01 * torch.randn(smooth.depth.shape, generator=generator) * smooth.opacity
    rough = RenderOutput(smooth.rgb, smooth.opacity, smooth.depth + noise, smooth.normal)
    small, large = (PENALTIES["normal_smoothness"](output, CAMERAS) for output in (smooth, rough))
    assert large > 5 * small


def test_opacity_penalties() -> None:
    output = _sphere()
    share = output.opacity.mean()
    torch.testing.assert_close(PENALTIES["transparency"](output, CAMERAS), share)
    assert PENALTIES["half_transparency"](output, CAMERAS) == 0


@pytest.mark.parametrize("name", sorted(PENALTIES))
def test_an_empty_picture_costs_nothing_and_is_finite(name: str) -> None:
    leaf = torch.zeros(2, 1, 96, 96, requires_grad=True)
    output = RenderOutput(leaf.expand(-1, 3, -1, -1), leaf, leaf * 1.0, leaf.expand(-1, 3, -1, -1))
    value = PENALTIES[name](output, CAMERAS)
    value.backward()
    assert value == 0 and leaf.grad is not None and bool(torch.isfinite(leaf.grad).all())
