"""A custom method: SSD at a low guidance scale, with timesteps that decrease over the stage.

python pipelines/run.py --plugin examples/06_your_method.py --method calm --prompt "a red mug"
"""

from __future__ import annotations

from dataclasses import dataclass, field

import steindreamer
from steindreamer.distill import ControlVariateConfig, SSDConfig, TimestepConfig


@steindreamer.register_method("calm")
@dataclass
class CalmConfig(SSDConfig):
    """Stein score distillation with little guidance, from much noise to little."""

    guidance_scale: float = 2.0
    timesteps: TimestepConfig = field(default_factory=lambda: TimestepConfig(order="linear"))
    control_variates: ControlVariateConfig = field(default_factory=lambda: ControlVariateConfig(["noise", "spectral"]))
