"""Regularizers on images: closed forms on planes and spheres."""

import math

import pytest
import torch

from steindreamer.pipelines.optimization.regularizers import REGULARIZERS, depth_normals
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


def _rough(output: RenderOutput) -> RenderOutput:
    """With a centimeter of noise on the depth."""
    noise = 0.01 * torch.randn(output.depth.shape, generator=torch.Generator().manual_seed(0)) * output.opacity
    return RenderOutput(output.rgb, output.opacity, output.depth + noise, output.normal)


def test_depth_normals_of_a_sphere() -> None:
    output = _sphere()
    normal, solid = depth_normals(output, CAMERAS)
    inside = solid & ((normal * -CAMERAS.rays()[..., 1:-1, 1:-1]).sum(1, keepdim=True) > 0.4)
    cosine = (normal * output.normal[..., 1:-1, 1:-1]).sum(1, keepdim=True)[inside]
    assert len(cosine) > 1000 and cosine.min() > 0.99


@pytest.mark.parametrize("tilt", [0.3, 0.8])
def test_normal_consistency_measures_the_angle(tilt: float) -> None:
    tilted, true = (REGULARIZERS["normal_consistency"](_sphere(tilt=t), CAMERAS).item() for t in (tilt, 0.0))
    assert true < 0.01
    assert tilted == pytest.approx(1 - math.cos(tilt), abs=0.02)


def test_normal_smoothness_prefers_the_smooth() -> None:
    smooth = _sphere()
    small, large = (REGULARIZERS["normal_smoothness"](output, CAMERAS) for output in (smooth, _rough(smooth)))
    assert large > 5 * small


def test_opacity_regularizers() -> None:
    output = _sphere()
    fraction = output.opacity.mean()
    torch.testing.assert_close(REGULARIZERS["transparency"](output, CAMERAS), fraction)
    assert REGULARIZERS["half_transparency"](output, CAMERAS) == 0


def _opacity(*values: float) -> RenderOutput:
    opacity = torch.tensor(values).reshape(1, 1, 1, -1)
    return RenderOutput(opacity.expand(-1, 3, -1, -1), opacity, opacity * 3, opacity.expand(-1, 3, -1, -1) * 0)


def test_sparsity_is_a_smooth_absolute_value() -> None:
    value = REGULARIZERS["sparsity"](_opacity(0.0, 0.3, 1.0), CAMERAS)
    assert value.item() == pytest.approx((0.1 + math.sqrt(0.1) + math.sqrt(1.01)) / 3)


def test_opaque_is_the_entropy() -> None:
    def cost(opacity: float) -> float:
        return REGULARIZERS["opaque"](_opacity(opacity), CAMERAS).item()

    assert cost(0.5) == pytest.approx(math.log(2))
    assert cost(0.2) == pytest.approx(cost(0.8)) == pytest.approx(-0.2 * math.log(0.2) - 0.8 * math.log(0.8))
    assert cost(0.0) == pytest.approx(cost(1.0), rel=1e-3) and 0 < cost(0.0) < 0.01


def test_depth_smoothness_of_planes_and_spheres() -> None:
    """A slanted plane costs nothing; a sphere something; a rough sphere much more."""
    rays, sphere = CAMERAS.rays(), _sphere()
    # The plane n.x = d: n.(o + r z) = d, with normals that are neither camera's axis.
    normal, offset = torch.tensor([[0.3, -0.2, -1.0], [-1.0, 0.3, -0.2]])[:, :, None, None], -0.1
    along = (normal * rays).sum(1, keepdim=True)
    depth = (offset - (normal * CAMERAS.position[:, :, None, None]).sum(1, keepdim=True)) / along
    assert (depth > 1).all() and depth.amax() > 1.2 * depth.amin()
    smooth = REGULARIZERS["depth_smoothness"]
    plane = smooth(RenderOutput(sphere.rgb, torch.ones_like(depth), depth, torch.zeros_like(rays)), CAMERAS)
    round_, rough = smooth(sphere, CAMERAS), smooth(_rough(sphere), CAMERAS)
    assert plane < 1e-6 and round_ > 100 * plane and rough > 5 * round_


def test_depth_smoothness_spares_edges_of_the_image() -> None:
    """A bend counts exp(-1) times as much on a black to white edge; the colors get no gradient."""
    depth = torch.tensor([2.0, 2.0, 3.0]).reshape(1, 1, 1, 3)
    costs = []
    for white in (0.0, 1.0):
        rgb = torch.tensor([0.0, 0.5, white]).expand(1, 3, 1, 3).clone().requires_grad_()
        output = RenderOutput(rgb, torch.ones_like(depth), depth.clone().requires_grad_(), torch.zeros(1, 3, 1, 3))
        costs.append(REGULARIZERS["depth_smoothness"](output, CAMERAS))
        costs[-1].backward()
        assert rgb.grad is None and output.depth.grad is not None and bool(output.depth.grad.any())
    assert costs[0].item() == pytest.approx(abs(1 / 2 - 2 / 2 + 1 / 3) * 2)
    assert (costs[1] / costs[0]).item() == pytest.approx(math.exp(-1))


@pytest.mark.parametrize("name", sorted(REGULARIZERS))
def test_gradients_agree_with_finite_differences(name: str, generator: torch.Generator) -> None:
    cameras = Cameras.orbit([25.0], [10.0], height=5)
    cameras = Cameras(cameras.camera_to_world.double(), cameras.intrinsics.double(), 5, 5)

    def uniform(low: float, high: float, channels: int = 1) -> torch.Tensor:
        values = torch.rand(1, channels, 5, 5, generator=generator, dtype=torch.float64)
        return (low + (high - low) * values).requires_grad_()

    def cost(opacity: torch.Tensor, depth: torch.Tensor, normal: torch.Tensor) -> torch.Tensor:
        unit = torch.nn.functional.normalize(normal, dim=1)
        return REGULARIZERS[name](RenderOutput(rgb, opacity, depth, unit), cameras)

    rgb = uniform(0.0, 1.0, 3).detach()
    inputs = uniform(0.55, 0.9), uniform(2.9, 3.1), uniform(-1.0, 1.0, 3)
    assert torch.autograd.gradcheck(cost, inputs, atol=1e-7)
    assert any(bool(g.any()) for g in torch.autograd.grad(cost(*inputs), inputs, materialize_grads=True))


@pytest.mark.parametrize("name", sorted(REGULARIZERS))
@pytest.mark.parametrize(("opacity", "depth"), [(0.0, 0.0), (0.5, 3.0), (1.0, 3.0), (1.0, 0.0)])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (2, 2), (9, 9)])
def test_finite_in_every_corner(name: str, opacity: float, depth: float, size: tuple[int, int]) -> None:
    """Empty, half transparent or solid everywhere; no depth drawn; images too small for a neighbor."""
    images = {"rgb": (3, opacity), "opacity": (1, opacity), "depth": (1, depth), "normal": (3, opacity)}
    leaves = {
        image: torch.full((2, channels, *size), value, requires_grad=True)
        for image, (channels, value) in images.items()
    }
    output = RenderOutput(leaves["rgb"], leaves["opacity"], leaves["depth"], leaves["normal"])
    value = REGULARIZERS[name](output, Cameras.orbit([0.0, 70.0], [0.0, 0.0], height=size[0], width=size[1]))
    value.backward()
    assert bool(torch.isfinite(value))
    assert all(leaf.grad is None or bool(torch.isfinite(leaf.grad).all()) for leaf in leaves.values())


@pytest.mark.parametrize("name", sorted(REGULARIZERS))
def test_an_empty_image_costs_least_and_has_no_slope_toward_geometry(name: str) -> None:
    leaf = torch.zeros(2, 1, 96, 96, requires_grad=True)
    output = RenderOutput(torch.zeros(2, 3, 96, 96), torch.zeros(2, 1, 96, 96), leaf, leaf.expand(-1, 3, -1, -1))
    value = REGULARIZERS[name](output, CAMERAS)
    assert value <= REGULARIZERS[name](_rough(_sphere(tilt=0.3)), CAMERAS) + 1e-6
    if name not in {"sparsity", "opaque"}:
        assert value == 0
    if value.requires_grad:
        value.backward()
        assert leaf.grad is not None and not leaf.grad.any()
