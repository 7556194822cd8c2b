"""Readers that convert a value from YAML, the command line or Python to the type of its setting.

Text from the command line and unquoted YAML scalars are interpreted by type: for `str` they stay text, even if they
look like a number.
"""

from __future__ import annotations

import enum
import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import SettingsError, nearest
from ..plain_text import shown, why_refused
from .yaml_text import MAX_DEPTH, Given, Plain, Unread, YamlError, parse_yaml

MAX_ITEMS = 1000
"""Maximum number of items in a list or in a section with user-defined keys."""

_WHOLE = re.compile(r"[-+]?[0-9]{1,400}")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NULLS = ("null", "Null", "NULL", "~")
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_FLAGS_OF_YAML = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


class Refused(ValueError):
    """A rejected value. The message continues "KEY is VALUE"."""

    where = ""
    """Part of the value that is rejected, such as `.a[0]`, with its `value`; empty for the whole."""
    value: Any = None


def whole(value: Any) -> int:
    """Read an integer; text in digits is accepted."""
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return int(value)
    raise Refused("; a whole number, written in digits, is accepted")


def number(value: Any) -> float:
    """Read a finite number; text is accepted."""
    if isinstance(value, str):
        text = value.strip()
        value = float(text) if _NUMBER.fullmatch(text) else value
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            if math.isfinite(found := float(value)):
                return found
        except OverflowError:
            pass
    raise Refused("; a finite number is accepted")


def flag(value: Any) -> bool:
    """Read a boolean; `yes`, `on`, `no` and `off` are accepted."""
    if isinstance(value, str):
        value = _FLAGS.get(value.strip().lower(), value)
    if isinstance(value, bool):
        return value
    raise Refused("; true or false is accepted")


def text(value: Any) -> str:
    """Read text that `why_refused` accepts."""
    if not isinstance(value, str):
        raise Refused("; text is accepted")
    if isinstance(value, Plain) and is_null(value):
        raise Refused(", which is not text in YAML; put it in quotes")
    if why := why_refused(value):
        raise Refused(f": {why}")
    return str(value)


def path(value: Any) -> Path:
    """Read a path, given as a path or as text."""
    return value if isinstance(value, Path) else Path(text(value))


def null_or(value: Any) -> Any:
    """None for the text `null`; any other value unchanged."""
    return None if is_null(value) else value


def one_of(known: Sequence[Any]) -> Callable[[Any], Any]:
    """A reader that accepts one of the known words or numbers."""
    spelled = {str(one): one for one in known}

    def read(value: Any) -> Any:
        if isinstance(value, str) and value in spelled:
            return spelled[value]
        if not isinstance(value, str) and value in known:
            return value
        raise Refused(f"{nearest(word(value), spelled)}; accepted: {', '.join(spelled)}")

    return read


def member_of(kind: type[enum.Enum]) -> Callable[[Any], Any]:
    """A reader of the name of an enumeration's member."""
    read = one_of(list(kind.__members__))
    return lambda value: value if isinstance(value, kind) else kind[read(value)]


def sequence(value: Any, count: int | None = None) -> Any:
    """Read a list or tuple, also as text; of exactly `count` values if `count` is given."""
    value = opened(value)
    if not isinstance(value, list | tuple):
        raise Refused("; a list such as [a, b] is accepted")
    if count is not None and len(value) != count:
        raise Refused(f"; a list of {count} is accepted")
    return _counted(value)


def mapping(value: Any) -> Any:
    """Read a section with user-defined keys, also as text."""
    value = opened(value)
    if not isinstance(value, Mapping):
        raise Refused("; a section such as {name: value} is accepted")
    return _counted(value)


def opened(value: Any) -> Any:
    """Text from the command line parsed as YAML; any other value unchanged."""
    if not isinstance(value, Given):
        return value
    try:
        return parse_yaml(value)
    except YamlError as error:
        raise Refused(f", which cannot be read: {error}") from None


def anything(value: Any, depth: int = 0) -> Any:
    """Read a value of no particular type by the rules of YAML 1.2, except for hexadecimal numbers."""
    if isinstance(value, Given):
        try:
            value = parse_yaml(value)
        except YamlError:
            value = str(value)
    if depth > MAX_DEPTH:
        raise Refused(f", which is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, Mapping):
        return {text(key): _inside(f".{key}", item, depth) for key, item in _counted(value).items()}
    if isinstance(value, list | tuple):
        return [_inside(f"[{index}]", item, depth) for index, item in enumerate(_counted(value))]
    if isinstance(value, Plain):
        value = _of_yaml(value)
    if value is None or isinstance(value, bool):
        return value
    for kind, read in ((numbers.Integral, whole), (numbers.Real, number), (str, text)):
        if isinstance(value, kind):
            return read(value)
    raise Refused("; text, numbers, true, false, lists and sections of them are accepted")


def mapping_of(value: Any, key: str) -> Any:
    """A section; text from the command line is parsed as YAML. Raises SettingsError."""
    try:
        return opened(value)
    except Refused as refusal:
        raise SettingsError(f"{key} is {shown(value)}{refusal}") from None


def is_null(value: Any) -> bool:
    """Whether a value is the text `null`."""
    return value is None or (isinstance(value, Unread) and value in _NULLS) or (isinstance(value, Plain) and not value)


def word(value: Any) -> str:
    """A key or name as a message quotes it, truncated if it is long."""
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _inside(where: str, value: Any, depth: int) -> Any:
    try:
        return anything(value, depth + 1)
    except Refused as refusal:
        refusal.value = refusal.value if refusal.where else value
        refusal.where = where + refusal.where
        raise


def _counted(value: Any) -> Any:
    if len(value) > MAX_ITEMS:
        raise Refused(f", which has {len(value)} values; at most {MAX_ITEMS} are accepted")
    return value


def _of_yaml(value: Plain) -> Any:
    if is_null(value):
        return None
    if value in _FLAGS_OF_YAML:
        return _FLAGS_OF_YAML[value]
    if _WHOLE.fullmatch(value):
        return int(value)
    return float(value) if _NUMBER.fullmatch(value) else str(value)
