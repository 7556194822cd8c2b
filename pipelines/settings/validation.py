"""Settings as plain dataclasses whose annotations are checked by pydantic.

`Annotated[int, Interval(ge=1, le=4096)]` is a number from 1 to 4096, `Literal["cpu", "torch"]` one of two words; both
may be used inside `list[...]` and in a union with `None`. A dataclass checks constraints between several settings in
`__post_init__` by raising ValueError. A message that begins with a setting's name is prefixed with the full key.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, SchemaValidator, core_schema

from ..errors import SettingsError, nearest
from ..plain_text import shown
from . import setting_text
from .setting_text import Refused, word

Section = TypeVar("Section")

LIMITS = {"ge": "at least", "gt": "above", "le": "up to", "lt": "below"}
"""Names of the limits of a range, in words."""


def read_settings(section: type[Section], given: Any, path: str = "") -> Section:
    """A dataclass made of nested plain values; missing ones get their defaults.

    Args:
        given: a mapping, or text from the command line that contains one.
        path: path of the section in messages; empty for the root.

    Raises SettingsError for the first error: an unknown key (with the nearest known one), a wrong type, a value out of
    range, or an error of the dataclass itself.
    """
    try:
        return _validator(section).validate_python([given])[0]
    except ValidationError as error:
        raise SettingsError(_told(error.errors(include_url=False)[0], path)) from None
    except TypeError as error:  # raised by a __post_init__
        raise SettingsError(f"{path or 'the settings'}: {error}") from None


def check_settings(settings: Any, path: str) -> None:
    """Raises SettingsError for a dataclass whose values violate its annotations or its `__post_init__`."""
    read_settings(type(settings), as_plain(settings), path)


def as_plain(value: Any) -> Any:
    """Nested dicts, lists and scalars, as `read_settings` reads them."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_plain(getattr(value, field.name)) for field in fields(value) if field.init}
    if isinstance(value, Mapping):
        return {key: as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.name
    return str(value) if isinstance(value, Path) else value


def unknown_key(path: str, key: Any, known: Collection[str]) -> str:
    """The message for a key that the section at `path` does not have."""
    key = f"{path}.{word(key)}".lstrip(".")
    return f"unknown key '{key}'{nearest(key.rpartition('.')[2], known)}; known here: {', '.join(known)}"


def no_section(path: str, value: Any, known: Collection[str]) -> str:
    """The message for a value given in place of the section at `path`."""
    return f"'{path}' is a section, got {shown(value)}; set one of its keys: {', '.join(known)}"


def accepted(limits: Mapping[str, Any]) -> str:
    """The accepted range in words: "1 to 10", "above 0 and up to 1", "at least 1"."""
    if {"ge", "le"} <= limits.keys():
        return f"{_short(limits['ge'])} to {_short(limits['le'])}"
    return " and ".join(f"{words} {_short(limits[key])}" for key, words in LIMITS.items() if key in limits)


class _Unknown(ValueError):
    """A key that a section does not have."""

    def __init__(self, key: Any, known: Collection[str]) -> None:
        super().__init__(key)
        self.key, self.known = key, known


class _NoSection(ValueError):
    """A value in place of a section with the keys `known`."""

    def __init__(self, known: Collection[str]) -> None:
        super().__init__(known)
        self.known = known


@cache
def _validator(section: type) -> SchemaValidator:
    """Validator of a list with one section: pydantic takes no configuration for a dataclass itself."""
    sections: Any = list[section]  # pyright: ignore[reportInvalidTypeForm]
    schema = TypeAdapter(sections, config=ConfigDict(arbitrary_types_allowed=True)).core_schema
    return SchemaValidator(_reading(schema))


def _reading(schema: Any) -> Any:
    """Pydantic's schema of an annotation, with a reader before each type and the range in words after it."""
    if isinstance(schema, list | tuple):
        return type(schema)(map(_reading, schema))
    if not isinstance(schema, dict):
        return schema
    out: Any = {key: _reading(value) if key in _INNER else value for key, value in schema.items()}
    if schema["type"] == "union":
        out |= {"mode": "left_to_right", "custom_error_type": "refused", "custom_error_message": _alternatives(schema)}
        out["choices"].sort(key=lambda choice: choice.get("schema", choice)["type"] == "str")  # str last
    if limits := {key: schema[key] for key in LIMITS if key in schema}:
        message = f"; {accepted(limits)} is accepted"
        out = core_schema.custom_error_schema(out, custom_error_type="refused", custom_error_message=message)
    if read := _reader(schema):
        out = core_schema.no_info_before_validator_function(read, out, ref=out.pop("ref", None))
    return out


_INNER = ("schema", "fields", "items_schema", "keys_schema", "values_schema", "choices", "definitions")
"""Keys of a schema that hold other schemas."""

_READERS: Mapping[str, Callable[[Any], Any]] = {
    "int": setting_text.whole,
    "float": setting_text.number,
    "bool": setting_text.flag,
    "str": setting_text.text,
    "any": setting_text.anything,
    "nullable": setting_text.null_or,
    "list": setting_text.sequence,
    "dict": setting_text.mapping,
}


def _reader(schema: Mapping[str, Any]) -> Callable[[Any], Any] | None:
    """The reader for a type in pydantic's schema; None for types that need none."""
    match schema:
        case {"type": "literal"}:
            return setting_text.one_of(schema["expected"])
        case {"type": "enum"}:
            return setting_text.member_of(schema["cls"])
        case {"type": "tuple"}:
            several = "variadic_item_index" in schema
            return partial(setting_text.sequence, count=None if several else len(schema["items_schema"]))
        case {"type": "dataclass"}:
            known = [field["name"] for field in schema["schema"]["fields"] if field.get("init", True)]
            return partial(_section, schema["cls"], known)
        case {"type": "lax-or-strict", "lax_schema": {"custom_error_type": "path_type"}}:
            return setting_text.path
    return _READERS.get(schema["type"])


def _section(kind: type, known: Sequence[str], given: Any) -> Any:
    """Read a dataclass with the fields `known`, given as a mapping, as text, or as an instance."""
    given = setting_text.opened(given)
    if isinstance(given, Mapping):
        for key in given:
            if key not in known:
                raise _Unknown(key, known)
    elif not isinstance(given, kind):
        raise _NoSection(known)
    return given


def _alternatives(union: Mapping[str, Any]) -> str:
    return f"; {' or '.join(map(_alternative, union['choices']))} is accepted"


def _alternative(choice: Mapping[str, Any]) -> str:
    """One member of a union in words: "a whole number, 1 to 64", "auto", "a section"."""
    if choice["type"] == "literal":
        return " or ".join(map(str, choice["expected"]))
    limits = {key: choice[key] for key in LIMITS if key in choice}
    return _KINDS.get(str(choice["type"]), "another type") + (f", {accepted(limits)}," if limits else "")


_KINDS: Mapping[str, str] = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "text",
    "list": "a list", "dict": "a section", "dataclass": "a section", "definition-ref": "a section",
}  # fmt: skip


def _told(error: ErrorDetails, path: str) -> str:
    """A pydantic error as a message of this program."""
    place = error["loc"][1:]  # the first entry is the index in the surrounding list
    is_key = place[-1:] == ("[key]",)
    for part in place[:-2] if is_key else place:
        path = f"{path}[{part}]" if isinstance(part, int) else f"{path}.{part}".lstrip(".")
    if is_key:
        path = f"a key of {path}"
    value, cause = error["input"], error.get("ctx", {}).get("error")
    match cause:
        case None if error["type"] == "missing":
            return f"{path} is missing and has no default; set {path}=VALUE"
        case None:
            message = error["msg"] if error["type"] == "refused" else f"; {error['msg']}"
            return f"{path} is {shown(value)}{message}"
        case _Unknown():
            return unknown_key(path, cause.key, cause.known)
        case _NoSection():
            return no_section(path, value, cause.known)
        case Refused():
            return f"{path}{cause.where} is {shown(cause.value if cause.where else value)}{cause}"
    text = " ".join(str(cause).split())
    begins_with_a_key = isinstance(value, Mapping) and re.split(r"\W", text, maxsplit=1)[0] in value
    return f"{path}.{text}".lstrip(".") if begins_with_a_key else f"{path or 'the settings'}: {text}"


def _short(number: Any) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"
