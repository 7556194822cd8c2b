"""The placement transform and its inverse, and its storage in a scene."""

from __future__ import annotations

import math

import pytest
import torch

from steindreamer.representations import Gaussians, GaussiansConfig, Placement


def cloud(count: int = 50) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 20.0, 1e6])
def test_fit_fills_the_ball_and_undo_is_the_inverse(scale: float) -> None:
    points = (cloud() * torch.tensor([1.0, 2.0, 0.5]) + torch.tensor([3.0, -7.0, 11.0])) * scale
    placement = Placement.fit(points, yaw=30.0)
    inside = placement.apply(points)
    assert float(inside.norm(dim=1).max()) == pytest.approx(0.9, rel=1e-5)
    back = placement.undo(inside)
    assert torch.allclose(back, points, atol=1e-5 * 20 * scale)
    boxes = Placement.fit(points).apply(points)
    assert torch.allclose(boxes.amin(0), -boxes.amax(0), atol=1e-5)


def test_yaw_90_rotates_minus_x_to_plus_z_and_keeps_up() -> None:
    placement = Placement(2.0, (1.0, 0.0, 0.0), 90.0)
    directions = torch.tensor([[-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    turned = placement.turn(directions)
    assert torch.allclose(turned, torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), atol=1e-6)
    assert torch.allclose(placement.turn_back(turned), directions, atol=1e-6)
    assert torch.allclose(placement.apply(torch.tensor([[-1.0, 0.0, 0.0]])), torch.tensor([[0.0, 0.0, 1.0]]), atol=1e-6)


def test_the_quaternion_is_the_same_rotation() -> None:
    placement = Placement(1.0, (0.0, 0.0, 0.0), 40.0)
    w, x, y, z = placement.quaternion
    assert w * w + x * x + y * y + z * z == pytest.approx(1)
    vectors, axis = cloud(), torch.tensor([x, y, z]).expand(50, 3)
    double = 2 * torch.linalg.cross(axis, vectors)
    turned = vectors + w * double + torch.linalg.cross(axis, double)
    assert torch.allclose(placement.turn(vectors), turned, atol=1e-6)


@pytest.mark.parametrize(
    "points",
    [torch.zeros(0, 3), torch.ones(4, 3), torch.tensor([[0.0, 0.0, math.nan], [1.0, 1.0, 1.0]])],
    ids=["none", "one place", "nan"],
)
def test_degenerate_points_are_refused(points: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="points"):
        Placement.fit(points)


@pytest.mark.parametrize("given", [{"yaw": float("nan")}, {"yaw": float("inf")}, {"radius": 0.0}])
def test_a_direction_is_finite_and_a_radius_positive(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="need a finite yaw and a radius above 0"):
        Placement.fit(torch.eye(3), **given)


def test_a_placement_is_finite_and_its_scale_positive() -> None:
    for scale, yaw in ((0.0, 0.0), (-1.0, 0.0), (math.inf, 0.0), (1.0, math.nan)):
        with pytest.raises(ValueError):
            Placement(scale, (0.0, 0.0, 0.0), yaw)


def test_placement_is_restored_with_the_tensors_of_a_scene() -> None:
    def scene() -> Gaussians:
        return GaussiansConfig(count=5).build(torch.Generator().manual_seed(0))

    one, other = scene(), scene()
    assert one.placement is None
    one.placement = Placement(0.04, (0.01, 0.3, -2.0), -90.0)
    assert one.placement == Placement(0.04, (0.01, 0.3, -2.0), -90.0)
    other.load_tensors({**dict(one.named_parameters()), **dict(one.named_buffers())})
    assert other.placement == one.placement
    one.placement = None
    assert one.placement is None
