"""Interval score matching (LucidDreamer, 2311.11284): the residual e_s(x_t, t) - e_0(x_s, s), s = t - interval.

x_s and x_t are found by DDIM inversion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Interval

from ..noise.timesteps import TimestepConfig
from ..noise.weighting import WeightingName
from ..residual import Draw, Estimate, Residual
from .base import ResidualConfig
from .inversion import check_stride, invert


@dataclass(frozen=True)
class IntervalMatching(Residual):
    """Interval score matching, e_s(x_t, t) - e_0(x_s, s) with s = t - interval.

    x_s is the image with the draw's noise at timestep 0, after DDIM inversion without text; x_t is one more DDIM step.
    `interval` and `stride`, the length of a DDIM step on the way to s, are fractions of the schedule. Raises ValueError
    for values out of range.
    """

    scale: float
    interval: float
    stride: float

    def __post_init__(self) -> None:
        check_stride(self.stride)
        if not 0 < self.interval < 1:
            raise ValueError(f"interval is {self.interval}; fractions of the schedule between 0 and 1 are accepted")

    def __call__(self, draw: Draw) -> Estimate:
        schedule, timestep = draw.schedule, draw.sample.timestep
        before = (timestep - round(self.interval * schedule.steps)).clamp(min=0)
        start = invert(draw, before, self.stride, lambda sample: draw.predict("null", at=sample)[0])
        (counterpart,) = draw.predict("null", at=start)
        end = schedule.ddim_step(start, counterpart, timestep)
        return Estimate(draw.predict_guided(self.scale, end) - counterpart, None)


@dataclass
class ISMConfig(ResidualConfig):
    """Interval score matching (LucidDreamer, 2311.11284).

    Defaults are those of its code, except for the interval, which starts at 0.1 there.
    """

    timesteps: TimestepConfig = field(default_factory=lambda: TimestepConfig(anneal=0.3))
    weighting: WeightingName = "sigma_over_alpha"
    interval: Annotated[float, Interval(gt=0, lt=1)] = 0.08
    """Interval between the two timesteps, a fraction of the schedule."""
    stride: Annotated[float, Interval(ge=0.001, le=1)] = 0.2
    """Length of a DDIM step of the inversion, a fraction of the schedule; smaller values need more prior calls."""

    def residual(self) -> Residual:
        return IntervalMatching(self.guidance_scale, self.interval, self.stride)
