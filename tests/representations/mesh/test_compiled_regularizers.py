"""The compiled functions of `float32` tensors in CPU memory against the same functions in PyTorch operations."""

from __future__ import annotations

from collections.abc import Callable

import mesh_samples
import pytest
import torch
from torch import Tensor

from steindreamer.representations import TriangleMesh, vertex_normals
from steindreamer.representations.mesh.regularizers import (
    edge_normal_consistency,
    robust_normal_consistency,
    texture_variation,
)
from steindreamer.representations.mesh.smooth_normals import smooth_normals

MESH = mesh_samples.bumpy_sphere()


def value_and_gradient(function: Callable[[Tensor], Tensor], values: Tensor) -> tuple[Tensor, Tensor]:
    values = values.clone().requires_grad_()
    result = function(values)
    result.backward()
    assert values.grad is not None
    return result.detach().double(), values.grad.double()


def assert_agree(function: Callable[[Tensor], Tensor], values: Tensor) -> None:
    found, expected = (value_and_gradient(function, values.to(kind)) for kind in (torch.float32, torch.float64))
    for one, other in zip(found, expected, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=2e-5, atol=1e-5 * float(other.abs().max()))


@pytest.mark.parametrize("regularizer", [edge_normal_consistency, robust_normal_consistency])
def test_consistency(regularizer: Callable[..., Tensor]) -> None:
    assert_agree(lambda normals: 3 * regularizer(normals, MESH.faces), noisy_normals(MESH))


def noisy_normals(mesh: TriangleMesh) -> Tensor:
    normals = vertex_normals(mesh.vertices, mesh.faces)
    noise = torch.randn(normals.shape, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(normals + 0.3 * noise, dim=1)


def test_smooth_normals() -> None:
    weights = torch.randn(MESH.vertices.shape, generator=torch.Generator().manual_seed(1))
    assert_agree(lambda vertices: (smooth_normals(vertices, MESH.faces) * weights).sum(), MESH.vertices)


def test_texture_variation() -> None:
    generator = torch.Generator().manual_seed(2)
    texture = torch.rand(3, 9, 12, generator=generator)
    charts = torch.randint(0, 3, (9, 12), generator=generator, dtype=torch.int32)
    assert_agree(lambda texture: 2 * texture_variation(texture, charts)[0], texture)
    counts = [int(texture_variation(texture.to(kind), charts)[1]) for kind in (torch.float32, torch.float64)]
    pairs = sum(
        int(charts[y, x] > 0 and y + dy < 9 and x + dx < 12 and charts[y, x] == charts[y + dy, x + dx])
        for y in range(9)
        for x in range(12)
        for dy, dx in ((0, 1), (1, 0))
    )
    assert counts == [3 * pairs, 3 * pairs]
