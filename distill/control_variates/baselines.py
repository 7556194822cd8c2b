"""Scalar baseline functions phi of Stein control variates: one number per image, differentiable in the noisy image.

Stein's identity, and therefore an unbiased gradient, requires three properties of phi:

  - it sees the noisy image, never the noise; everything else it uses is fixed before the noise is drawn;
  - it is continuous and piecewise smooth in the noisy image (ReLU, clamping, resizing, correlations are; rounding,
    argmax and sorting are not), and autograd tracks all of it: a detached part counts as constant and adds bias;
  - it is deterministic (no dropout) and processes each image separately (no batch normalization in training mode).

Sign and magnitude affect only how much variance is removed. Keep phi near -1 (phi = -1 is SDS) and away from zero: the
coefficient cannot follow a phi that changes sign.

A baseline of your own takes a few lines, see `distill.register_control_variate`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from ..geometry.base import GeometryEstimator
from ..geometry_buffers import GeometryBuffers


@dataclass(frozen=True)
class NoiseLevel:
    """The information about a draw that a baseline may use."""

    timestep: Int64[Tensor, " b"]
    alpha: Float[Tensor, "b 1 1 1"]
    sigma: Float[Tensor, "b 1 1 1"]


@runtime_checkable
class Baseline(Protocol):
    """A scalar function phi(noisy, level, geometry); entry i may depend on image i only."""

    def __call__(
        self, noisy: Float[Tensor, "b c h w"], level: NoiseLevel, geometry: GeometryBuffers
    ) -> Float[Tensor, " b"]: ...


@dataclass(frozen=True)
class ConstantBaseline:
    """The constant baseline phi = value. The value -1 makes Stein score distillation SDS, bit for bit."""

    value: float = -1.0

    def __call__(
        self, noisy: Float[Tensor, "b c h w"], level: NoiseLevel, geometry: GeometryBuffers
    ) -> Float[Tensor, " b"]:
        # Depends on `noisy` formally, with an exactly zero gradient.
        return self.value + 0.0 * noisy[:, 0, 0, 0]


@dataclass(frozen=True)
class DepthBaseline:
    """The depth baseline phi = -(1 - rho) in [-2, 0], with rho the Pearson correlation of estimated and rendered
    disparity (paper, Eq. 10).

    Disparity is 1 / z-depth, larger is nearer, as in `GeometryEstimate`. The correlation is weighted by the opacity:
    the background's disparity is arbitrary, and including it would measure the silhouette. An almost empty image has
    rho = 0 and phi = -1, which is SDS. The better the estimate agrees, the closer phi is to 0 and the less noise it can
    remove alone: fit it together with "noise" or "spectral".
    """

    estimator: GeometryEstimator
    decode: Callable[[Tensor], Tensor]
    """Conversion of the prior's space to sRGB, `Prior.decode`."""

    def __call__(
        self, noisy: Float[Tensor, "b c h w"], level: NoiseLevel, geometry: GeometryBuffers
    ) -> Float[Tensor, " b"]:
        estimate = self.estimator(self.decode(noisy).float(), level.sigma.flatten()).disparity
        occupied = (geometry.depth > 0) & (geometry.opacity > 0)
        weight = torch.where(occupied, geometry.opacity, 0.0)
        disparity = torch.where(occupied, 1 / geometry.depth.clamp(min=1e-6), 0.0)
        disparity, weight = _resized(disparity, weight, estimate)
        return weighted_pearson(estimate, disparity, weight) - 1


@dataclass(frozen=True)
class NormalBaseline:
    """The normal baseline phi = -(1 - c) in [-2, 0], with c the opacity-weighted mean cosine of estimated and rendered
    normals (paper, Eq. 10).
    """

    estimator: GeometryEstimator
    decode: Callable[[Tensor], Tensor]
    """Conversion of the prior's space to sRGB, `Prior.decode`."""

    def __call__(
        self, noisy: Float[Tensor, "b c h w"], level: NoiseLevel, geometry: GeometryBuffers
    ) -> Float[Tensor, " b"]:
        estimate = self.estimator(self.decode(noisy).float(), level.sigma.flatten()).normal
        estimate = torch.einsum("bij,bjhw->bihw", geometry.camera_to_world[:, :3, :3].to(estimate), estimate)
        normal, weight = _resized(geometry.normal, geometry.opacity, estimate)
        cosine = F.cosine_similarity(estimate, normal, dim=1, eps=1e-6)[:, None]
        return ((weight * cosine).flatten(1).sum(1) / (weight.flatten(1).sum(1) + 1e-6)) - 1


LEAST_PIXELS = 8
"""Least effective number of pixels for a correlation. Two pixels always correlate by 1 or -1: with so few, the
correlation almost jumps as the image changes, and the rare spikes of its gradient, which enters Stein's identity,
make the variance explode."""


def weighted_pearson(
    a: Float[Tensor, "b 1 h w"], b: Float[Tensor, "b 1 h w"], weight: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, " b"]:
    """Pearson correlation in [-1, 1] under non-negative weights, invariant to scale and shift of a and b.

    It is 0 if a or b does not vary, or if the effective number of pixels (sum w)^2 / sum w^2 is below `LEAST_PIXELS`.
    """
    weight = weight.flatten(1)
    total = weight.sum(1)
    enough = total.square() > LEAST_PIXELS * weight.square().sum(1)
    weight = weight / total.clamp(min=1e-30)[:, None]
    correlation = (weight * _standardized(a.flatten(1), weight) * _standardized(b.flatten(1), weight)).sum(1)
    return torch.where(enough, correlation, 0.0)


def _standardized(value: Float[Tensor, "b n"], weight: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Standardize to mean 0 and variance 1 under weights that sum to 1; about 0 if nothing varies."""
    centered = value - (weight * value).sum(1, keepdim=True)
    variance = (weight * centered.square()).sum(1, keepdim=True)
    # Larger than the float32 rounding error of a constant; keeps the square root's gradient finite for one.
    floor = 1e-10 * (weight * value.square()).sum(1, keepdim=True) + 1e-20
    return centered * torch.rsqrt(variance + floor)


def _resized(
    value: Float[Tensor, "b c h w"], weight: Float[Tensor, "b 1 h w"], like: Float[Tensor, "b d h2 w2"]
) -> tuple[Float[Tensor, "b c h2 w2"], Float[Tensor, "b 1 h2 w2"]]:
    """Resize value and weight; the value is averaged under its weight, so that edges do not bleed."""
    value, weight = value.to(like), weight.to(like)
    if value.shape[-2:] == like.shape[-2:]:
        return value, weight

    def resize(image: Tensor) -> Tensor:
        return F.interpolate(image, like.shape[-2:], mode="bilinear", antialias=True, align_corners=False)

    resized_weight = resize(weight)
    return resize(value * weight) / resized_weight.clamp(min=1e-6), resized_weight
