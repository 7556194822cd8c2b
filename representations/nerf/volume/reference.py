"""Reference implementation of ray marching and sums along rays in torch; used on CUDA and as test oracle."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .samples import Samples

_SMALLEST_SLOPE = 1e-9


def march_torch(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    offsets: Float[Tensor, " r"],
    occupied: Bool[Tensor, "g g g"],
    bound: float,
    step: float,
    near: float,
) -> Samples:
    """`marching.march` in torch; the memory is proportional to the number of rays times steps."""
    resolution = len(occupied)
    slope = torch.where(directions.abs() > _SMALLEST_SLOPE, directions, _SMALLEST_SLOPE)
    one, other = (-bound - origins) / slope, (bound - origins) / slope
    enter = torch.minimum(one, other).amax(1).clamp_min(near)
    leave = torch.maximum(one, other).amin(1)
    k = torch.arange(math.ceil(2 * math.sqrt(3) * bound / step) + 1, device=origins.device)
    t = enter[:, None] + (k + offsets[:, None]) * step
    points = origins[:, None] + t[..., None] * directions[:, None]
    x, y, z = ((points / bound + 1) * 0.5 * resolution).long().clamp(0, resolution - 1).unbind(-1)
    keep = (t < leave[:, None]) & occupied[x, y, z]
    counts = keep.sum(1)
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Samples(points[keep], t[keep], keep.nonzero()[:, 0], starts)


def weights_torch(
    optical: Float[Tensor, " m"], rays: Int64[Tensor, " m"], starts: Int64[Tensor, " r1"]
) -> Float[Tensor, " m"]:
    """`compositing.ray_weights` in torch."""
    return torch.exp(-sum_before(optical, rays, starts)) * -torch.expm1(-optical)


def sum_before(
    values: Float[Tensor, " m"], rays: Int64[Tensor, " m"], starts: Int64[Tensor, " r1"]
) -> Float[Tensor, " m"]:
    """Exclusive cumulative sum along each ray: the sum of the values in front of each sample."""
    # One cumulative sum over all rays in double precision, minus its value at the start of the ray.
    before = torch.cat([values.new_zeros(1, dtype=torch.float64), values.double().cumsum(0)])
    return (before[:-1] - before[starts[rays]]).to(values.dtype)


def accumulate_torch(
    weights: Float[Tensor, " m"], values: Float[Tensor, "m c"], rays: Int64[Tensor, " m"], count: int
) -> Float[Tensor, "r c"]:
    """`compositing.accumulate` in torch."""
    return torch.zeros(count, values.shape[1]).to(values).index_add(0, rays, weights[:, None] * values)
