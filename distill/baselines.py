"""Scalar baseline functions phi of Stein control variates: one number per picture, differentiable in the noisy picture.

Stein's identity, and with it an unbiased gradient, asks of phi:

  - it sees the noisy picture, never the noise; everything else it uses is fixed before the noise is drawn;
  - it is continuous and piecewise smooth in the noisy picture (ReLU, clamping, resizing, correlations are; rounding,
    argmax and sorting are not), and autograd sees all of it: what is detached counts as constant and biases;
  - it is deterministic (no dropout) and treats each picture on its own (no batch normalisation in training mode).

Sign and size matter only for how much variance is removed. Keep phi near -1 (phi = -1 is SDS) and away from zero: the
coefficient cannot follow a phi that changes sign.

Your own takes a few lines and is then a valid entry of `SSDConfig.baseline`:

    @register_baseline("brightness")
    def brightness(noisy, level, guide):
        return -torch.sigmoid(noisy.mean((1, 2, 3)))

One that needs the prior or the estimator: `BASELINES["mine"] = BaselineEntry(lambda prior, estimator: Mine(prior))`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from .estimator import GeometryEstimator
from .guide import Guide
from .prior import Prior


@dataclass(frozen=True)
class NoiseLevel:
    """All a baseline may know about the draw."""

    timestep: Int64[Tensor, " b"]
    alpha: Float[Tensor, "b 1 1 1"]
    sigma: Float[Tensor, "b 1 1 1"]


@runtime_checkable
class Baseline(Protocol):
    """phi(noisy, level, guide): entry i may depend on picture i only."""

    def __call__(self, noisy: Float[Tensor, "b c h w"], level: NoiseLevel, guide: Guide) -> Float[Tensor, " b"]: ...


@dataclass(frozen=True)
class ConstantBaseline:
    """phi = value. The value -1 makes Stein score distillation SDS, bit for bit."""

    value: float = -1.0

    def __call__(self, noisy: Float[Tensor, "b c h w"], level: NoiseLevel, guide: Guide) -> Float[Tensor, " b"]:
        # Depends on `noisy` formally, with an exactly zero gradient.
        return self.value + 0.0 * noisy[:, 0, 0, 0]


@dataclass(frozen=True)
class DepthBaseline:
    """phi = -(1 - rho) in [-2, 0], rho the Pearson correlation of estimated and rendered disparity (paper, Eq. 10).

    Disparity is 1 / z-depth, larger is nearer, as in `GeometryEstimate`. The correlation is weighted by the opacity:
    the background's disparity is arbitrary, and including it would measure the silhouette. A picture of (almost)
    nothing has rho = 0: phi = -1, that is SDS. The better the estimate agrees, the closer phi is to 0, and the less of
    the noise it can remove alone: fit it together with "noise" or "spectral".
    """

    estimator: GeometryEstimator
    decode: Callable[[Tensor], Tensor]
    """From the prior's space to sRGB, `Prior.decode`."""

    def __call__(self, noisy: Float[Tensor, "b c h w"], level: NoiseLevel, guide: Guide) -> Float[Tensor, " b"]:
        estimate = self.estimator(self.decode(noisy).float(), level.sigma.flatten()).disparity
        occupied = (guide.depth > 0) & (guide.opacity > 0)
        weight = torch.where(occupied, guide.opacity, 0.0)
        disparity = torch.where(occupied, 1 / guide.depth.clamp(min=1e-6), 0.0)
        disparity, weight = _resized(disparity, weight, estimate)
        return weighted_pearson(estimate, disparity, weight) - 1


@dataclass(frozen=True)
class NormalBaseline:
    """phi = -(1 - c) in [-2, 0], c the opacity-weighted mean cosine of estimated and rendered normals (Eq. 10)."""

    estimator: GeometryEstimator
    decode: Callable[[Tensor], Tensor]
    """From the prior's space to sRGB, `Prior.decode`."""

    def __call__(self, noisy: Float[Tensor, "b c h w"], level: NoiseLevel, guide: Guide) -> Float[Tensor, " b"]:
        estimate = self.estimator(self.decode(noisy).float(), level.sigma.flatten()).normal
        estimate = torch.einsum("bij,bjhw->bihw", guide.camera_to_world[:, :3, :3].to(estimate), estimate)
        normal, weight = _resized(guide.normal, guide.opacity, estimate)
        cosine = F.cosine_similarity(estimate, normal, dim=1, eps=1e-6)[:, None]
        return ((weight * cosine).flatten(1).sum(1) / (weight.flatten(1).sum(1) + 1e-6)) - 1


LEAST_PIXELS = 8
"""Two pixels always correlate by 1 or -1: with so few, the correlation all but jumps as the picture changes, and the
rare spikes of its gradient, which Stein's identity needs, make the variance explode."""


def weighted_pearson(
    a: Float[Tensor, "b 1 h w"], b: Float[Tensor, "b 1 h w"], weight: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, " b"]:
    """Pearson correlation in [-1, 1] under non-negative weights, at any scale and shift of a and b.

    0 where nothing varies, and where the weights are worth fewer than `LEAST_PIXELS` pixels, (sum w)^2 / sum w^2.
    """
    weight = weight.flatten(1)
    total = weight.sum(1)
    enough = total.square() > LEAST_PIXELS * weight.square().sum(1)
    weight = weight / total.clamp(min=1e-30)[:, None]
    correlation = (weight * _standardised(a.flatten(1), weight) * _standardised(b.flatten(1), weight)).sum(1)
    return torch.where(enough, correlation, 0.0)


def _standardised(value: Float[Tensor, "b n"], weight: Float[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Mean 0 and variance 1 under the weights, which sum to 1; about 0 where nothing varies."""
    centred = value - (weight * value).sum(1, keepdim=True)
    variance = (weight * centred.square()).sum(1, keepdim=True)
    # Above float32's rounding of a constant, and so that the square root's gradient stays finite at one.
    floor = 1e-10 * (weight * value.square()).sum(1, keepdim=True) + 1e-20
    return centred * torch.rsqrt(variance + floor)


def _resized(
    value: Float[Tensor, "b c h w"], weight: Float[Tensor, "b 1 h w"], like: Float[Tensor, "b d h2 w2"]
) -> tuple[Float[Tensor, "b c h2 w2"], Float[Tensor, "b 1 h2 w2"]]:
    """Value and weight at another size; the value is averaged under its weight, so that edges do not bleed."""
    value, weight = value.to(like), weight.to(like)
    if value.shape[-2:] == like.shape[-2:]:
        return value, weight

    def resize(image: Tensor) -> Tensor:
        return F.interpolate(image, like.shape[-2:], mode="bilinear", antialias=True, align_corners=False)

    resized_weight = resize(weight)
    return resize(value * weight) / resized_weight.clamp(min=1e-6), resized_weight


@dataclass(frozen=True)
class BaselineEntry:
    """How a named baseline is made."""

    build: Callable[[Prior, GeometryEstimator | None], Baseline]
    """Given an estimator whenever there is one."""
    needs_estimator: bool = False


def build_baseline(name: str, prior: Prior, estimator: GeometryEstimator | None) -> Baseline:
    """Raises ValueError if the baseline needs an estimator and none is given."""
    entry = BASELINES[name]
    if entry.needs_estimator and estimator is None:
        raise ValueError(
            f"the {name!r} baseline needs a geometry estimator and none was given: "
            'pass one to build(prior, estimator), or choose baseline: ["spectral"] or ["noise"]'
        )
    return entry.build(prior, estimator)


def _on_estimates(kind: Callable[[GeometryEstimator, Callable[[Tensor], Tensor]], Baseline]) -> BaselineEntry:
    def build(prior: Prior, estimator: GeometryEstimator | None) -> Baseline:
        assert estimator is not None  # `build_baseline` has seen to it
        return kind(estimator, prior.decode)

    return BaselineEntry(build, needs_estimator=True)


BASELINES: dict[str, BaselineEntry] = {
    "depth": _on_estimates(DepthBaseline),
    "normal": _on_estimates(NormalBaseline),
}
"""Stein baselines by name; see the module's docstring for adding one."""

BUILT_IN_TERMS = ("noise", "spectral", "student", "low_rank")
"""What `SSDConfig.baseline` may list beside `BASELINES`: control variates that are no baseline functions."""


def check_baseline_names() -> None:
    """Raises ValueError for an entry of `BASELINES` that a built-in term would be used in place of."""
    hidden = [name for name in BASELINES if name in BUILT_IN_TERMS]
    if hidden:
        raise ValueError(f"the baseline {hidden[0]!r} has the name of a built-in term: choose another name for it")


Function = TypeVar("Function", bound=Baseline)


def register_baseline(name: str) -> Callable[[Function], Function]:
    """Decorator: make a baseline function available under `name`.

    Raises ValueError if the name is taken, by another baseline or by one of `BUILT_IN_TERMS`, or is no word.
    """

    def register(function: Function) -> Function:
        if not isinstance(name, str) or not name or len(name.split()) != 1 or set(name) & set(",[]{}"):
            raise ValueError(f"a baseline's name is one word that a setting can list, got {name!r}")
        if name in BASELINES or name in BUILT_IN_TERMS:
            raise ValueError(f"a baseline named {name!r} exists already: choose another name")
        BASELINES[name] = BaselineEntry(lambda prior, estimator: function)
        return function

    return register
