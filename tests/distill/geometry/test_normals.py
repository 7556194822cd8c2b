"""Normals of a disparity against known planes and spheres, and what scale and shift may not change."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from steindreamer.distill.geometry.normals import RELIEF, normals_from_disparity, normals_from_inverse_depth

FIELD_OF_VIEW = 40.0


def rays(height: int, width: int) -> tuple[Tensor, Tensor]:
    """X / Z and Y / Z of the pixels' centers."""
    slope = 2 * math.tan(math.radians(FIELD_OF_VIEW) / 2) / height
    x, y = ((torch.arange(size).double() + 0.5 - size / 2) * slope for size in (width, height))
    return x.expand(height, width), y[:, None].expand(height, width)


def degrees(a: Tensor, b: Tensor) -> Tensor:
    return torch.rad2deg(torch.acos((a * b).sum(1).clamp(-1, 1)))


@pytest.mark.parametrize("direction", [(0.0, 0.0, -1.0), (0.6, 0.0, -0.8), (0.0, -0.6, -0.8), (-0.4, 0.5, -0.77)])
def test_a_plane_has_one_normal(direction: tuple[float, float, float]) -> None:
    normal = torch.nn.functional.normalize(torch.tensor(direction).double(), dim=0)
    x, y = rays(24, 36)
    inverse_depth = -(normal[0] * x + normal[1] * y + normal[2])[None, None]  # of the plane n . P = -1
    found = normals_from_inverse_depth(3 * inverse_depth, FIELD_OF_VIEW)
    torch.testing.assert_close(found, normal[None, :, None, None].expand_as(found), atol=1e-12, rtol=0)


def sphere(size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inverse depth of a ball of radius 0.8 at distance 3.2 before a wall at 4.2, its normals, and where it is."""
    x, y = rays(size, size)
    ray = torch.stack([x, y, torch.ones_like(x)])
    a, b, c = ray.square().sum(0), 3.2 * ray[2], 3.2**2 - 0.8**2
    inside = b.square() > a * c
    depth = (b - (b.square() - a * c).clamp(min=0).sqrt()) / a
    normal = (depth * ray - torch.tensor([0.0, 0.0, 3.2])[:, None, None]) / 0.8
    return torch.where(inside, 1 / depth, 1 / 4.2)[None, None], normal[None], inside[None]


def test_a_spheres_normals_within_a_few_degrees() -> None:
    inverse_depth, normal, inside = sphere(96)
    found = normals_from_inverse_depth(inverse_depth, FIELD_OF_VIEW)
    inner = inside & (normal[:, 2] < -0.5)
    assert degrees(found, normal)[inner].max() < 3


def test_the_nominal_relief_fits_a_ball_before_a_wall() -> None:
    inverse_depth, normal, inside = sphere(96)
    found = normals_from_disparity(inverse_depth, FIELD_OF_VIEW)
    flat = torch.tensor([0.0, 0.0, -1.0]).double()[None, :, None, None]
    assert degrees(found, normal)[inside].mean() < 12 < 0.5 * degrees(flat, normal)[inside].mean()


def test_scale_and_shift_do_not_matter_but_the_sense_does() -> None:
    inverse_depth, normal, inside = sphere(48)
    found = normals_from_disparity(inverse_depth, FIELD_OF_VIEW)
    torch.testing.assert_close(normals_from_disparity(7e3 * inverse_depth + 500, FIELD_OF_VIEW), found)
    torch.testing.assert_close(
        normals_from_disparity(0.1 * inverse_depth - 2, FIELD_OF_VIEW), found, rtol=1e-3, atol=1e-4
    )
    reverse = normals_from_disparity(-inverse_depth, FIELD_OF_VIEW)
    assert degrees(reverse, normal)[inside].mean() > 2 * degrees(found, normal)[inside].mean()


def test_the_mean_and_relief_are_the_conventions() -> None:
    """A disparity that already has the nominal spread is taken for the inverse depth itself."""
    disparity = torch.rand(1, 1, 9, 12, generator=torch.Generator().manual_seed(0)).double()
    standard = (disparity - disparity.mean()) / disparity.std(correction=0)
    expected = normals_from_inverse_depth(1 + RELIEF * standard, FIELD_OF_VIEW)
    torch.testing.assert_close(normals_from_disparity(disparity, FIELD_OF_VIEW), expected, rtol=1e-8, atol=1e-8)


def test_unit_length_facing_the_camera_and_finite_where_nothing_varies() -> None:
    disparity = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)).exp()
    disparity[1] = 3.0
    disparity.requires_grad_()
    normal = normals_from_disparity(disparity)
    torch.testing.assert_close(normal.norm(dim=1), torch.ones(2, 16, 16))
    assert (normal[:, 2] < 0).all()
    torch.testing.assert_close(normal[1], torch.tensor([0.0, 0, -1])[:, None, None].expand(3, 16, 16))
    (gradient,) = torch.autograd.grad(normal.sum(), disparity)
    assert gradient.isfinite().all()


def test_gradient_against_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    disparity = (2 + 0.3 * torch.randn(1, 1, 5, 6, generator=generator)).double().requires_grad_()
    assert torch.autograd.gradcheck(normals_from_disparity, (disparity,))
