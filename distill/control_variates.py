"""Zero-mean terms that are added to the prior's noise prediction.

    residual = eps_hat(noisy) + sum_k mu_k * h_k,      E[h_k | clean, timestep, camera] = 0

A term's sign and scale are such that mu = 1 with h = -noise is SDS. (MATH: Stein's identity for noisy ~ N(alpha clean,
sigma^2 I) reads E[phi * noise - sigma * grad phi] = 0 with the gradient taken with respect to `noisy`.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from .schedule import NoisySample


@dataclass(frozen=True)
class Guide:
    """What the renderer knows about the picture, detached; baseline functions compare their estimates with it."""

    opacity: Float[Tensor, "b 1 h w"]
    depth: Float[Tensor, "b 1 h w"]
    """z-depth in metres, 0 where empty."""
    normal: Float[Tensor, "b 3 h w"]
    """World-space unit vectors, 0 where empty."""
    camera_to_world: Float[Tensor, "b 4 4"]
    """OpenCV axes: rotates estimated (camera-space) normals."""


@runtime_checkable
class ControlVariate(Protocol):
    """k zero-mean terms, each of the shape of the noise."""

    @property
    def names(self) -> tuple[str, ...]:
        """One name per term, for logs and coefficients."""
        ...

    @property
    def initial(self) -> tuple[float, ...]:
        """The coefficient each term starts with (1 for the terms that together make up SDS's -noise, else 0)."""
        ...

    def terms(self, sample: NoisySample, guide: Guide) -> Float[Tensor, "k b c h w"]: ...
