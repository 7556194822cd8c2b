"""All settings of a run, by key, with their annotations: of every representation, method, prior and stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from steindreamer.pipelines.annotations import kinds_of, section_of
from steindreamer.pipelines.config import CHOICES, RunConfig
from steindreamer.pipelines.stage import StageConfig


@dataclass(frozen=True)
class Setting:
    """One leaf of the configuration."""

    key: str
    """With dots."""
    kind: Any
    chosen: tuple[tuple[str, str], ...] = ()
    """The section and the name that must be chosen for the key to exist."""

    def layer(self, value: Any) -> dict[str, Any]:
        """What gives it this value."""
        for part in reversed(self.key.split(".")):
            value = {part: value}
        return value

    def of(self, config: RunConfig) -> Any:
        """Its value."""
        value: Any = config
        for part in self.key.split("."):
            value = value[part] if isinstance(value, dict) else getattr(value, part)
        return value


def every_setting() -> list[Setting]:
    """Those of the stages stand for all stages by those of the first."""
    root = {key: kind for key, kind in kinds_of(RunConfig).items() if key not in (*CHOICES, "stages", "names")}
    out = [setting for key, kind in root.items() for setting in _leaves(key, kind, ())]
    stage = {key: kind for key, kind in kinds_of(StageConfig).items() if key not in ("method", "regularisers")}
    out += [setting for key, kind in stage.items() for setting in _leaves(f"stages.coarse.{key}", kind, ())]
    for section, choices in CHOICES.items():
        for name, kind in choices.items():
            out += _leaves(section, kind, ((section, name),))
    for name, kind in CHOICES["method"].items():
        out += _leaves("stages.coarse.method", kind, (("method", name),))
    return out


def _leaves(key: str, kind: Any, chosen: tuple[tuple[str, str], ...]) -> Iterator[Setting]:
    section = section_of(kind)
    if section is None:
        yield Setting(key, kind, chosen)
        return
    for name, inner in kinds_of(section).items():
        yield from _leaves(f"{key}.{name}", inner, chosen)
