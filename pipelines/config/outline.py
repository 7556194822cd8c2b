"""The outline of the settings: dataclasses built in milliseconds from `configs/settings.json`, with summaries of the
choices. Importing the real dataclasses takes seconds, which is too long before a typo is reported.

The outline has the names, types and defaults of the real dataclasses, but not their own checks. The file is written by
`python -m steindreamer.pipelines.config.settings_file`; a test compares it with the real dataclasses.
"""

from __future__ import annotations

import importlib.resources
import json
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, make_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from annotated_types import Interval

from ..settings.schema import Schema

FILE = "settings.json"

SCALARS: Mapping[str, Any] = {"Any": Any, "None": None, "bool": bool, "int": int, "float": float, "str": str}
"""Scalar types by their names in the file."""

CHOSEN = "chosen"
"""The file's name for the type of a section whose dataclass is selected by name."""


class Chosen:
    """Placeholder type of a section whose dataclass is selected by name."""


@dataclass(frozen=True)
class Outline:
    """The schema of the settings and the summaries of the choices, without importing the components."""

    schema: Schema
    summaries: Mapping[str, Mapping[str, str]]
    """One-paragraph descriptions of the choices, by section and name."""


@cache
def outline() -> Outline:
    """The outline of the shipped settings."""
    plain = json.loads((importlib.resources.files("steindreamer.configs") / FILE).read_text(encoding="utf-8"))
    maker = _Maker(plain["classes"])
    choices = {
        section: {name: maker.dataclass_of(kind) for name, kind in known.items()}
        for section, known in plain["choices"].items()
    }
    summaries = {
        section: {name: plain["classes"][kind]["summary"] for name, kind in known.items()}
        for section, known in plain["choices"].items()
    }
    models, hub_id, endings = frozenset(plain["models"]), re.compile(plain["hub_id"]), plain["model_files"]

    def names_a_model(name: str) -> bool:
        if not name or name in choices["prior"]:
            return False
        path = Path(name).expanduser()
        return name in models or bool(hub_id.fullmatch(name)) or path.exists() or path.suffix.lower() in endings

    run, stage = (maker.dataclass_of(plain[name]) for name in ("run", "stage"))
    return Outline(Schema(run, stage, choices, names_a_model), summaries)


def summary_of(config: type) -> str:
    """The first paragraph of a dataclass's docstring, in one line."""
    return " ".join((config.__doc__ or "").split("\n\n")[0].split())


class _Maker:
    """Builds dataclasses from their descriptions in the file."""

    def __init__(self, classes: Mapping[str, Any]) -> None:
        self._classes = classes
        self._made: dict[str, type] = {}

    def dataclass_of(self, name: str) -> type:
        """The dataclass with this name; the ones that it contains are built first."""
        if name not in self._made:
            described = self._classes[name]["fields"]
            fields = [
                (key, self._kind(entry["kind"]), field(default_factory=partial(self._default, **entry)))
                for key, entry in described.items()
            ]
            self._made[name] = make_dataclass(name, fields, bases=(Chosen,))
        return self._made[name]

    def _kind(self, written: Any) -> Any:
        """The annotation for a type written by `settings_file`."""
        if isinstance(written, str):
            return Chosen if written == CHOSEN else SCALARS[written]
        match written:
            case {"section": name}:
                return self.dataclass_of(name)
            case {"list": item}:
                return list[self._kind(item)]
            case {"dict": item, **rest}:
                return dict[self._kind(rest.get("keys", "str")), self._kind(item)]
            case {"either": kinds}:
                return Union[tuple(map(self._kind, kinds))]  # noqa: UP007 - of a number that is not known here
            case {"one_of": words}:
                return Literal[tuple(words)]
            case {"within": limits, "kind": kind}:
                return Annotated[self._kind(kind), Interval(**limits)]
        raise ValueError(f"{FILE} holds an unknown kind of setting: {written}")

    def _default(self, kind: Any, default: Any) -> Any:
        """A new copy of a default value."""
        if default is None:
            return None
        match kind:
            case {"section": name}:
                fields = self._classes[name]["fields"]
                given = {key: self._default(fields[key]["kind"], value) for key, value in default.items()}
                return self._made[name](**given)
            case {"dict": {"section": _} as item}:
                return {key: self._default(item, value) for key, value in default.items()}
        return deepcopy(default)
