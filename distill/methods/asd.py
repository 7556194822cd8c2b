"""Asynchronous score distillation (ScaleDreamer, 2407.02040): the residual e_s(x, t) - e_p(x', t').

t' = t + r (t - t_min) is a noisier timestep, and x' has the same noise as x.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from ..priors.base import NoiseRequest
from ..priors.guidance import guidance_prompts, guided_noise
from ..residual import Draw, Estimate, Residual
from .base import ResidualConfig


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


@dataclass
class ASDConfig(ResidualConfig):
    """Asynchronous score distillation (ScaleDreamer, 2407.02040): VSD without a LoRA denoiser, for any prior.

    Defaults are those of its code, except for the timestep range, which its code does not anneal.
    """

    shift: Annotated[float, Interval(ge=0, le=10)] = 0.1
    """Shift of the counterpart to a noisier timestep, as a fraction of the distance from timesteps.minimum."""

    def residual(self) -> Residual:
        return Shifted(self.guidance_scale, self.shift, self.timesteps.minimum)
