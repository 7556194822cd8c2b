"""Edits: settings of a stage that are changed while it runs; checkpoints contain them, config.yaml does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from steindreamer.distill import Distiller

from ..plain_text import why_refused

if TYPE_CHECKING:
    from .stage import Stage

LARGEST_GUIDANCE = 1000.0
LONGEST_PROMPT = 2000
"""Maximum length of a prompt in characters."""


@dataclass(frozen=True)
class Edit:
    """A change of a setting, which holds from a step on, also in later stages."""

    step: int
    """Steps of the run before it."""
    name: str
    """A key of `EDITABLE`."""
    value: str | float

    def __str__(self) -> str:
        value = repr(self.value) if isinstance(self.value, str) else f"{self.value:g}"
        return f"after step {self.step}: {EDITABLE[self.name].label} {value}"


@dataclass(frozen=True)
class Editable:
    """A setting that a running stage can change."""

    label: str
    """Name in messages."""
    accepts: Callable[[Any], bool]
    """Whether a value has the right type and range."""
    current: Callable[[Stage], Any]
    change: Callable[[Stage, Any], None]
    """Changes a stage from its next step on. Raises ValueError and changes nothing if it refuses the value."""


def _is_prompt(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= LONGEST_PROMPT and not why_refused(value)


def _is_number(lowest: float, highest: float) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and lowest <= value <= highest


def _of_distillers(change: Callable[[Distiller, float], None]) -> Callable[[Stage, float], None]:
    def change_all(stage: Stage, value: float) -> None:
        for distiller in stage.distillers.values():
            change(distiller, value)

    return change_all


EDITABLE: dict[str, Editable] = {
    "prompt": Editable(
        "prompt",
        _is_prompt,
        lambda stage: stage.prompt,
        lambda stage, prompt: stage.set_prompt(prompt),
    ),
    "guidance_scale": Editable(
        "guidance scale",
        _is_number(-LARGEST_GUIDANCE, LARGEST_GUIDANCE),
        lambda stage: stage.distiller.guidance_scale,
        _of_distillers(Distiller.set_guidance_scale),
    ),
    "largest_timestep": Editable(
        "largest timestep",
        _is_number(0.0, 1.0),
        lambda stage: stage.distiller.timesteps.maximum_at(stage.progress),
        _of_distillers(Distiller.set_largest_timestep),
    ),
}
"""All settings that can be edited, by name."""


def edit(stage: Stage, name: str, value: str | float) -> None:
    """Change a setting of a stage from its next step on, and record it in `stage.edits`.

    Args:
        stage: The stage.
        name: A key of `EDITABLE`.
        value: The new value.

    Raises ValueError, and changes nothing, if the value or the prior does not allow it.
    """
    _apply(stage, Edit(stage.total, name, value))


def plain_edits(stage: Stage) -> list[dict[str, Any]]:
    """The edits of a stage as JSON values, the oldest first."""
    return [asdict(each) for each in stage.edits]


def restore_edits(stage: Stage, edits: Sequence[Any]) -> None:
    """Apply those edits of `plain_edits` that a stage does not have yet.

    Raises ValueError if one is not an edit, or is refused now.
    """
    for each in edits[len(stage.edits) :]:
        try:
            found = Edit(int(each["step"]), each["name"], each["value"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"not an edit: {each!r}") from None
        _apply(stage, found)


def _apply(stage: Stage, change: Edit) -> None:
    editable = EDITABLE.get(change.name)
    if editable is None or not editable.accepts(change.value):
        raise ValueError(f"{change.name} cannot be {change.value!r}; {', '.join(EDITABLE)} can be edited")
    editable.change(stage, change.value)
    stage.edits = (*stage.edits, change)
