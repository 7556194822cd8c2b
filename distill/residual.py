"""The residual that each method distills: the predicted noise minus its counterpart, from predictions of one prior.

    residual = (eps_hat - counterpart) + sum_k mu_k h_k

The counterpart of SDS is the noise, which the control variate `NoiseTerm` subtracts, so its residual here is eps_hat
alone. The other methods subtract their counterpart here; their control variates have coefficients that start at 0.

With e_p, e_n and e_0 the predictions for the positive prompt, the negative prompt and no text, the guided one
e_s = e_n + s (e_p - e_n), and x the noisy image at timestep t:

    Guided      e_s(x, t)                                                      SDS, SSD, VSD
    Classifier  s ((e_p - e_0) - k (e_n - e_0))                                CSD, 2310.19415
    NoiseFree   (e_0 for t < 200, else e_0 - e_n) + s (e_p - e_0)              NFSD, 2310.17590
    Bridge      s (e_p - e_n)                                                  SDS-Bridge, 2406.09417
    Shifted     e_s(x, t) - e_p(x', t'),   t' = t + r (t - t_min)              ASD, 2407.02040
    Interval    e_s(x_t, t) - e_0(x_s, s),  x_s and x_t by DDIM inversion      ISM, 2311.11284
    Inverted    e_s(x_t, t) - eps_t,   x_t = alpha clean + sigma eps_t by it   SDI, 2405.15891
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import torch
from jaxtyping import Float
from torch import Tensor

from .noise.schedule import NoiseSchedule, NoisySample
from .priors.base import Condition, NoiseRequest, Prior, Prompt, predict_noise
from .priors.guidance import guidance_prompts, guided_noise


@dataclass(frozen=True)
class Draw(Generic[Condition]):
    """One draw of timestep and noise for a batch of images, and the prior's predictions for it."""

    sample: NoisySample
    prior: Prior[Any, Condition]
    condition: Condition
    progress: float
    """Progress of the stage, from 0 to 1."""

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

    def predict_guided(self, scale: float, at: NoisySample | None = None) -> Float[Tensor, "b c h w"]:
        """Predict noise with classifier-free guidance, at the draw's own sample or another one."""
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


@dataclass(frozen=True)
class Classifier(Residual):
    """Classifier score distillation, s ((e_p - e_0) - k (e_n - e_0)), with k changing linearly over the stage.

    The paper's weights are omega_1 = s and omega_2 = s k. Without a negative prompt e_n is e_0, and k has no effect.
    """

    scale: float
    negative: float
    final_negative: float

    def __call__(self, draw: Draw) -> Estimate:
        e_p, e_0, e_n = draw.predict("positive", "null", "negative")
        k = self.negative + min(max(draw.progress, 0.0), 1.0) * (self.final_negative - self.negative)
        return Estimate(self.scale * ((e_p - e_0) - k * (e_n - e_0)), guided_noise(e_p, e_n, scale=self.scale))


@dataclass(frozen=True)
class NoiseFree(Residual):
    """Noise-free score distillation, (e_0 below `threshold`, else e_0 - e_n) + s (e_p - e_0).

    `threshold` is a fraction of the schedule. Without a negative prompt e_n is e_0: only guidance is left above it.
    """

    scale: float
    threshold: float = 0.2

    def __call__(self, draw: Draw) -> Estimate:
        e_p, e_0, e_n = draw.predict("positive", "null", "negative")
        low_noise = (draw.sample.timestep < self.threshold * draw.schedule.steps)[:, None, None, None]
        domain = torch.where(low_noise, e_0, e_0 - e_n)
        return Estimate(domain + self.scale * (e_p - e_0), guided_noise(e_p, e_n, scale=self.scale))


@dataclass(frozen=True)
class Bridge(Residual):
    """The residual s (e_p - e_n) from the negative prompt, which describes the images, to the positive one, the
    target.
    """

    scale: float

    def __call__(self, draw: Draw) -> Estimate:
        e_p, e_n = draw.predict("positive", "negative")
        return Estimate(self.scale * (e_p - e_n), guided_noise(e_p, e_n, scale=self.scale))


@dataclass(frozen=True)
class Shifted(Residual):
    """Asynchronous score distillation, e_s(x, t) - e_p(x', t') with the same noise: VSD with the prior at a noisier
    timestep in place of the learned score.

    t' = t + floor(shift * (t - minimum)), at most the last timestep; `minimum` is a fraction of the schedule. Raises
    ValueError for a negative shift.
    """

    scale: float
    shift: float
    minimum: float

    def __post_init__(self) -> None:
        if self.shift < 0:
            raise ValueError(f"the shift to noisier levels is {self.shift}; 0 or more is accepted")

    def __call__(self, draw: Draw) -> Estimate:
        sample, schedule = draw.sample, draw.schedule
        beyond = self.shift * (sample.timestep - round(self.minimum * schedule.steps)).clamp(min=0)
        later = (sample.timestep + beyond.long()).clamp(max=schedule.steps - 1)
        shifted = schedule.add_noise(sample.clean, sample.noise, later)
        requests = [NoiseRequest(sample, prompt) for prompt in guidance_prompts(self.scale)]
        *predicted, counterpart = draw.predict_noise([*requests, NoiseRequest(shifted)])
        guided = guided_noise(*predicted, scale=self.scale)
        return Estimate(guided - counterpart, guided)


@dataclass(frozen=True)
class Interval(Residual):
    """Interval score matching, e_s(x_t, t) - e_0(x_s, s) with s = t - interval.

    x_s is the image with the draw's noise at timestep 0, after DDIM inversion without text; x_t is one more DDIM step.
    `interval` and `stride`, the length of a DDIM step on the way to s, are fractions of the schedule. Raises ValueError
    for values out of range.
    """

    scale: float
    interval: float
    stride: float

    def __post_init__(self) -> None:
        _check_stride(self.stride)
        if not 0 < self.interval < 1:
            raise ValueError(f"interval is {self.interval}; fractions of the schedule between 0 and 1 are accepted")

    def __call__(self, draw: Draw) -> Estimate:
        schedule, timestep = draw.schedule, draw.sample.timestep
        before = (timestep - round(self.interval * schedule.steps)).clamp(min=0)
        start = _invert(draw, before, self.stride, lambda sample: draw.predict("null", at=sample)[0])
        (counterpart,) = draw.predict("null", at=start)
        end = schedule.ddim_step(start, counterpart, timestep)
        return Estimate(draw.predict_guided(self.scale, end) - counterpart, None)


@dataclass(frozen=True)
class Inverted(Residual):
    """Score distillation via inversion, e_s(x_t, t) - eps_t: SDS with the noise that DDIM inversion finds.

    The inversion starts from the image with the draw's noise at timestep 0 and has its own guidance scale. `stride` is
    the length of a DDIM step, a fraction of the schedule. Raises ValueError for a stride out of range.
    """

    scale: float
    inversion_scale: float
    stride: float

    def __post_init__(self) -> None:
        _check_stride(self.stride)

    def __call__(self, draw: Draw) -> Estimate:
        end = _invert(
            draw, draw.sample.timestep, self.stride, lambda sample: draw.predict_guided(self.inversion_scale, sample)
        )
        return Estimate(draw.predict_guided(self.scale, end) - end.noise, None)


def _check_stride(stride: float) -> None:
    if not 0 < stride <= 1:
        raise ValueError(f"stride is {stride}; fractions of the schedule above 0 and up to 1 are accepted")


def _invert(
    draw: Draw, timestep: Tensor, stride: float, predict: Callable[[NoisySample], Float[Tensor, "b c h w"]]
) -> NoisySample:
    """DDIM inversion from timestep 0 with the draw's noise, in the fewest steps that are no longer than `stride`."""
    schedule, sample = draw.schedule, draw.sample
    start = schedule.add_noise(sample.clean, sample.noise, torch.zeros_like(timestep))
    steps = math.ceil(int(timestep.max()) / (stride * schedule.steps))
    return schedule.ddim_inversion(start, timestep, max(steps, 1), predict)
