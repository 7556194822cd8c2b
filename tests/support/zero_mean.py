"""Two statistics of draws h that ought to have zero mean, of shape [n, ...].

`mean_ratio`  |mean h|^2 over its expectation from noise alone, tr Cov(h) / n: about 1 under zero mean.
`drift`       z-score of h along the mean of other draws, after removing c * noise (zero-mean, most of h's variance):
              some hundred times more sensitive to a mean that is due to grad phi. About N(0, 1) under zero mean.
"""

from __future__ import annotations

from torch import Tensor


def mean_ratio(h: Tensor) -> float:
    h = h.flatten(1)
    return float(h.mean(0).square().sum() / (h.var(0).sum() / len(h)).clamp(min=1e-12))


def drift(h: Tensor, noise: Tensor) -> float:
    """The first half of the draws gives the direction, the second half is tested; 0 if h is c * noise."""
    (h_first, h_second), (noise_first, noise_second) = (each.flatten(1).double().chunk(2) for each in (h, noise))
    fraction = (h_first * noise_first).sum() / noise_first.square().sum()
    direction = (h_first - fraction * noise_first).mean(0)
    if direction.norm() < 1e-6:
        return 0.0
    projected = (h_second - fraction * noise_second) @ (direction / direction.norm())
    return float(projected.mean() / projected.std() * len(projected) ** 0.5)
