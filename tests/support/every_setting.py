"""All settings of a run, by key, with their annotations: of every representation, method, prior and stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from annotated_types import Interval

from steindreamer.pipelines.config.run_config import CHOICES, RunConfig
from steindreamer.pipelines.optimization.stage_config import StageConfig
from steindreamer.pipelines.settings.composing import DERIVED


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


def kinds_of(section: type) -> dict[str, Any]:
    """The annotation of every setting of a dataclass, with what `Annotated` says."""
    hints = get_type_hints(section, include_extras=True)
    return {field.name: hints[field.name] for field in fields(section) if field.init}


def bare(kind: Any) -> Any:
    """The annotation without `Annotated`."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The kinds that a union joins; none for anything else."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else ()


def intervals(kind: Any) -> list[Interval]:
    """Those of an annotation, wherever they stand in it."""
    parts = get_args(kind)
    return [kind] if isinstance(kind, Interval) else [found for part in parts for found in intervals(part)]


def every_setting() -> list[Setting]:
    """Those of the stages stand for all stages by those of the first."""
    root = {key: kind for key, kind in kinds_of(RunConfig).items() if key not in (*CHOICES, "stages", *DERIVED)}
    out = [setting for key, kind in root.items() for setting in _leaves(key, kind, ())]
    stage = {key: kind for key, kind in kinds_of(StageConfig).items() if key not in ("method", "regularizers")}
    out += [setting for key, kind in stage.items() for setting in _leaves(f"stages.coarse.{key}", kind, ())]
    for section, choices in CHOICES.items():
        for name, kind in choices.items():
            out += _leaves(section, kind, ((section, name),))
    for name, kind in CHOICES["method"].items():
        out += _leaves("stages.coarse.method", kind, (("method", name),))
    return out


def _leaves(key: str, kind: Any, chosen: tuple[tuple[str, str], ...]) -> Iterator[Setting]:
    if not (isinstance(kind, type) and is_dataclass(kind)):
        yield Setting(key, kind, chosen)
        return
    for name, inner in kinds_of(kind).items():
        yield from _leaves(f"{key}.{name}", inner, chosen)
