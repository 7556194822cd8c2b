"""Zero-mean terms that are added to the prior's noise prediction.

    residual = eps_hat(noisy) + sum_k mu_k * h_k,      E[h_k | clean, timestep, camera] = 0

A term's sign and scale are such that mu = 1 with h = -noise is SDS. Stein's identity for
noisy ~ N(alpha * clean, sigma^2 I) reads E[phi * noise - sigma * grad phi] = 0, the gradient with respect to `noisy`
(Stein 1981, Lemma 1; the paper's form has another sign and scale, see `SteinTerm`). For a matrix A that does not depend
on the noise, in place of phi, it reads E[A noise] = 0. The estimator is then unbiased for any mu that is independent of
the noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..basis import cosine_matrix
from ..geometry_buffers import GeometryBuffers
from ..noise.schedule import NoisySample
from ..priors.base import described
from .baselines import Baseline, NoiseLevel
from .coefficients import Observation


@runtime_checkable
class ControlVariate(Protocol):
    """A control variate with k zero-mean terms, each of the shape of the noise.

    The mean is conditional on everything but the noise: of the sample only `noise`, and with it `noisy`, is random.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """One name per term, for logs and coefficients."""
        ...

    @property
    def initial(self) -> tuple[float, ...]:
        """The initial coefficient of each term: 1 for the terms that together make up SDS's -noise, else 0."""
        ...

    def terms(self, sample: NoisySample, geometry: GeometryBuffers) -> Float[Tensor, "k b c h w"]: ...


@runtime_checkable
class LearningControlVariate(ControlVariate, Protocol):
    """A control variate that learns from past steps. If it is an `nn.Module`, its state is part of the distiller's."""

    def learn(self, observation: Observation) -> None:
        """Learn from a step whose gradient has been used; not called for antithetic pairs."""
        ...


@dataclass(frozen=True)
class NoiseTerm:
    """The term h = -noise: SDS at mu = 1, and the baseline every other control variate must beat once mu is fitted."""

    initial_coefficient: float = 1.0

    @property
    def names(self) -> tuple[str, ...]:
        """The single name "noise"."""
        return ("noise",)

    @property
    def initial(self) -> tuple[float, ...]:
        """The initial coefficient of the term."""
        return (self.initial_coefficient,)

    def terms(self, sample: NoisySample, geometry: GeometryBuffers) -> Float[Tensor, "1 b c h w"]:
        """The negative noise of the sample."""
        return -sample.noise[None]


SteinVariant = Literal["corrected", "paper"]
STEIN_VARIANTS: tuple[SteinVariant, ...] = get_args(SteinVariant)


@dataclass(frozen=True)
class SteinTerm:
    """The Stein term h = phi * noise - sigma * grad phi, SteinDreamer's control variate for a scalar baseline phi.

    `variant="paper"` is the printed form phi * noise + grad phi (Eq. 8 and 9). It is NOT zero-mean: its mean is
    (1 + sigma) E[grad phi]. With a positive coefficient, descent lowers phi, the image's agreement with the scene.
    It is kept for comparison only.

    Raises ValueError for an unknown variant, and for a baseline that is detached from the noisy image or does not
    return one number per image.
    """

    name: str
    baseline: Baseline
    variant: str = "corrected"
    initial_coefficient: float = 1.0

    def __post_init__(self) -> None:
        if self.variant not in STEIN_VARIANTS:
            raise ValueError(f"unknown Stein variant {self.variant!r}: use one of {', '.join(STEIN_VARIANTS)}")

    @property
    def names(self) -> tuple[str, ...]:
        """The single name of the term."""
        return (self.name,)

    @property
    def initial(self) -> tuple[float, ...]:
        """The initial coefficient of the term."""
        return (self.initial_coefficient,)

    def terms(self, sample: NoisySample, geometry: GeometryBuffers) -> Float[Tensor, "1 b c h w"]:
        """The Stein term of the baseline at the noisy image; differentiates the baseline once."""
        with torch.enable_grad():
            noisy = sample.noisy.detach().requires_grad_()
            phi: Any = self.baseline(noisy, NoiseLevel(sample.timestep, sample.alpha, sample.sigma), geometry)
            whole = isinstance(phi, Tensor) and phi.is_floating_point() and phi.device == noisy.device
            if not whole or phi.shape != sample.timestep.shape:
                raise ValueError(
                    f"baseline {self.name!r} must return one floating-point number per image, of shape "
                    f"{tuple(sample.timestep.shape)} on {noisy.device}; got {described(phi)}"
                )
            gradient = torch.autograd.grad(phi.sum(), noisy, allow_unused=True)[0] if phi.requires_grad else None
        if gradient is None:
            # Taking it as zero would bias the estimator silently.
            raise ValueError(
                f"baseline {self.name!r} is detached from the noisy image: remove no_grad/detach from it, "
                "or use ConstantBaseline for a constant"
            )
        scaled = phi.detach()[:, None, None, None] * sample.noise
        return (scaled - sample.sigma * gradient if self.variant == "corrected" else scaled + gradient)[None]


@dataclass(frozen=True)
class SpectralTerm:
    """The terms h_k = -(the noise in the k-th radial frequency band): Stein's identity with constant matrices.

    The bands of the orthonormal cosine transform partition the noise: mu = 1 for all of them is SDS. For stationary
    Gaussian images of power V, eps_hat responds to the noise with the gain sigma^2 / (alpha^2 V + sigma^2), one minus
    the Wiener filter, which is the optimal coefficient: near 0 at frequencies where the image dominates, near 1 where
    the noise dominates. A scalar cannot represent it. Bands have equal width in the radial frequency relative to the
    highest, so that fitted coefficients remain valid at another resolution. Raises ValueError unless bands >= 1.
    """

    bands: int = 12
    initial_coefficient: float = 1.0

    def __post_init__(self) -> None:
        if self.bands < 1:
            raise ValueError(f"the spectral control variate needs at least one band, got {self.bands}")

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the terms, one per frequency band."""
        return tuple(f"spectral_{band:02d}" for band in range(self.bands))

    @property
    def initial(self) -> tuple[float, ...]:
        """The initial coefficients, one per frequency band."""
        return (self.initial_coefficient,) * self.bands

    def terms(self, sample: NoisySample, geometry: GeometryBuffers) -> Float[Tensor, "k b c h w"]:
        """The negative noise, split into frequency bands."""
        noise = sample.noise
        height, width = noise.shape[-2:]
        rows, columns = (_cosines(size, noise.dtype, noise.device) for size in (height, width))
        band = _radial_band(height, width, self.bands, noise.device)
        spectrum = -(rows @ noise @ columns.T)
        out = noise.new_empty(self.bands, *noise.shape)
        for index in range(self.bands):
            out[index] = rows.T @ (spectrum * (band == index)) @ columns
        return out


@lru_cache(maxsize=16)
def _cosines(size: int, dtype: torch.dtype, device: torch.device) -> Float[Tensor, "n n"]:
    return cosine_matrix(size).to(device, dtype)


@lru_cache(maxsize=16)
def _radial_band(height: int, width: int, bands: int, device: torch.device) -> Int64[Tensor, "h w"]:
    """The band of every DCT coefficient, by its radial frequency relative to the corner's."""
    vertical, horizontal = (torch.arange(n, dtype=torch.float64) / n for n in (height, width))
    radius = torch.hypot(vertical[:, None], horizontal) / math.sqrt(2)
    return (radius * bands).long().clamp(max=bands - 1).to(device)
