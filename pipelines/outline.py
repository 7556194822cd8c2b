"""The settings without the program: dataclasses made from `configs/settings.json` in milliseconds, and what is known
of the choices. Importing the real ones takes seconds, too long to be told of a typo.

The outline has the names, types and defaults of the real dataclasses, not what these check of their values. The file is
written by `python -m steindreamer.pipelines.settings_file`; a test compares it with the program.
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
from typing import Annotated, Any, Union

from annotated_types import Interval

from .schema import Schema

FILE = "settings.json"

SCALARS: Mapping[str, Any] = {"Any": Any, "None": None, "bool": bool, "int": int, "float": float, "str": str}
"""Kinds of settings by what the file calls them."""


@dataclass(frozen=True)
class Outline:
    """What is known of the settings without the program."""

    schema: Schema
    summaries: Mapping[str, Mapping[str, str]]
    """What each choice is, by section and name."""


@cache
def outline() -> Outline:
    """Of the settings that ship."""
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
    """The first paragraph of its docstring, in one line."""
    return " ".join((config.__doc__ or "").split("\n\n")[0].split())


class _Maker:
    """Makes dataclasses of their descriptions."""

    def __init__(self, classes: Mapping[str, Any]) -> None:
        self._classes = classes
        self._made: dict[str, type] = {}

    def dataclass_of(self, name: str) -> type:
        """The one called `name`, after those that it holds."""
        if name not in self._made:
            described = self._classes[name]["fields"]
            fields = [
                (key, self._kind(entry["kind"]), field(default_factory=partial(self._default, **entry)))
                for key, entry in described.items()
            ]
            self._made[name] = make_dataclass(name, fields)
        return self._made[name]

    def _kind(self, written: Any) -> Any:
        """The annotation that `settings_file` wrote down."""
        if isinstance(written, str):
            return SCALARS[written]
        match written:
            case {"section": name}:
                return self.dataclass_of(name)
            case {"list": item}:
                return list[self._kind(item)]
            case {"dict": item}:
                return dict[str, self._kind(item)]
            case {"either": kinds}:
                return Union[tuple(map(self._kind, kinds))]  # noqa: UP007 - of a number that is not known here
            case {"one_of": words}:
                return Annotated[str, tuple(words)]
            case {"within": limits, "kind": kind}:
                return Annotated[self._kind(kind), Interval(**limits)]
        raise ValueError(f"{FILE} holds an unknown kind of setting: {written}")

    def _default(self, kind: Any, default: Any) -> Any:
        """A value of one's own."""
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
