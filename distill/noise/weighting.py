"""Weighting functions w(t) in `gradient = w(t) * residual`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor

Weighting = Callable[[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]], Float[Tensor, "b 1 1 1"]]
"""A weighting function (alpha, sigma) -> w(t)."""

WeightingName = Literal[
    "sigma_squared", "uniform", "sqrt_alpha_one_minus_alpha_bar", "sigma_over_alpha", "one_over_alpha"
]

WEIGHTINGS: dict[str, Weighting] = {
    # DreamFusion: 1 - alpha_bar.
    "sigma_squared": lambda alpha, sigma: sigma**2,
    "uniform": lambda alpha, sigma: sigma.new_ones(sigma.shape),
    # Fantasia3D: sqrt(alpha_bar) * (1 - alpha_bar).
    "sqrt_alpha_one_minus_alpha_bar": lambda alpha, sigma: alpha * sigma**2,
    # residual * sigma / alpha = clean - clean_hat: the plain distance to the denoised image (HiFA, LucidDreamer).
    "sigma_over_alpha": lambda alpha, sigma: sigma / alpha,
    # For flow models eps_hat - eps = alpha (u_hat - u), with the velocity u = eps - clean: the plain distance between
    # velocities (rectified flow distillation, RFDS).
    "one_over_alpha": lambda alpha, sigma: 1 / alpha,
}


def find_weighting(name: str) -> Weighting:
    """Look up a weighting by name. Raises ValueError for an unknown name."""
    if name not in WEIGHTINGS:
        raise ValueError(f"unknown weighting {name!r}: use one of {', '.join(WEIGHTINGS)}")
    return WEIGHTINGS[name]
