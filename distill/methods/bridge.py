"""SDS-Bridge (2406.09417), second stage: the residual s (e_p - e_n)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Interval

from ..priors.guidance import guided_noise
from ..residual import Draw, Estimate, Residual
from .base import ResidualConfig


@dataclass(frozen=True)
class Bridge(Residual):
    """The residual s (e_p - e_n) from the negative prompt, which describes the images, to the positive one, the
    target.
    """

    scale: float

    def __call__(self, draw: Draw) -> Estimate:
        e_p, e_n = draw.predict("positive", "negative")
        return Estimate(self.scale * (e_p - e_n), guided_noise(e_p, e_n, scale=self.scale))


@dataclass
class BridgeConfig(ResidualConfig):
    """The second stage of SDS-Bridge (2406.09417): from a description of the current images to the target.

    Prompts and guidance scale are the defaults of its code; the first stage is `sds`.
    """

    guidance_scale: Annotated[float, Interval(ge=-1000, le=1000)] = 30.0
    target: str = ", detailed high resolution, high quality, sharp"
    """Text appended to the prompt as the target."""
    source: str = ", oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed"
    """Text appended to the prompt as the negative prompt. The run's negative_prompt, if given, is used instead."""

    def texts(self, prompt: str, negative_prompt: str) -> tuple[str, str]:
        return prompt + self.target, negative_prompt or prompt + self.source

    def residual(self) -> Residual:
        return Bridge(self.guidance_scale)
