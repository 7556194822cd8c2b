"""The residual that a method distills: the predicted noise minus its counterpart, from predictions of one prior.

    residual = (eps_hat - counterpart) + sum_k mu_k h_k

The counterpart of SDS is the noise, which the control variate `NoiseTerm` subtracts, so its residual here is eps_hat
alone. Other methods subtract their counterpart here (`methods/`); their control variates have coefficients that start
at 0.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic

from jaxtyping import Float
from torch import Tensor

from .geometry_buffers import GeometryBuffers
from .noise.schedule import NoiseSchedule, NoisySample
from .priors.base import Condition, NoiseRequest, Prior, Prompt, predict_noise
from .priors.guidance import guidance_prompts, guided_noise
from .ranks import ALONE, Ranks


@dataclass(frozen=True)
class Draw(Generic[Condition]):
    """One draw of timestep and noise for a batch of images, and the prior's predictions for it."""

    sample: NoisySample
    """The noisy images, with their timesteps, noise and clean images."""
    prior: Prior[Any, Condition]
    condition: Condition
    """The prior's conditioning on the prompt and these views, from `Prior.condition`."""
    geometry: GeometryBuffers
    """Rendered opacity, depth, normals and cameras of the views."""
    guidance_scale: float
    """Scale of classifier-free guidance in the settings of the method."""
    progress: float
    """Progress of the stage, from 0 to 1."""
    ranks: Ranks = ALONE
    """The processes that share the images of the step; these are the images of this one."""

    @property
    def schedule(self) -> NoiseSchedule:
        """The prior's noise schedule."""
        return self.prior.schedule

    def predict_noise(self, requests: Sequence[NoiseRequest]) -> list[Float[Tensor, "b c h w"]]:
        """Predict noise in float32, one per request, all in one call of the prior."""
        return predict_noise(self.prior, requests, self.condition)

    def predict(self, *prompts: Prompt, at: NoisySample | None = None) -> list[Float[Tensor, "b c h w"]]:
        """Predict noise for each of the prompts, at the draw's own sample or another one."""
        return self.predict_noise([NoiseRequest(at or self.sample, prompt) for prompt in prompts])

    def predict_guided(self, scale: float | None = None, at: NoisySample | None = None) -> Float[Tensor, "b c h w"]:
        """Predict noise with classifier-free guidance, at the draw's own sample or another one.

        Args:
            scale: the guidance scale; None: that of the method.
            at: the noisy images; None: the draw's own.
        """
        scale = self.guidance_scale if scale is None else scale
        return guided_noise(*self.predict(*guidance_prompts(scale), at=at), scale=scale)


@dataclass(frozen=True)
class Estimate:
    """A residual's value for one draw, float32."""

    value: Float[Tensor, "b c h w"]
    """The value eps_hat minus its counterpart."""
    guided: Float[Tensor, "b c h w"] | None
    """The guided prediction at the draw's own sample, from which SDS would subtract the noise; None if the method
    predicts elsewhere."""


class Residual(ABC):
    """A residual, eps_hat minus its counterpart. Its mean over the noise defines the method.

    Control variates do not change the mean.
    """

    @abstractmethod
    def __call__(self, draw: Draw) -> Estimate: ...


@dataclass(frozen=True)
class Guided(Residual):
    """The guided prediction e_s: SDS and SSD subtract the noise as a control variate, VSD subtracts a learned score."""

    scale: float

    def __call__(self, draw: Draw) -> Estimate:
        guided = draw.predict_guided(self.scale)
        return Estimate(guided, guided)
