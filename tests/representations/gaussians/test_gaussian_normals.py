"""The normals of Gaussians: from the rendered depth, or their shortest axes."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
from torch import Tensor

from steindreamer.representations import Cameras, Gaussians, GaussiansConfig, RenderOutput

Normals = Literal["depth", "axis"]


def lid(normals: Normals, tilt: float) -> Gaussians:
    """A square of flat Gaussians in the plane z = 0 whose shortest axes are turned away from +Z by `tilt` degrees."""
    axis = torch.linspace(-0.5, 0.5, 21)
    x, y = torch.meshgrid(axis, axis, indexing="ij")
    means = torch.stack([x, y, torch.zeros_like(x)], -1).reshape(-1, 3)
    half = torch.deg2rad(torch.tensor(tilt)) / 2
    count = len(means)
    return Gaussians(
        means,
        torch.tensor([[0.04, 0.04, 0.004]]).log().repeat(count, 1),
        torch.stack([half.cos(), half.sin(), 0 * half, 0 * half]).repeat(count, 1),
        torch.full((count,), 0.9).logit(),
        torch.zeros(count, 3),
        GaussiansConfig(normals=normals),
    )


def draw(gaussians: Gaussians, cameras: Cameras) -> RenderOutput:
    return gaussians.render(cameras, torch.zeros(len(cameras), 3))


def angle_to_z(output: RenderOutput) -> Tensor:
    """Degrees between +Z and the normals of the solid pixels."""
    return output.normal[:, 2][output.opacity[:, 0] > 0.5].clamp(-1, 1).arccos().rad2deg()


def test_axes_can_contradict_the_surface_that_they_form_and_the_depth_cannot() -> None:
    """A flat lid whose Gaussians all face 40 degrees upward: its axis normals do, its depth is flat."""
    cameras = Cameras.orbit([0.0, 20.0], [0.0, 10.0], height=64)
    axis, depth = (draw(lid(normals, -40.0), cameras) for normals in ("axis", "depth"))
    assert (angle_to_z(axis) - 40).abs().mean() < 0.5
    assert angle_to_z(depth).mean() < 6
    for name in ("rgb", "opacity", "depth"):
        assert torch.equal(getattr(axis, name), getattr(depth, name))


def test_both_agree_where_the_axes_are_true() -> None:
    cameras = Cameras.orbit([0.0, 20.0], [0.0, 10.0], height=64)
    for normals in ("axis", "depth"):
        assert angle_to_z(draw(lid(normals, 0.0), cameras)).mean() < 2


def test_a_loss_on_normals_moves_the_surface_unless_they_are_axes() -> None:
    """Axis normals have no gradient in the positions but that of the weights; here all axes are equal, so it is 0."""
    camera = Cameras.orbit([0.0], [0.0], height=48)
    gradients = {}
    for normals in ("axis", "depth"):
        gaussians = lid(normals, -40.0)
        # Tilts the normals of the right half.
        (draw(gaussians, camera).normal[:, 0, :, 24:]).sum().backward()
        assert gaussians.means.grad is not None and gaussians.quaternions.grad is not None
        gradients[normals] = gaussians.means.grad[:, 2].abs().sum(), gaussians.quaternions.grad.abs().sum()
    assert gradients["depth"][0] > 1 and gradients["axis"][1] > 1
    assert gradients["axis"][0] < 1e-2 * gradients["depth"][0]


def test_gradients_are_finite_differences() -> None:
    """Through splatting and the differences of the depth, in float64, for every parameter of the shape."""
    generator = torch.Generator().manual_seed(1)
    gaussians = GaussiansConfig(count=12, radius=0.3, opacity=0.6, backend="torch").build(generator).double()
    with torch.no_grad():
        gaussians.log_scales.add_(0.3 * torch.randn(12, 3, generator=generator))
    cameras = Cameras.orbit([10.0], [20.0], distance=2.0, height=9)
    cameras = replace(cameras, camera_to_world=cameras.camera_to_world.double(), intrinsics=cameras.intrinsics.double())
    weights = torch.randn(1, 3, 9, 9, generator=generator).double()

    def loss() -> Tensor:
        output = gaussians.render(cameras, torch.zeros(1, 3).double())
        # Without the faint pixels, where splats begin and end.
        return (output.normal * weights * (output.opacity > 0.3)).sum()

    loss().backward()
    step = 1e-7
    for name in ("means", "log_scales", "quaternions", "opacity_logits"):
        parameter = getattr(gaussians, name)
        slopes = []
        for index in range(0, parameter.numel(), 5):
            sides = []
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.view(-1)[index] += sign * step
                    sides.append(loss())
                    parameter.view(-1)[index] -= sign * step
            slopes.append((sides[0] - sides[1]) / (2 * step))
        torch.testing.assert_close(parameter.grad.view(-1)[::5], torch.stack(slopes), rtol=1e-3, atol=1e-3)
        assert parameter.grad.abs().max() > 1e-2, name


@pytest.mark.parametrize("normals", ["depth", "axis"])
def test_an_empty_background_has_no_normal(normals: Normals) -> None:
    cameras = Cameras.orbit([0.0, 90.0], [0.0, 0.0], height=32)
    output = draw(lid(normals, 0.0), cameras)
    empty = (output.opacity == 0).expand_as(output.normal)
    assert 0.2 < empty.float().mean() < 1 and not output.normal[empty].any()
    length = output.normal.norm(dim=1)[output.opacity[:, 0] > 0.5]
    torch.testing.assert_close(length, torch.ones_like(length))
    nothing = draw(lid(normals, 0.0), Cameras.orbit([0.0], [0.0], distance=0.001, height=32))
    assert not nothing.normal.any() and nothing.normal.requires_grad


@pytest.mark.gpu
def test_gsplat_renders_the_same_normals_as_the_cpu() -> None:
    pytest.importorskip("gsplat", reason="needs the gsplat package")
    cameras = Cameras.orbit([0.0, 20.0], [0.0, 10.0], height=64)
    expected = draw(lid("depth", -40.0), cameras)
    gaussians = lid("depth", -40.0).cuda()
    output = gaussians.render(cameras.to("cuda"), torch.zeros(2, 3, device="cuda"))
    solid = expected.opacity[:, 0] > 0.5
    cosine = torch.cosine_similarity(output.normal.cpu(), expected.normal, dim=1)[solid]
    assert cosine.mean() > 0.999
    output.normal.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in gaussians.parameters())
