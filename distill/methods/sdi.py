"""Score distillation via inversion (2405.15891): the residual e_s(x_t, t) - eps_t.

DDIM inversion finds the noise eps_t of x_t = alpha clean + sigma eps_t.
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
class Inverted(Residual):
    """Score distillation via inversion, e_s(x_t, t) - eps_t: SDS with the noise that DDIM inversion finds.

    The inversion starts from the image with the draw's noise at timestep 0 and has its own guidance scale. `stride` is
    the length of a DDIM step, a fraction of the schedule. Raises ValueError for a stride out of range.
    """

    scale: float
    inversion_scale: float
    stride: float

    def __post_init__(self) -> None:
        check_stride(self.stride)

    def __call__(self, draw: Draw) -> Estimate:
        timestep = draw.sample.timestep
        end = invert(draw, timestep, self.stride, lambda sample: draw.predict_guided(self.inversion_scale, sample))
        return Estimate(draw.predict_guided(self.scale, end) - end.noise, None)


@dataclass
class SDIConfig(ResidualConfig):
    """Score distillation via inversion (2405.15891): SDS with the noise that DDIM inversion finds.

    Defaults are threestudio's, except that no noise is added during the inversion (0.3 there).
    """

    timesteps: TimestepConfig = field(default_factory=lambda: TimestepConfig(order="linear"))
    weighting: WeightingName = "sigma_over_alpha"
    inversion_scale: Annotated[float, Interval(ge=-1000, le=1000)] = -7.5
    """Guidance scale of the inversion."""
    stride: Annotated[float, Interval(ge=0.001, le=1)] = 0.1
    """Length of a DDIM step of the inversion, a fraction of the schedule; smaller values need more prior calls."""

    def residual(self) -> Residual:
        return Inverted(self.guidance_scale, self.inversion_scale, self.stride)
