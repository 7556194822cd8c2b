"""Ray marching: equidistant samples in a box, restricted to occupied cells."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from . import _cpu_volume as kernels
from .reference import march_torch
from .samples import Samples


def march(
    origins: Float[Tensor, "r 3"],
    directions: Float[Tensor, "r 3"],
    offsets: Float[Tensor, " r"],
    occupied: Bool[Tensor, "g g g"],
    *,
    bound: float,
    step: float,
    near: float,
) -> Samples:
    """Sample rays every `step` meters inside the box [-bound, bound]^3, only in occupied cells; without gradient.

    float32 tensors on the CPU use compiled kernels, others `march_torch`.

    Args:
        origins: Ray origins in meters; they may be inside the box.
        directions: Unit vectors.
        offsets: Offset of each ray's samples as a fraction of a step, in [0, 1): 0.5 centers them, uniform random
            numbers give a stratified estimate of the integral along the ray.
        occupied: Occupied cells of the box; axes x, y, z.
        bound: Half the side of the box in meters.
        step: Distance between samples in meters.
        near: Distance from the origin in meters at which a ray starts.
    """
    origins, directions, offsets = origins.detach(), directions.detach(), offsets.detach()
    if origins.device.type != "cpu" or origins.dtype != torch.float32:
        return march_torch(origins, directions, offsets, occupied, bound, step, near)
    arrays = [tensor.contiguous().numpy() for tensor in (origins, directions, offsets, occupied)]
    settings = [*arrays, *(np.float32(value) for value in (bound, step, near))]
    starts = torch.zeros(len(origins) + 1, dtype=torch.int64)
    counts = torch.empty(len(origins), dtype=torch.int64)
    arguments = [*settings, counts.numpy()]
    kernels.count(*arguments)
    starts[1:] = counts.cumsum(0)
    total = int(starts[-1])
    samples = Samples(torch.empty(total, 3), torch.empty(total), torch.empty(total, dtype=torch.int64), starts)
    outputs = (samples.starts, samples.points, samples.distances, samples.rays)
    arguments = [*settings, *(tensor.numpy() for tensor in outputs)]
    kernels.fill(*arguments)
    return samples
