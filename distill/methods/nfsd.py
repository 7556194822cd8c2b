"""Noise-free score distillation (2310.17590): the residual (e_0 for t < 200, else e_0 - e_n) + s (e_p - e_0)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval

from ..priors.guidance import guided_noise
from ..residual import Draw, Estimate, Residual
from .base import ResidualConfig


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


@dataclass
class NFSDConfig(ResidualConfig):
    """Noise-free score distillation (2310.17590), with the paper's guidance scale, threshold and negative prompt."""

    threshold: Annotated[float, Interval(ge=0, le=1)] = 0.2
    """Fraction of the schedule below which the unconditional prediction is used without the negative one."""
    negative_prompt: str = (
        "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
    )
    """Description of out-of-distribution images, used if the run has no negative_prompt. Empty: above `threshold` only
    guidance is left."""

    def texts(self, prompt: str, negative_prompt: str) -> tuple[str, str]:
        return prompt, negative_prompt or self.negative_prompt

    def residual(self) -> Residual:
        return NoiseFree(self.guidance_scale, self.threshold)
