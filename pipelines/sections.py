"""Dataclasses made of plain values, and plain values made of dataclasses."""

from __future__ import annotations

import copy
import enum
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

from .annotations import kinds_of, section_of
from .errors import SettingsError
from .ranges import check_range


def build(section: type, tree: Mapping[str, Any], path: str = "", base: Any = None) -> Any:
    """An instance of a dataclass from what `read_section` made, over the settings of `base` or else the defaults.

    Raises SettingsError for a setting without a value, and for values that the dataclass refuses, as `ValueError`.
    """
    kinds, values = kinds_of(section), {}
    for field in fields(section):
        if not field.init:
            continue
        default, where = _default(field, base), f"{path}{field.name}"
        if field.name not in tree:
            if default is MISSING:
                raise SettingsError(f"{where} is missing, and has no default; give {where}=VALUE")
            values[field.name] = default
            continue
        value, inner = tree[field.name], section_of(kinds[field.name])
        if inner is not None and isinstance(value, Mapping):
            given = default if is_dataclass(default) else None
            value = build(inner if given is None else type(given), value, f"{where}.", given)
        values[field.name] = value
    try:
        return section(**values)
    except (ValueError, TypeError) as error:
        for name, value in values.items():  # what is out of range can be told better
            check_range(kinds[name], value, f"{path}{name}")
        raise SettingsError(f"{path.rstrip('.') or 'the settings'}: {' '.join(str(error).split())}") from None


def as_plain(value: Any) -> Any:
    """Nested dicts, lists and scalars, as `read_as` reads them."""
    if is_dataclass(value) and not isinstance(value, type):
        return {key: as_plain(getattr(value, key)) for key in kinds_of(type(value))}
    if isinstance(value, Mapping):
        return {key: as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.name
    return str(value) if isinstance(value, Path) else value


def _default(field: Any, base: Any) -> Any:
    if base is not None:
        return copy.deepcopy(getattr(base, field.name))
    return field.default if field.default_factory is MISSING else field.default_factory()
