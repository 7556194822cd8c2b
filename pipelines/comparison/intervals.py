"""Means with 95 % confidence intervals from few repetitions (Student's t)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as t_distribution

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """Mean and confidence bounds; the bounds are nan for one value, and all fields are nan for no values."""

    mean: float
    low: float
    high: float
    count: int


def mean_interval(values: Sequence[float]) -> Interval:
    """Confidence interval of the mean of independent values; non-finite values are ignored."""
    finite = np.array([value for value in values if math.isfinite(value)])
    count = len(finite)
    if count < 2:
        return Interval(float(finite[0]) if count else math.nan, math.nan, math.nan, count)
    mean, error = float(finite.mean()), float(finite.std(ddof=1)) / math.sqrt(count)
    reach = float(t_distribution.ppf(0.5 + LEVEL / 2, count - 1)) * error
    return Interval(mean, mean - reach, mean + reach, count)


def geometric_interval(values: Sequence[float]) -> Interval:
    """Confidence interval of the geometric mean of positive values, computed from the mean logarithm."""
    logs = mean_interval([math.log(value) for value in values if math.isfinite(value) and value > 0])
    return Interval(math.exp(logs.mean), math.exp(logs.low), math.exp(logs.high), logs.count)
