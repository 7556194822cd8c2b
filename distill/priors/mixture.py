"""Gaussian mixtures as diffusion priors whose score is known in closed form.

With p(x0) = sum_k w_k N(m_k, V_k) and noisy = alpha x0 + sigma eps, the noisy marginal is again a mixture,
sum_k w_k N(alpha m_k, C_k) with C_k = alpha^2 V_k + sigma^2, so that, with responsibilities r_k proportional to
w_k N(noisy; alpha m_k, C_k),

    eps_hat = -sigma grad log p(noisy) = sigma sum_k r_k C_k^-1 (noisy - alpha m_k).

These priors are exact, not learned: estimators are tested on them because every expectation can be checked.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

import torch
from jaxtyping import Float
from torch import Tensor

from ..basis import SeparableBasis
from ..noise.schedule import NoiseSchedule
from .base import CameraBatch, Embedding, NoiseRequest, Prompt


@dataclass(frozen=True)
class GaussianMixture:
    """A mixture of Gaussian images, `sum_k weight_k N(mean_k, variance_k)`, in the prior's own space.

    Example:
        >>> import torch
        >>> mixture = GaussianMixture.isotropic(torch.zeros(2, 3, 8, 8), bandwidth=0.5)
    """

    means: Float[Tensor, "k c h w"] | Float[Tensor, "b k c h w"]
    """Means, shared by all images or one set per image of the batch."""
    variances: Float[Tensor, "#k #c #h #w"]
    """Diagonal covariances in `basis`; singleton axes broadcast (all four: one shared variance)."""
    log_weights: Float[Tensor, " k"]
    """Log-weights of the components, normalized."""
    basis: SeparableBasis | None = None
    """The basis in which the covariances are diagonal; None: pixels. The means are images in either case."""

    @classmethod
    def isotropic(
        cls, means: Float[Tensor, "k c h w"] | Float[Tensor, "b k c h w"], bandwidth: float
    ) -> GaussianMixture:
        """A mixture of equal weights and one standard deviation. Raises ValueError unless it is positive."""
        if not bandwidth > 0:
            raise ValueError(f"bandwidth must be positive, got {bandwidth}")
        count = means.shape[-4]
        variances = torch.full((1, 1, 1, 1), bandwidth**2, device=means.device)
        return cls(means, variances, torch.full((count,), -math.log(count), device=means.device))

    def subset(self, components: Sequence[int]) -> GaussianMixture:
        """The mixture of the named components, weights renormalized."""
        index = torch.tensor(components, device=self.means.device)
        variances = self.variances if len(self.variances) == 1 else self.variances[index]
        means = self.means.index_select(self.means.ndim - 4, index)
        return GaussianMixture(means, variances, self.log_weights[index].log_softmax(0), self.basis)

    def log_density(
        self, noisy: Float[Tensor, "b c h w"], alpha: Float[Tensor, "b 1 1 1"], sigma: Float[Tensor, "b 1 1 1"]
    ) -> Float[Tensor, " b"]:
        """Log-density of `noisy = alpha x0 + sigma eps`, float64, differentiable; clean for alpha = 1, sigma = 0."""
        return self._components(noisy, alpha, sigma)[0].logsumexp(1)

    def predict_noise(
        self, noisy: Float[Tensor, "b c h w"], alpha: Float[Tensor, "b 1 1 1"], sigma: Float[Tensor, "b 1 1 1"]
    ) -> Float[Tensor, "b c h w"]:
        """The exact E[eps | noisy]."""
        log_joint, whitened = self._components(noisy, alpha, sigma)
        responsibility = log_joint.softmax(1).to(whitened.dtype)
        return sigma * self._to_image(torch.einsum("bk,bkchw->bchw", responsibility, whitened))

    def sample(self, count: int, generator: torch.Generator) -> Float[Tensor, "n c h w"]:
        """Draw clean images. Raises ValueError for per-image means."""
        if self.means.ndim != 4:
            raise ValueError("a mixture with means per image has no single distribution to sample from")
        index = torch.multinomial(self.log_weights.exp(), count, replacement=True, generator=generator)
        noise = torch.randn((count, *self.means.shape[1:]), generator=generator)
        deviation = self.variances.sqrt().expand(len(self.means), -1, -1, -1)[index]
        return self.means[index] + self._to_image(deviation * noise)

    def _components(
        self, noisy: Float[Tensor, "b c h w"], alpha: Float[Tensor, "b 1 1 1"], sigma: Float[Tensor, "b 1 1 1"]
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k c h w"]]:
        """The terms log(w_k N(noisy; alpha m_k, C_k)) and C_k^-1 (noisy - alpha m_k), the latter in the basis."""
        alpha, sigma = alpha[:, None], sigma[:, None]
        means = self.means if self.means.ndim == 5 else self.means[None]
        residual = self._to_coefficients(noisy)[:, None] - alpha * self._to_coefficients(means)
        variance = alpha**2 * self.variances + sigma**2
        whitened = residual / variance
        # The softmax depends on differences of sums over 10^4 or more pixels, for which float32 is too imprecise.
        quadratic = (residual * whitened).sum((-3, -2, -1), dtype=torch.float64)
        log_determinant = (2 * math.pi * variance.double()).log().mean((-3, -2, -1)) * noisy[0].numel()
        return self.log_weights - 0.5 * (quadratic + log_determinant), whitened

    def _to_coefficients(self, image: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        return image if self.basis is None else self.basis.to_coefficients(image)

    def _to_image(self, coefficients: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        return coefficients if self.basis is None else self.basis.to_image(coefficients)


def image_like_mixture(basis: SeparableBasis, components: int, generator: torch.Generator) -> GaussianMixture:
    """A high-entropy mixture with the power-law spectrum of natural images and a white floor.

    The means overlap and have low frequencies only, so that responsibilities are soft and depend on the image. Each
    component has more power along rows or along columns. Mean pixel variance is about 1.
    """
    frequency = basis.squared_frequency
    channels, height, width = len(basis.channels), *frequency.shape
    power = natural_power(basis)
    fraction = 0.4 * torch.exp(-frequency / 60) + 0.06 * torch.exp(-frequency / 400)
    means = torch.randn(components, channels, height, width, generator=generator) * power.sqrt() * fraction
    variances = _leaning(components, height, width, generator) * power * (1 - 0.5 * fraction**2) + FLOOR
    log_weights = (0.3 * torch.randn(components, generator=generator)).log_softmax(0)
    return GaussianMixture(basis.to_image(means), variances, log_weights, basis)


FLOOR = 0.01
"""Variance of the white floor, as a fraction of the mean pixel variance."""


def natural_power(basis: SeparableBasis) -> Float[Tensor, "c h w"]:
    """The power-law spectrum of natural images in a basis, without the white floor; its mean is 1 - `FLOOR`."""
    channel_power = 0.4 ** torch.arange(len(basis.channels), dtype=torch.float32)[:, None, None]
    power = channel_power * (1 + basis.squared_frequency) ** -0.95
    return power / power.mean() * (1 - FLOOR)


def natural_variances(basis: SeparableBasis, components: int, generator: torch.Generator) -> Float[Tensor, "k c h w"]:
    """Covariances of a mixture with the spectrum of natural images and a white floor; mean pixel variance about 1.

    Each component has more power along rows or along columns.
    """
    height, width = basis.squared_frequency.shape
    return _leaning(components, height, width, generator) * natural_power(basis) + FLOOR


def _leaning(components: int, height: int, width: int, generator: torch.Generator) -> Float[Tensor, "k 1 h w"]:
    """Factors that give each component more power along rows or along columns."""
    lean = 0.02 * (2 * torch.rand(components, 1, 1, 1, generator=generator) - 1)
    direction = torch.linspace(-1, 1, height)[:, None] - torch.linspace(-1, 1, width)
    return torch.exp(lean * direction)


@dataclass(frozen=True)
class MixtureCondition:
    """The mixtures of one batch of views, by prompt."""

    positive: GaussianMixture
    """The mixture of the prompt."""
    negative: Callable[[], GaussianMixture]
    """Called only when a prediction for the negative prompt is requested; it may be costly."""
    null: Callable[[], GaussianMixture] | None = None
    """The mixture without any prompt; None: the same as `negative`."""

    def mixture(self, prompt: Prompt) -> GaussianMixture:
        """The mixture of a prompt."""
        if prompt == "positive":
            return self.positive
        return self.null() if prompt == "null" and self.null is not None else self.negative()


class ExactPrior(ABC, Generic[Embedding]):
    """A pixel-space `Prior` on [-1, 1] whose noise predictions are those of mixtures, in closed form."""

    def __init__(self, schedule: NoiseSchedule, device: torch.device) -> None:
        self._schedule, self._device = schedule, device

    @property
    def schedule(self) -> NoiseSchedule:
        return self._schedule

    @property
    def device(self) -> torch.device:
        return self._device

    @abstractmethod
    def embed(self, prompt: str, negative_prompt: str = "") -> Embedding: ...

    @abstractmethod
    def condition(
        self, embedding: Embedding, cameras: CameraBatch, background: Float[Tensor, "b 3"]
    ) -> MixtureCondition: ...

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return image * 2 - 1

    def decode(self, latent: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return (latent + 1) / 2

    @torch.no_grad()
    def predict_noise(
        self, requests: Sequence[NoiseRequest], condition: MixtureCondition
    ) -> list[Float[Tensor, "b c h w"]]:
        return [
            condition.mixture(request.prompt).predict_noise(
                request.sample.noisy, request.sample.alpha, request.sample.sigma
            )
            for request in requests
        ]


class MixturePrior(ExactPrior[MixtureCondition]):
    """A prior of one fixed mixture, of which a prompt names some components; without a prompt it is all of them.

    Cameras and background are ignored.

    Example:
        >>> import torch
        >>> mixture = GaussianMixture.isotropic(torch.randn(2, 3, 8, 8), bandwidth=0.5)
        >>> prior = MixturePrior(mixture, {"a mug": [0], "a chair": [1]})
        >>> embedding = prior.embed("a mug")
    """

    def __init__(
        self, mixture: GaussianMixture, prompts: Mapping[str, Sequence[int]], schedule: NoiseSchedule | None = None
    ) -> None:
        super().__init__(schedule or NoiseSchedule.scaled_linear(), mixture.means.device)
        self.mixture = mixture
        self.prompts = dict(prompts)

    def embed(self, prompt: str, negative_prompt: str = "") -> MixtureCondition:
        """Select the components that a prompt names. Raises ValueError for a prompt that names none."""
        negative = self._named(negative_prompt) if negative_prompt else self.mixture
        return MixtureCondition(self._named(prompt), lambda: negative, lambda: self.mixture)

    def condition(
        self, embedding: MixtureCondition, cameras: CameraBatch, background: Float[Tensor, "b 3"]
    ) -> MixtureCondition:
        return embedding

    def _named(self, prompt: str) -> GaussianMixture:
        if prompt not in self.prompts:
            raise ValueError(f"unknown prompt {prompt!r}; this mixture knows {sorted(self.prompts)}")
        return self.mixture.subset(self.prompts[prompt])
