"""Emission-absorption compositing of packed samples [Max 1995; Mildenhall et al. 2020, eq. 3].

float32 tensors on the CPU use compiled kernels, which give the same bits for any number of threads; all other tensors
use `reference`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import _cpu_volume as kernels
from .reference import accumulate_torch, sum_before, weights_torch
from .samples import Samples

_LEAST_OPACITY = 1e-12


def ray_weights(density: Float[Tensor, " m"], samples: Samples, step: float) -> Float[Tensor, " m"]:
    """Compositing weights T_i (1 - exp(-density_i step)) with the transmittance T_i = exp(-sum_{j<i} density_j step).

    Along a ray the weights sum to its opacity.

    Args:
        density: Density per meter.
        samples: The samples, front to back.
        step: Length of the interval of a sample in meters.
    """
    optical = density * step
    if _compiled(optical):
        return _Weights.apply(optical, samples.starts)
    return weights_torch(optical, samples.rays, samples.starts)


def reached(density: Float[Tensor, " m"], samples: Samples, step: float, least_light: float) -> Bool[Tensor, " m"]:
    """Whether the transmittance at each sample exceeds `least_light`; always true for 0."""
    if least_light <= 0:
        return torch.ones_like(density, dtype=torch.bool)
    return sum_before(density * step, samples.rays, samples.starts) < -math.log(least_light)


def accumulate(weights: Float[Tensor, " m"], values: Float[Tensor, "m c"], samples: Samples) -> Float[Tensor, "r c"]:
    """Sum of weight * value along each ray; 0 where a ray has no sample."""
    if _compiled(weights):
        return _Accumulate.apply(weights, values, samples.starts)
    return accumulate_torch(weights, values, samples.rays, len(samples.starts) - 1)


def per_opacity(sums: Float[Tensor, "r c"], opacity: Float[Tensor, "r 1"]) -> Float[Tensor, "r c"]:
    """Weighted means along rays from weighted sums; 0 where the opacity is 0."""
    # The opacity of a ray can be as small as a subnormal number. The clamp bounds the divisor, and its square in the
    # gradient, which would otherwise be infinite and become NaN even where the incoming gradient is 0.
    return sums / opacity.clamp_min(_LEAST_OPACITY)


def _compiled(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.dtype == torch.float32


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


class _Weights(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, optical: Tensor, starts: Tensor) -> Tensor:
        weights = torch.empty_like(optical, memory_format=torch.contiguous_format)
        kernels.weights(_array(optical), starts.numpy(), weights.numpy())
        ctx.save_for_backward(optical, starts, weights)
        return weights

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *g_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        optical, starts, weights = ctx.saved_tensors
        g_optical = torch.empty(len(optical))
        kernels.weights_backward(*(_array(t) for t in (optical, starts, weights, g_outputs[0], g_optical)))
        return g_optical, None


class _Accumulate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weights: Tensor, values: Tensor, starts: Tensor) -> Tensor:
        ctx.save_for_backward(weights, values, starts)
        out = torch.empty(len(starts) - 1, values.shape[1])
        kernels.accumulate(*(_array(t) for t in (weights, values, starts, out)))
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *g_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        weights, values, starts = ctx.saved_tensors
        g_weights, g_values = torch.empty(len(weights)), torch.empty(values.shape)
        tensors = (weights, values, starts, g_outputs[0], g_weights, g_values)
        kernels.accumulate_backward(*(_array(t) for t in tensors))
        return g_weights, g_values, None
