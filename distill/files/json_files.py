"""JSON files of settings, which may come from untrusted sources."""

from __future__ import annotations

import errno
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, fields
from importlib.resources.abc import Traversable
from typing import Any, TypeVar

Settings = TypeVar("Settings")

LARGEST_COUNT = 8192
"""Largest accepted count in a network's settings: channels, layers or tokens."""


def read_file(path: Traversable) -> bytes:
    """Read a regular file. Raises OSError if there is none."""
    if not path.is_file():  # reading a pipe would block
        raise FileNotFoundError(errno.ENOENT, "no such file, or not a regular one", str(path))
    return path.read_bytes()


def read_json_object(path: Traversable) -> dict[str, Any]:
    """Read a JSON object.

    Raises OSError if there is no such regular file, ValueError naming it for any other contents.
    """
    return parse_json_object(read_file(path), str(path))


def parse_json_object(text: str | bytes, name: str) -> dict[str, Any]:
    """Parse the contents of a file as a JSON object.

    Raises ValueError, naming `name`, for anything else.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError(f"{name} is not JSON that can be read: it is nested too deeply") from None
    except ValueError as error:  # also raised for bytes that are not UTF-8
        raise ValueError(f"{name} is not JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{name} must contain a JSON object, got {str(found)[:100]}")
    return found


def settings_from_json(kind: type[Settings], given: Mapping[str, Any]) -> Settings:
    """Create a dataclass of plain values and tuples of them, all of which have defaults; lists become tuples.

    Raises ValueError unless the keys are exactly the dataclass's fields, the values have the types of the defaults, and
    whole numbers lie in [0, LARGEST_COUNT]; and whatever the dataclass itself raises.
    """
    names = [field.name for field in fields(kind)]  # pyright: ignore[reportArgumentType]
    if given.keys() != set(names):
        raise ValueError(f"expected a JSON object with the keys {', '.join(names)}, got {str(dict(given))[:200]}")
    for field in fields(kind):  # pyright: ignore[reportArgumentType]
        value = given[field.name]
        default = field.default if field.default is not MISSING else field.default_factory()  # pyright: ignore
        if not _is_like(value, default):
            raise ValueError(f"{field.name} is {str(value)[:100]}; values such as {default} are accepted")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()})


def _is_like(value: Any, default: Any) -> bool:
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(_is_like(each, default[0]) for each in value)
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(default, bool) and isinstance(value, bool)
    if isinstance(default, int):
        return isinstance(value, int) and 0 <= value <= LARGEST_COUNT
    if isinstance(default, float):
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, type(default))
