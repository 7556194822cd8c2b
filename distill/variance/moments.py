"""Unbiased moments of random gradients from a nested design: two noise levels per camera, and two noises per level.

Of n cameras c with gradients g_cle at levels l and noises e, with means m_cl over the noises and M_c over both levels,

    noise  = mean_cl |g_cl1 - g_cl2|^2 / 2       trace of the covariance over the noise, camera and level fixed
    level  = spread - noise / 2                  trace of the covariance over the level of E[gradient | level, camera]
    camera = S^2 - spread / 2                    trace of the covariance over the camera of E[gradient | camera]
    total  = noise + level + camera              trace of the whole covariance
    signal = |mean_c M_c|^2 - S^2 / n            squared norm of the mean

with spread = mean_c |m_c1 - m_c2|^2 / 2, and S^2 the sample variance of the M_c, summed over components. Each is
unbiased (the estimators of a nested analysis of variance), so that all but `noise` may be negative. Products of the
means of two estimators are U-statistics over cameras i != j, which are unbiased although both use the same noise. Only
sums of gradients are kept, so memory does not grow with n.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

Pair = tuple[Float[Tensor, " p"], Float[Tensor, " p"]]
"""Gradients of two noises at the same noise level and camera."""


@dataclass(frozen=True)
class Moments:
    """Moments of one estimator's gradient; variances are traces, in squared units of the gradient."""

    noise: float
    """Variance over the noise, at fixed noise level and camera."""
    noise_error: float
    """Standard error of `noise`; nan for one camera."""
    level: float
    """Variance over the noise level of the mean over the noise, at fixed camera."""
    level_error: float
    """Standard error of `level`; nan for one camera."""
    camera: float
    """Variance between cameras of the mean over noise and level; nan for one camera."""
    camera_error: float
    """Standard error of `camera`, an upper bound from disjoint pairs of cameras; nan for less than four cameras."""
    signal: float
    """Squared norm of the mean; nan for one camera."""
    cosine: float
    """Cosine between this mean and the reference's; nan unless both squared norms are estimated to be positive."""
    bias: float
    """Squared distance between this mean and the reference's, relative to the reference's squared norm; may be nan."""

    @property
    def within_view(self) -> float:
        """Variance over noise and level at a fixed camera, which several draws per view reduce."""
        return self.noise + self.level

    @property
    def total(self) -> float:
        """Total variance of one gradient."""
        return self.within_view + self.camera

    @property
    def noise_to_signal(self) -> float:
        """Ratio `total / signal`; nan if the signal is not estimated to be positive."""
        return self.total / self.signal if self.signal > 0 else math.nan


class NestedMoments:
    """Collects the gradients of several estimators at the same draws, camera by camera."""

    def __init__(self, reference: str) -> None:
        """Create an empty collection.

        Args:
            reference: the estimator with whose mean the others' are compared.
        """
        self.reference = reference
        self.cameras = 0
        self._noise: dict[str, list[float]] = {}
        self._spread: dict[str, list[float]] = {}
        self._steps: dict[str, list[float]] = {}
        """Half the squared distance between the means of disjoint pairs of cameras."""
        self._last: dict[str, Tensor] = {}
        self._sum: dict[str, Tensor] = {}
        self._squares: dict[str, float] = {}
        self._products: dict[str, float] = {}

    def add(self, gradients: Mapping[str, Sequence[Pair]]) -> dict[str, tuple[float, ...]]:
        """Add one camera: a pair for each of two noise levels per estimator, always of the same estimators.

        Returns each level's contribution |a - b|^2 / 2 to `noise`. Raises ValueError if the estimators differ from the
        first call's, or the reference is not among them.
        """
        if self.reference not in gradients or (self.cameras and gradients.keys() != self._sum.keys()):
            known = ", ".join(self._sum or [self.reference])
            raise ValueError(f"every camera needs the same estimators ({known}), got {', '.join(gradients)}")
        found, means = {}, {}
        for name, levels in gradients.items():
            first, second = (0.5 * (a.double() + b.double()) for a, b in levels)
            found[name] = tuple(_half_square(a.double() - b.double()) for a, b in levels)
            means[name] = 0.5 * (first + second)
            self._noise.setdefault(name, []).append(sum(found[name]) / 2)
            self._spread.setdefault(name, []).append(_half_square(first - second))
        for name, mean in means.items():
            self._sum[name] = self._sum[name] + mean if self.cameras else mean
            self._squares[name] = self._squares.get(name, 0.0) + float(mean.square().sum())
            self._products[name] = self._products.get(name, 0.0) + float(mean @ means[self.reference])
            if self.cameras % 2:
                self._steps.setdefault(name, []).append(_half_square(mean - self._last[name]))
        self._last = means
        self.cameras += 1
        return found

    def result(self) -> dict[str, Moments]:
        """The moments by estimator. Raises ValueError before the first camera."""
        if not self.cameras:
            raise ValueError("no camera has been added yet")
        return {name: self._of(name) for name in self._sum}

    def _of(self, name: str) -> Moments:
        n, noises, spreads = self.cameras, self._noise[name], self._spread[name]
        levels = [spread - noise / 2 for spread, noise in zip(spreads, noises, strict=True)]
        noise, level = sum(noises) / n, sum(levels) / n
        if n == 1:
            return Moments(noise, math.nan, level, *[math.nan] * 6)
        squared = (self._squares[name] - float(self._sum[name].square().sum()) / n) / (n - 1)
        cameras = [
            step - (spreads[2 * i] + spreads[2 * i + 1]) / 4 for i, step in enumerate(self._steps[name])
        ]  # of independent pairs, each with the mean `camera`
        signal, other = self._signal(name), self._signal(self.reference)
        product = self._u_statistic(self._sum[name] @ self._sum[self.reference], self._products[name])
        scale = math.sqrt(signal * other) if min(signal, other) > 0 else math.nan
        bias = (signal + other - 2 * product) / (other if other > 0 else math.nan)
        return Moments(
            noise,
            standard_error(noises),
            level,
            standard_error(levels),
            squared - sum(spreads) / n / 2,
            standard_error(cameras),
            signal,
            product / scale,
            bias,
        )

    def _signal(self, name: str) -> float:
        return self._u_statistic(self._sum[name].square().sum(), self._squares[name])

    def _u_statistic(self, of_sums: Float[Tensor, ""], of_cameras: float) -> float:
        """Mean of the products over cameras i != j."""
        return (float(of_sums) - of_cameras) / (self.cameras * (self.cameras - 1))


def standard_error(values: Sequence[float]) -> float:
    """Standard error of the mean of independent values; nan for less than two."""
    n = len(values)
    if n < 2:
        return math.nan
    mean = sum(values) / n
    return math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1) / n)


def _half_square(vector: Float[Tensor, " p"]) -> float:
    return 0.5 * float(vector.square().sum())
