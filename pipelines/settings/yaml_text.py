"""YAML with uninterpreted scalars: the type of the setting decides what `yes`, `010` or `1:30` mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

MAX_BYTES = 200_000
"""Maximum size of a file in bytes: a hundred times the size of a preset; parsing takes a few seconds."""
MAX_DEPTH = 32
MAX_VALUES = 20_000
"""Maximum number of values in a file; values repeated by aliases count each time."""

_MERGE = "<<"
_OWN_TAGS = {None, "!", "tag:yaml.org,2002:str", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}


class Unread(str):
    """Text whose meaning depends on the type of its setting."""


class Plain(Unread):
    """An unquoted YAML scalar."""


class Given(Unread):
    """The text after `key=` on the command line, unchanged."""


class YamlError(ValueError):
    """A text that cannot be parsed, with the reason on one line."""


def parse_yaml(text: str) -> Any:
    """Parse YAML into nested dicts and lists; unquoted scalars are `Plain`, others `str`. An empty text is None.

    Anchors, aliases and merge keys (`<<`) are followed. Raises YamlError for invalid YAML, duplicate keys, tags,
    several documents, and for more than `MAX_DEPTH` levels or `MAX_VALUES` values.
    """
    try:
        return _Reader(yaml.parse(text, Loader=yaml.SafeLoader)).document()
    except yaml.MarkedYAMLError as error:
        problem = error.problem or error.context or "this is not YAML"
        raise YamlError(f"{problem}{_place(error.problem_mark or error.context_mark)}") from None
    except yaml.YAMLError as error:
        raise YamlError(" ".join(str(error).split())) from None
    except (ValueError, OverflowError) as error:  # raised by the parser for escapes and directives with huge numbers
        raise error if isinstance(error, YamlError) else YamlError(f"this is not YAML ({error})") from None


def read_yaml(path: Path) -> Any:
    """Parse a file in UTF-8, or in UTF-16 with a byte order mark, as `parse_yaml` does. Raises OSError; YamlError also
    for its size.
    """
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise YamlError(f"it has more than {MAX_BYTES} bytes, the limit for settings")
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return parse_yaml(content.decode(encoding))
    except UnicodeDecodeError as error:
        raise YamlError(f"byte {error.start} is not valid {error.encoding.upper()}; save the file as UTF-8") from None


def write_yaml(values: Mapping[str, Any], *, letters: bool = True) -> str:
    """Text that `parse_yaml` reads as the same values; ambiguous scalars are quoted.

    Args:
        values: nested plain values.
        letters: keep letters beyond ASCII; False: escape them.
    """
    return yaml.dump(dict(values), Dumper=_Writer, sort_keys=False, allow_unicode=letters)


class _Reader:
    """Converts the parser's events to values, without the recursion and the copies of PyYAML's constructors."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self._anchors: dict[str, tuple[Any, int]] = {}
        """Value and number of contained values, by anchor name."""
        self._count = 0

    def document(self) -> Any:
        next(self._events)  # start of the stream
        if isinstance(next(self._events), yaml.StreamEndEvent):
            return None
        out = self._node(next(self._events), 0)
        next(self._events)  # end of the document
        if not isinstance(event := next(self._events), yaml.StreamEndEvent):
            raise YamlError(f"a second document starts{_place(event.start_mark)}; only one is accepted")
        return out

    def _node(self, event: yaml.Event, depth: int) -> Any:
        self._counted(1, event)
        if isinstance(event, yaml.AliasEvent):
            return self._repeated(event)
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        if event.tag not in _OWN_TAGS:
            raise YamlError(
                f"the tag {event.tag}{_place(event.start_mark)} is not supported; write the value without it"
            )
        if depth > MAX_DEPTH:
            raise YamlError(f"it is nested more than {MAX_DEPTH} levels deep{_place(event.start_mark)}")
        before = self._count
        if isinstance(event, yaml.ScalarEvent):
            out: Any = _scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            out = [self._node(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        else:
            out = self._mapping(depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = out, self._count - before + 1
        return out

    def _mapping(self, depth: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for event in self._until(yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, str):
                raise YamlError(f"a key is not a single value{_place(event.start_mark)}")
            value = self._node(next(self._events), depth + 1)
            if isinstance(key, Plain) and key == _MERGE:
                merged = {**_merged(value, event), **merged}
            elif key in out:
                raise YamlError(f"the key '{key}' is given twice{_place(event.start_mark)}")
            else:
                out[str(key)] = value
        return {**merged, **out}

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        while not isinstance(event := next(self._events), end):
            yield event

    def _repeated(self, event: yaml.AliasEvent) -> Any:
        if event.anchor not in self._anchors:
            raise YamlError(
                f"the alias *{event.anchor}{_place(event.start_mark)} refers to an undefined or incomplete anchor"
            )
        value, count = self._anchors[event.anchor]
        self._counted(count, event)
        return value

    def _counted(self, count: int, event: yaml.Event) -> None:
        self._count += count
        if self._count > MAX_VALUES:
            raise YamlError(f"it contains more than {MAX_VALUES} values{_place(event.start_mark)}")


class _Writer(yaml.SafeDumper):
    """Dumper that also quotes text that is a number in YAML 1.2 and to the readers of `parse_yaml`, but not to
    PyYAML.
    """

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Writer.add_implicit_resolver(
    "number-of-yaml-1.2", re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"), list("-+.0123456789")
)


def _scalar(event: yaml.ScalarEvent) -> str:
    if event.style is None and event.tag is None:
        return Plain(event.value)
    # A block scalar (`|`, `>`) ends with the line break that its layout needs.
    return event.value.removesuffix("\n") if event.style in ("|", ">") else event.value


def _merged(value: Any, event: yaml.Event) -> dict[str, Any]:
    """The entries of a merge key; of several mappings the first wins."""
    out: dict[str, Any] = {}
    for item in reversed(value if isinstance(value, list) else [value]):
        if not isinstance(item, dict):
            raise YamlError(f"the merge key <<{_place(event.start_mark)} takes mappings only")
        out.update(item)
    return out


def _place(mark: yaml.Mark | None) -> str:
    return f" (line {mark.line + 1}, column {mark.column + 1})" if mark is not None else ""
