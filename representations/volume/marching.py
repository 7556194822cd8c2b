"""Where rays are sampled: equal steps through a box, only where its occupancy grid says that something may be."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from . import _cpu_volume as kernels
from .samples import Samples
from .volume_twin import march_torch


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
    """Samples `step` metres apart where a ray is inside the box [-bound, bound]^3 and the point's cell is occupied.

    `directions` are unit vectors; a ray begins `near` metres from its origin, which may lie inside the box. `offsets`
    in [0, 1) move each ray's samples by that part of a step: 0.5 centres them, uniform numbers make them a stratified
    estimate of the integral along the ray. No gradient.

    float32 tensors on the CPU go through compiled kernels, others through `march_torch`.
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
