"""Settings of the distillation that can be changed in the live view."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import viser

from steindreamer.distill import Distiller

from ..optimization.stage import Stage

logger = logging.getLogger(__name__)

LARGEST_GUIDANCE = 1000.0


@dataclass
class EditedSetting:
    """A number of the distillers of a run and its input; it holds for later stages, and is not saved."""

    name: str
    """Name in the log."""
    unit: str
    """Words after the values in the log; may be empty."""
    number: viser.GuiInputHandle[Any]
    """The input."""
    lowest: float
    highest: float
    current: Callable[[Stage], float]
    change: Callable[[Distiller, float], None]
    """Sets the value of a distiller. Raises ValueError if it has no such setting or refuses the value."""
    chosen: float | None = None
    """The value that was set in the view; None: that of the settings."""

    def enter(self, stage: Stage) -> None:
        """Show the value of a new stage, or set the chosen one there."""
        if self.chosen is None:
            self.number.value = self.current(stage)
        else:
            self.set(stage, self.chosen)

    def set(self, stage: Stage, value: Any) -> None:
        """Set the value from the next step on; one that no input allows is ignored, since a browser may send it."""
        old = self.current(stage)
        if not isinstance(value, int | float) or not self.lowest <= value <= self.highest or value == old:
            return
        try:
            for distiller in stage.distillers.values():
                self.change(distiller, value)
        except ValueError as error:
            logger.warning(f"the {self.name} stays {old:g}: {error}")
            self.number.value = old
            return
        self.chosen = value
        logger.warning(
            f"step {stage.total}: {self.name} {old:g} -> {value:g}{self.unit} in the view; config.yaml does not "
            "contain it, and a resumed run does not use it"
        )


def edited_settings(gui: viser.GuiApi) -> dict[str, EditedSetting]:
    """Add the inputs to a panel; the settings by the name of their command."""
    guidance = gui.add_number("Guidance scale", 0.0, min=-LARGEST_GUIDANCE, max=LARGEST_GUIDANCE, step=0.5)
    timestep = gui.add_number("Largest timestep (fraction)", 0.0, min=0.0, max=1.0, step=0.01)
    return {
        "guidance": EditedSetting(
            "guidance scale",
            "",
            guidance,
            -LARGEST_GUIDANCE,
            LARGEST_GUIDANCE,
            lambda stage: stage.distiller.guidance_scale,
            Distiller.set_guidance_scale,
        ),
        "timestep": EditedSetting(
            "largest timestep",
            " of the schedule",
            timestep,
            0.0,
            1.0,
            lambda stage: stage.distiller.timesteps.maximum_at(stage.progress),
            Distiller.set_largest_timestep,
        ),
    }
