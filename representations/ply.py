"""The PLY format [Turk 1994]: the scalar properties of one element, whatever stands around them.

A text header names elements (such as vertices) and their properties, each a number or a list of numbers with its length
in front; the rows of all elements follow, in that order, as text or as binary numbers of either byte order.
"""

from __future__ import annotations

import re
import struct
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .regular_file import read_regular_file

MAXIMUM_HEADER = 1 << 20
"""Bytes; some tools keep long comments there."""
TYPES = {
    **{"char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I", "float": "f", "double": "d"},
    **{"int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I"},
    **{"float32": "f", "float64": "d"},
}
"""Both spellings of the eight types, as NumPy and `struct` call them."""
ORDERS = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class _Property:
    name: str
    kind: str
    """With its byte order, such as "<f"."""
    length_kind: str = ""
    """Of a list's length; empty for a scalar."""


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: list[_Property] = field(default_factory=list)

    @property
    def has_lists(self) -> bool:
        return any(each.length_kind for each in self.properties)

    @property
    def row_size(self) -> int:
        """Bytes of the scalars of a row."""
        return sum(struct.calcsize(each.kind) for each in self.properties if not each.length_kind)

    @property
    def layout(self) -> np.dtype:
        """Of the scalars of a row. Raises ValueError for a name that occurs twice."""
        return np.dtype([(each.name, each.kind) for each in self.properties if not each.length_kind])


def read_ply_element(path: Path, name: str) -> np.ndarray:
    """One record per row of the element called `name`, with its scalar properties as fields, in the file's types.

    Numbers of a text file are float64. Takes memory in proportion to the file's size, whatever its header says. Raises
    OSError if there is no such file, ValueError if it is broken, cut short or has no or several such elements.
    """
    data = read_regular_file(path)
    try:
        return _element(data, name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _element(data: bytes, name: str) -> np.ndarray:
    lines, start = _header_lines(data)
    encoding = _encoding(lines)
    elements = _elements(lines, ORDERS[encoding])
    if [element.name for element in elements].count(name) != 1:
        names = ", ".join(element.name for element in elements)[:80] or "none"
        raise ValueError(f"exactly one element '{name}' is accepted, the file's elements are: {names}")
    if encoding == "ascii":
        data, start = _numbers(data[start:]), 0
        elements = [_as_numbers(element) for element in elements]
    for element in elements:
        if element.name == name:
            return _rows(data, start, element)
        start = _walk(data, start, element)[1] if element.has_lists else start + element.count * element.row_size
    raise AssertionError("the element was counted above")


def _rows(data: bytes, start: int, element: _Element) -> np.ndarray:
    try:
        layout = element.layout
    except ValueError as error:
        raise ValueError(f"the properties of '{element.name}' contradict each other: {error}") from None
    if element.has_lists:
        data, start = _walk(data, start, element)[0], 0
    if element.count == 0 or layout.itemsize == 0:
        raise ValueError(f"its element '{element.name}' is empty")
    found = max(0, len(data) - start) // layout.itemsize
    if found < element.count:
        raise ValueError(f"truncated: the header announces {element.count} rows of '{element.name}', it holds {found}")
    return np.frombuffer(data, layout, element.count, start)


def _walk(data: bytes, start: int, element: _Element) -> tuple[bytes, int]:
    """The scalars of every row, packed, and where the element ends: for lists, whose lengths are known one by one."""
    packed = bytearray()
    for row in range(element.count):
        for each in element.properties:
            size = struct.calcsize(each.kind)
            if each.length_kind:
                end = start + struct.calcsize(each.length_kind)
                length = struct.unpack(each.length_kind, data[start:end])[0] if end <= len(data) else 0
                if not 0 <= length < np.inf or length != int(length):
                    raise ValueError(f"row {row} of '{element.name}' has a list of length {length}")
                start = end + int(length) * size
            else:
                packed += data[start : start + size]
                start += size
        # Every row takes at least a byte: a count that lies ends here, too.
        if start > len(data):
            raise ValueError(
                f"truncated: the header announces {element.count} rows of '{element.name}', it holds {row}"
            )
    return bytes(packed), start


def _numbers(text: bytes) -> bytes:
    """The numbers of a text as little-endian float64: from there on it reads like a binary file."""
    text = text.strip()
    if not text:
        return b""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # what older NumPy calls a text with other things in it
            return np.fromstring(text, np.float64, sep=" ").astype("<f8").tobytes()
    except (ValueError, DeprecationWarning):
        raise ValueError("there is something else than numbers among its rows") from None


def _as_numbers(element: _Element) -> _Element:
    """As `_numbers` packs it."""
    properties = [replace(each, kind="<d", length_kind=each.length_kind and "<d") for each in element.properties]
    return replace(element, properties=properties)


def _header_lines(data: bytes) -> tuple[list[list[str]], int]:
    """The words of every line, and where the rows start. Unix, Windows and old Macintosh line ends are accepted."""
    if not re.match(rb"ply[ \t]*[\r\n]", data):
        raise ValueError("not a .ply file: it does not begin with the line 'ply'")
    old = re.match(rb"ply[ \t]*\r(?!\n)", data) is not None
    # A binary row may begin with any byte: only what ends the other lines ends the last one.
    last = re.compile(rb"\rend_header[ \t]*\r" if old else rb"\nend_header[ \t]*\r?\n")
    end = last.search(data, 0, MAXIMUM_HEADER)
    if end is None:
        raise ValueError(f"not a .ply file: no line 'end_header' within {MAXIMUM_HEADER} bytes")
    lines = data[: end.start()].decode("ascii", "replace").split("\r" if old else "\n")
    return [line.split() for line in lines[1:]], end.end()


def _encoding(lines: list[list[str]]) -> str:
    given = [line[1:] for line in lines if line[:1] == ["format"]]
    if given not in [[[encoding, "1.0"]] for encoding in ORDERS]:
        what = "; ".join(" ".join(words) for words in given)[:80] or "none"
        raise ValueError(f"one format of {', '.join(ORDERS)} is accepted, each of version 1.0; given: {what}")
    return given[0][0]


def _elements(lines: list[list[str]], order: str) -> list[_Element]:
    elements: list[_Element] = []
    for line in lines:
        match line:
            case [] | ["comment" | "obj_info" | "format", *_]:
                pass
            case ["element", name, count] if re.fullmatch(r"[0-9]{1,100}", count):
                elements.append(_Element(name, int(count)))
            case ["property", "list", length, kind, name] if elements and {length, kind} <= TYPES.keys():
                elements[-1].properties.append(_Property(name, order + TYPES[kind], order + TYPES[length]))
            case ["property", kind, name] if elements and kind in TYPES:
                elements[-1].properties.append(_Property(name, order + TYPES[kind]))
            case _:
                raise ValueError(f"cannot understand the line '{' '.join(line)[:80]}' of its header")
    return elements
