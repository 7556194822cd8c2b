"""Inputs of the live view for the settings that a running stage can change."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import viser

from steindreamer.distill.priors.base import ReadsPrompts

from ..errors import in_one_line
from ..optimization.edits import EDITABLE, LARGEST_GUIDANCE, LONGEST_PROMPT, edit
from ..optimization.stage import Stage
from .plain_text import escaped

logger = logging.getLogger(__name__)

LONGEST_NOTE = 200
"""Maximum length in characters of a reason in the page."""


@dataclass
class EditedSetting:
    """An input for a setting of `EDITABLE`."""

    name: str
    """The key of the setting."""
    field: viser.GuiInputHandle[Any]
    """The input."""
    note: viser.GuiMarkdownHandle
    """Text below all inputs: how the last value was read, or why it was refused."""

    def enter(self, stage: Stage) -> None:
        """Show the value of a new stage."""
        self.field.value = EDITABLE[self.name].current(stage)

    def set(self, stage: Stage, value: Any) -> None:
        """Set the value from the next step on.

        One that no input allows is ignored, since a browser may send it. One that is refused changes nothing, and the
        note says why.
        """
        editable = EDITABLE[self.name]
        old = editable.current(stage)
        if value == old:
            return
        if not editable.accepts(value):
            if isinstance(value, str):
                self._tell(f"a prompt is one line of 1 to {LONGEST_PROMPT} visible characters")
            return
        try:
            edit(stage, self.name, value)
        except Exception as error:  # also those of a text encoder
            reason = f"the {editable.label} stays {_shown(old)}: {in_one_line(error)}"
            logger.warning(reason)
            self._tell(textwrap.shorten(reason, LONGEST_NOTE, placeholder=" ... (the log has the whole text)"))
            if not isinstance(old, str):  # a refused prompt stays, to be corrected
                self.field.value = old
            return
        change = f"{editable.label} {_shown(old)} -> {_shown(value)}"
        logger.warning(
            f"step {stage.total}: {change} in the view; checkpoints and summary.json contain it, config.yaml does not"
        )
        self._tell("; ".join((f"from step {stage.total + 1} on: {change}", *_notes(stage, value))))

    def _tell(self, text: str) -> None:
        self.note.content = escaped(text)


def edited_settings(gui: viser.GuiApi, order: Callable[[str, Any], None]) -> dict[str, EditedSetting]:
    """Add the inputs to a panel; the settings by name.

    Args:
        gui: The panel.
        order: Called with the name of a setting and a value that the user chose, in another thread.
    """
    prompt = gui.add_text("Prompt", "", hint="what the next steps distill; the negative prompt stays")
    apply = gui.add_button("Apply prompt")
    guidance = gui.add_number("Guidance scale", 0.0, min=-LARGEST_GUIDANCE, max=LARGEST_GUIDANCE, step=0.5)
    timestep = gui.add_number("Largest timestep (fraction)", 0.0, min=0.0, max=1.0, step=0.01)
    note = gui.add_markdown("")
    apply.on_click(lambda _: order("prompt", prompt.value))
    for name, field in (("guidance_scale", guidance), ("largest_timestep", timestep)):
        field.on_update(lambda _, name=name, field=field: order(name, field.value))
    fields = {"prompt": prompt, "guidance_scale": guidance, "largest_timestep": timestep}
    return {name: EditedSetting(name, field, note) for name, field in fields.items()}


def _shown(value: str | float) -> str:
    return repr(value) if isinstance(value, str) else f"{value:g}"


def _notes(stage: Stage, value: str | float) -> list[str]:
    """Lines that say how the prior reads a prompt; none for other values."""
    if isinstance(value, str) and isinstance(stage.prior, ReadsPrompts):
        return list(stage.prior.prompt_notes(value))
    return []
