"""Consistent flow distillation (2501.05445): SDS with noise that is fixed to the surface, at levels that only fall.

With the same noise in every view and step, the scene follows one path of the probability flow from noise to an object,
instead of the average over the paths of all noises.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Interval

from ..noise.source import NoiseSource
from ..noise.surface import SurfaceNoise
from ..noise.timesteps import TimestepConfig
from .sds import SDSConfig


@dataclass
class CFDConfig(SDSConfig):
    """Consistent flow distillation (2501.05445): SDS with noise that is fixed to the surface."""

    timesteps: TimestepConfig = field(default_factory=lambda: TimestepConfig(order="linear"))
    """Timestep sampling; the noise level falls over the stage."""
    noise_seed: Annotated[int, Interval(ge=0, le=2**31)] = 0
    """Seed of the noise on the surface, which stays the same during the run."""
    noise_cell: Annotated[float, Interval(gt=0, le=64)] = 1.0
    """Size of a cell of equal noise on the surface, in pixels of the encoded image."""

    def noise_source(self) -> NoiseSource:
        return SurfaceNoise(self.noise_seed, self.noise_cell)
