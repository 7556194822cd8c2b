"""Unbiased moments of random gradients from a paired design: two noises for every (noise level, camera).

Of n pairs (a_i, b_i) with means m_i = (a_i + b_i) / 2,

    within  = mean_i |a_i - b_i|^2 / 2                    trace of the covariance over the noise, camera and level fixed
    between = S^2 - within / 2                            trace of the covariance of E[gradient | level, camera]
    total   = within + between                            trace of the whole covariance
    signal  = |mean_i m_i|^2 - S^2 / n                    squared norm of the mean

with S^2 the sample variance of the m_i, summed over components. Each is unbiased, so that `between` and `signal` may be
negative. Products of the means of two estimators are U-statistics over pairs i != j, which are unbiased although both
use the same noise. Only sums of gradients are kept, so memory does not grow with n.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

Pair = tuple[Float[Tensor, " p"], Float[Tensor, " p"]]
"""Gradients of two noises at the same noise level and camera."""


@dataclass(frozen=True)
class Moments:
    """Moments of one estimator's gradient; variances are traces, in squared units of the gradient."""

    within: float
    """Variance over the noise, at fixed noise level and camera."""
    within_error: float
    """Standard error of `within`; nan for one pair."""
    between: float
    """Variance between noise levels and cameras of the mean over the noise; nan for one pair."""
    signal: float
    """Squared norm of the mean; nan for one pair."""
    cosine: float
    """Cosine between this mean and the reference's; nan unless both squared norms are estimated to be positive."""
    bias: float
    """Squared distance between this mean and the reference's, relative to the reference's squared norm; may be nan."""

    @property
    def total(self) -> float:
        """Total variance of one gradient."""
        return self.within + self.between

    @property
    def noise_to_signal(self) -> float:
        """Ratio `total / signal`; nan if the signal is not estimated to be positive."""
        return self.total / self.signal if self.signal > 0 else math.nan


class PairedMoments:
    """Collects pairs of gradients of several estimators at the same draws."""

    def __init__(self, reference: str) -> None:
        """Create an empty collection.

        Args:
            reference: the estimator with whose mean the others' are compared.
        """
        self.reference = reference
        self.pairs = 0
        self._within: dict[str, list[float]] = {}
        self._sum: dict[str, Tensor] = {}
        self._squares: dict[str, float] = {}
        self._products: dict[str, float] = {}

    def add(self, gradients: Mapping[str, Pair]) -> dict[str, float]:
        """Add one pair per estimator, always of the same ones; returns each contribution |a - b|^2 / 2 to `within`.

        Raises ValueError if the estimators differ from the first call's, or the reference is not among them.
        """
        if self.reference not in gradients or (self.pairs and gradients.keys() != self._sum.keys()):
            known = ", ".join(self._sum or [self.reference])
            raise ValueError(f"every pair needs the same estimators ({known}), got {', '.join(gradients)}")
        means = {name: 0.5 * (a.double() + b.double()) for name, (a, b) in gradients.items()}
        found = {name: 0.5 * float((a.double() - b.double()).square().sum()) for name, (a, b) in gradients.items()}
        for name, mean in means.items():
            self._within.setdefault(name, []).append(found[name])
            self._sum[name] = self._sum[name] + mean if self.pairs else mean
            self._squares[name] = self._squares.get(name, 0.0) + float(mean.square().sum())
            self._products[name] = self._products.get(name, 0.0) + float(mean @ means[self.reference])
        self.pairs += 1
        return found

    def result(self) -> dict[str, Moments]:
        """The moments by estimator. Raises ValueError before the first pair."""
        if not self.pairs:
            raise ValueError("no pair has been added yet")
        return {name: self._of(name) for name in self._sum}

    def _of(self, name: str) -> Moments:
        n, values = self.pairs, self._within[name]
        within = sum(values) / n
        if n == 1:
            return Moments(within, *[math.nan] * 5)
        spread = (self._squares[name] - float(self._sum[name].square().sum()) / n) / (n - 1)
        error = math.sqrt(sum((value - within) ** 2 for value in values) / (n - 1) / n)
        signal, other = self._signal(name), self._signal(self.reference)
        product = self._u_statistic(self._sum[name] @ self._sum[self.reference], self._products[name])
        scale = math.sqrt(signal * other) if min(signal, other) > 0 else math.nan
        bias = (signal + other - 2 * product) / (other if other > 0 else math.nan)
        return Moments(within, error, spread - within / 2, signal, product / scale, bias)

    def _signal(self, name: str) -> float:
        return self._u_statistic(self._sum[name].square().sum(), self._squares[name])

    def _u_statistic(self, of_sums: Float[Tensor, ""], of_pairs: float) -> float:
        """Mean of the products over pairs i != j."""
        return (float(of_sums) - of_pairs) / (self.pairs * (self.pairs - 1))
