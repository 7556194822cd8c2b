"""Plain values, from YAML, the command line or Python, as what a dataclass says its settings are."""

from __future__ import annotations

import enum
import math
import numbers
import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from .annotations import alternatives, bare, kinds_of, section_of
from .errors import SettingsError, nearest
from .plain_text import shown, why_refused
from .sections import build
from .yaml_text import MAX_DEPTH, Given, Plain, Unread, YamlError, parse_yaml

MAX_ITEMS = 1000
"""Of a list or of a section with keys of the user's own."""

_WHOLE = re.compile(r"[-+]?[0-9]{1,400}")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NULLS = ("null", "Null", "NULL", "~")
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_FLAGS_OF_YAML = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


def mapping_of(value: Any, path: str) -> Any:
    """What was given for a section: if it is text of the command line, what it says as YAML."""
    return _opened(value, path) if isinstance(value, Given) else value


def read_section(kinds: Mapping[str, Any], given: Any, path: str = "") -> dict[str, Any]:
    """The given settings of a section, each as its kind says.

    Args:
        kinds: annotation per key.
        given: a mapping; keys that it lacks are not in the result.
        path: of the section, with a dot behind it; empty for the root.

    Raises SettingsError for something else than a mapping, unknown keys (with the nearest one) and wrong kinds.
    """
    given = mapping_of(given, path.rstrip("."))
    if not isinstance(given, Mapping):
        raise SettingsError(
            f"'{path.rstrip('.')}' is a section, got {shown(given)}; set one of its keys: {', '.join(kinds)}"
        )
    out: dict[str, Any] = {}
    for key, value in given.items():
        if key not in kinds:
            raise SettingsError(
                f"unknown key '{path}{word(key)}'{nearest(str(key), kinds)}; known here: {', '.join(kinds)}"
            )
        out[key] = read_as(kinds[key], value, f"{path}{key}")
    return out


def read_as(kind: Any, value: Any, path: str) -> Any:
    """The value as the annotation `kind` says; a dataclass as the dict of what is given of it.

    Text of the command line and YAML scalars without quotes are read by the kind: for `str` they are text, whatever
    else they may look like. Raises SettingsError, naming `path`.
    """
    kind = bare(kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return read_section(kinds_of(kind), value, f"{path}.")
    if several := alternatives(kind):
        return _first_that_fits(several, value, path)
    if kind in _SCALARS:
        return _SCALARS[kind](value, path)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return _member(kind, value, path)
    origin = get_origin(kind) or kind
    if origin is Literal:
        return _literal(get_args(kind), value, path)
    if origin in (list, tuple, Sequence):
        return _list(kind, value, path)
    if origin in (dict, Mapping):
        return _dict(kind, value, path)
    return read_anything(value, path)


def read_anything(value: Any, path: str, depth: int = 0) -> Any:
    """A value of no particular kind: by the rules of YAML 1.2, of which hexadecimal numbers are left out."""
    if isinstance(value, Given):
        try:
            value = parse_yaml(value)
        except YamlError:
            value = str(value)
    if depth > MAX_DEPTH:
        raise SettingsError(f"{path} is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        keys = [read_as(str, key, f"a key of {path}") for key in _countable(value, path)]
        return {
            key: read_anything(item, f"{path}.{key}", depth + 1) for key, item in zip(keys, value.values(), strict=True)
        }
    if isinstance(value, list | tuple):
        items = enumerate(_countable(value, path))
        return [read_anything(item, f"{path}[{index}]", depth + 1) for index, item in items]
    if isinstance(value, Plain):
        value = _of_yaml(value)
    if value is None or isinstance(value, bool):
        return value
    for scalar in (numbers.Integral, numbers.Real, str):
        if isinstance(value, scalar):
            return _SCALARS[{numbers.Integral: int, numbers.Real: float, str: str}[scalar]](value, path)
    raise SettingsError(
        f"{path} is {shown(value)}; text, numbers, true, false, lists and sections of them are accepted"
    )


def word(text: Any) -> str:
    """A key or name as a message repeats it, cut if it is long."""
    text = str(text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def number_of(value: Any, path: str) -> float:
    """A finite number. Raises SettingsError for anything else, text that spells one excepted."""
    if isinstance(value, str):
        text = value.strip()
        value = float(text) if _NUMBER.fullmatch(text) else value
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            if math.isfinite(number := float(value)):
                return number
        except OverflowError:
            pass
    raise SettingsError(f"{path} is {shown(value)}; a finite number is accepted")


def text_of(value: Any, path: str) -> str:
    """The value if it is text. Raises SettingsError, also for what `why_refused` refuses."""
    if not isinstance(value, str):
        raise SettingsError(f"{path} is {shown(value)}; text is accepted")
    if isinstance(value, Plain) and (not value or value in _NULLS):
        raise SettingsError(f"{path} is {str(value) or 'nothing'}, which is no text in YAML; put it in quotes")
    if why := why_refused(value):
        raise SettingsError(f"{path} is {shown(value)}: {why}")
    return str(value)


def _whole(value: Any, path: str) -> int:
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    raise SettingsError(f"{path} is {shown(value)}; a whole number, written in digits, is accepted")


def _flag(value: Any, path: str) -> bool:
    if isinstance(value, str):
        value = _FLAGS.get(value.strip().lower(), value)
    if isinstance(value, bool):
        return value
    raise SettingsError(f"{path} is {shown(value)}; true or false is accepted")


_SCALARS: dict[Any, Any] = {
    bool: _flag,
    int: _whole,
    float: number_of,
    str: text_of,
    Path: lambda value, path: value if isinstance(value, Path) else Path(text_of(value, path)),
}


def _first_that_fits(kinds: Sequence[Any], value: Any, path: str) -> Any:
    """None, else the first kind that takes the value; text, which takes everything, is the last."""
    if NoneType in kinds and _is_null(value):
        return None
    refusal = SettingsError(f"{path} is {shown(value)}; null is accepted")
    for kind in sorted((kind for kind in kinds if kind is not NoneType), key=lambda kind: bare(kind) is str):
        try:
            return read_as(kind, value, path)
        except SettingsError as error:
            refusal = error
    raise SettingsError(f"{refusal}{', or null' if NoneType in kinds else ''}")


def _is_null(value: Any) -> bool:
    return value is None or (isinstance(value, Unread) and value in _NULLS) or (isinstance(value, Plain) and not value)


def _member(kind: type[enum.Enum], value: Any, path: str) -> enum.Enum:
    if isinstance(value, kind):
        return value
    if isinstance(value, str) and value in kind.__members__:
        return kind[str(value)]
    raise SettingsError(f"{path} is {shown(value)}; accepted: {', '.join(kind.__members__)}")


def _literal(accepted: Sequence[Any], value: Any, path: str) -> Any:
    for one in accepted:
        try:
            if read_as(type(one), value, path) == one:
                return one
        except SettingsError:
            continue
    raise SettingsError(f"{path} is {shown(value)}; accepted: {', '.join(map(str, accepted))}")


def _list(kind: Any, value: Any, path: str) -> Any:
    value = _opened(value, path) if isinstance(value, Given) else value
    if not isinstance(value, list | tuple):
        raise SettingsError(f"{path} is {shown(value)}; a list such as [a, b] is accepted")
    of, count = get_args(kind), len(_countable(value, path))
    is_tuple = (get_origin(kind) or kind) is tuple
    if is_tuple and of and of[-1] is not Ellipsis:
        if count != len(of):
            raise SettingsError(f"{path} is {shown(value)}; a list of {len(of)} is accepted")
        kinds = of
    else:
        kinds = (of[0] if of else Any,) * count
    items = [_item(kind, item, f"{path}[{index}]") for index, (kind, item) in enumerate(zip(kinds, value, strict=True))]
    return tuple(items) if is_tuple else items


def _dict(kind: Any, value: Any, path: str) -> dict[str, Any]:
    value = mapping_of(value, path)
    if not isinstance(value, Mapping):
        raise SettingsError(f"'{path}' is a section, got {shown(value)}; write {path}.NAME=value")
    of = get_args(kind)
    keys = [read_as(str, key, f"a key of {path}") for key in _countable(value, path)]
    return {
        key: _item(of[1] if of else Any, item, f"{path}.{key}") for key, item in zip(keys, value.values(), strict=True)
    }


def _item(kind: Any, value: Any, path: str) -> Any:
    read = read_as(kind, value, path)
    section = section_of(kind)
    return build(section, read, f"{path}.") if section is not None and isinstance(read, Mapping) else read


def _opened(value: Given, path: str) -> Any:
    try:
        return parse_yaml(value)
    except YamlError as error:
        raise SettingsError(f"{path} is {shown(value)}, which cannot be read: {error}") from None


def _countable(value: Any, path: str) -> Any:
    if len(value) > MAX_ITEMS:
        raise SettingsError(f"{path} holds {len(value)} values; at most {MAX_ITEMS} are accepted")
    return value


def _of_yaml(value: Plain) -> Any:
    if _is_null(value):
        return None
    if value in _FLAGS_OF_YAML:
        return _FLAGS_OF_YAML[value]
    if _WHOLE.fullmatch(value):
        return int(value)
    return float(value) if _NUMBER.fullmatch(value) else str(value)
