"""Classifier score distillation (2310.19415): the residual s ((e_p - e_0) - k (e_n - e_0))."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from ..priors.guidance import guided_noise
from ..residual import Draw, Estimate, Residual
from .base import ResidualConfig


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


@dataclass
class CSDConfig(ResidualConfig):
    """Classifier score distillation (2310.19415): guidance alone.

    Weights of the negative prompt are those of its code for Stable Diffusion; the negative prompt is the run's, none by
    default. guidance_scale is 1 there; with Adam, it only matters relative to regularizers.
    """

    negative_weight: Annotated[float, Interval(ge=-100, le=100)] = 1.0
    """Weight of the negative prompt in place of the null prompt at the start of the stage. It has no effect without
    negative_prompt."""
    final_negative_weight: Annotated[float, Interval(ge=-100, le=100)] = 0.5
    """Weight of the negative prompt at the end of the stage; it changes linearly from `negative_weight`."""

    def residual(self) -> Residual:
        return Classifier(self.guidance_scale, self.negative_weight, self.final_negative_weight)
