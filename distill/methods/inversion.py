"""DDIM inversion of a draw, for interval score matching and score distillation via inversion."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..noise.schedule import NoisySample
from ..residual import Draw


def check_stride(stride: float) -> None:
    """Raises ValueError for a length of a DDIM step that is no fraction of the schedule."""
    if not 0 < stride <= 1:
        raise ValueError(f"stride is {stride}; fractions of the schedule above 0 and up to 1 are accepted")


def invert(
    draw: Draw,
    timestep: Int64[Tensor, " b"],
    stride: float,
    predict: Callable[[NoisySample], Float[Tensor, "b c h w"]],
) -> NoisySample:
    """The sample at `timestep` by DDIM inversion from timestep 0 with the draw's noise.

    It takes the fewest steps that are no longer than `stride`, a fraction of the schedule.
    """
    schedule, sample = draw.schedule, draw.sample
    start = schedule.add_noise(sample.clean, sample.noise, torch.zeros_like(timestep))
    steps = math.ceil(int(timestep.max()) / (stride * schedule.steps))
    return schedule.ddim_inversion(start, timestep, max(steps, 1), predict)
