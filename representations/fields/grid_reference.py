"""Reference implementation of trilinear feature grids in torch; used on CUDA and as test oracle of the kernels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

_PRIMES = (1, 2654435761, 805459861)


def interpolate_torch(
    points: Float[Tensor, "n 3"], table: Float[Tensor, "levels size features"], resolutions: Sequence[int]
) -> Float[Tensor, "n width"]:
    """`interpolation.interpolate` in torch; differentiable any number of times."""
    return torch.cat([_level(points, table[level], cells) for level, cells in enumerate(resolutions)], 1)


def point_gradient_torch(
    points: Float[Tensor, "n 3"],
    table: Float[Tensor, "levels size features"],
    cotangent: Float[Tensor, "n width"],
    resolutions: Sequence[int],
) -> Float[Tensor, "n 3"]:
    """`interpolation.point_gradient` in torch."""
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        features = interpolate_torch(points, table, resolutions)
        return torch.autograd.grad(features, points, cotangent, create_graph=differentiable)[0]


def _level(
    points: Float[Tensor, "n 3"], table: Float[Tensor, "size features"], cells: int
) -> Float[Tensor, "n features"]:
    scaled = points * cells
    low = scaled.detach().floor().clamp(0, cells - 1)
    fraction, corner = scaled - low, low.long()
    out = torch.zeros(len(points), table.shape[1]).to(table)
    for offset in range(8):
        bits = torch.tensor([offset & 1, offset >> 1 & 1, offset >> 2 & 1], device=points.device)
        weight = torch.where(bits.bool(), fraction, 1 - fraction).prod(1, keepdim=True)
        out = out + weight * table[_entry(corner + bits, cells, len(table))]
    return out


def _entry(corner: Int64[Tensor, "n 3"], cells: int, size: int) -> Int64[Tensor, " n"]:
    x, y, z = corner.unbind(1)
    side = cells + 1
    if side**3 <= size:
        return x + side * (y + side * z)
    return (x * _PRIMES[0] ^ y * _PRIMES[1] ^ z * _PRIMES[2]) % size
