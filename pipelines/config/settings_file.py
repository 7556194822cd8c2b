"""Writes `configs/settings.json`, from which the command lines know all settings without importing torch (`outline`).

Run `python -m steindreamer.pipelines.config.settings_file` after every change of a setting, its type, its default, or
the first paragraph of its dataclass's docstring.
"""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Sequence
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from annotated_types import Interval

from steindreamer.distill import MethodConfig
from steindreamer.distill.priors.diffusion.layouts import OTHER_FILES
from steindreamer.distill.priors.diffusion.model_sources import HUB_ID, MODELS
from steindreamer.representations import RepresentationConfig

from ..priors import PriorConfig
from ..settings.validation import as_plain
from .outline import CHOSEN, FILE, SCALARS, summary_of
from .run_config import CHOICES, SCHEMA


def settings_file() -> str:
    """The content of the file for the shipped components. Raises ValueError for a type that `outline` does not
    support.
    """
    classes: dict[str, Any] = {}
    shipped = {
        section: {name: kind for name, kind in known.items() if kind.__module__.startswith("steindreamer.")}
        for section, known in CHOICES.items()
    }
    for kind in (SCHEMA.run, SCHEMA.stage, *(kind for known in shipped.values() for kind in known.values())):
        _describe(kind, classes)
    plain = {
        "run": SCHEMA.run.__name__,
        "stage": SCHEMA.stage.__name__,
        "choices": {
            section: {name: kind.__name__ for name, kind in known.items()} for section, known in shipped.items()
        },
        "models": list(MODELS),
        "hub_id": HUB_ID.pattern,
        "model_files": list(OTHER_FILES),
        "classes": classes,
    }
    return json.dumps(plain, indent=1, allow_nan=False) + "\n"


def _describe(kind: type, classes: dict[str, Any]) -> None:
    """Add a dataclass, and the dataclasses that it contains."""
    if kind.__name__ in classes:
        return
    described: dict[str, Any] = {}
    classes[kind.__name__] = {"summary": summary_of(kind), "fields": described}
    kinds = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        value = field.default if field.default_factory is MISSING else field.default_factory()
        written = _written(kinds[field.name], classes)
        described[field.name] = {"kind": written, "default": None if written == CHOSEN else as_plain(value)}


def _written(kind: Any, classes: dict[str, Any]) -> Any:
    """An annotation as `outline` reads it. Raises ValueError for one that is not supported."""
    names = {scalar: name for name, scalar in SCALARS.items()} | {NoneType: "None"}
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _limited(inner[0], inner[1:], classes)
    if kind in (RepresentationConfig, MethodConfig, PriorConfig):
        return CHOSEN
    if kind in names:
        return names[kind]
    if origin is Literal:
        return {"one_of": list(inner)}
    if isinstance(kind, type) and is_dataclass(kind):
        _describe(kind, classes)
        return {"section": kind.__name__}
    if origin is list:
        return {"list": _written(inner[0], classes)}
    if origin is dict:
        keys = {} if inner[0] is str else {"keys": _written(inner[0], classes)}
        return {"dict": _written(inner[1], classes), **keys}
    if origin in (Union, UnionType):
        return {"either": [_written(part, classes) for part in inner]}
    raise ValueError(f"a setting has the type {kind}, which outline.py does not support yet; add it there")


def _limited(kind: Any, limits: Sequence[Any], classes: dict[str, Any]) -> Any:
    for limit in limits:
        if isinstance(limit, Interval):
            given = {name: value for name in ("gt", "ge", "lt", "le") if (value := getattr(limit, name)) is not None}
            return {"within": given, "kind": _written(kind, classes)}
    return _written(kind, classes)


if __name__ == "__main__":
    Path(str(importlib.resources.files("steindreamer.configs") / FILE)).write_text(settings_file(), encoding="utf-8")
