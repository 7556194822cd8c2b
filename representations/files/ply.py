"""A reader for the PLY format [Turk 1994] that returns the scalar properties of one element.

A text header names elements (such as vertices) and their properties, each a number or a list of numbers preceded by its
length; the rows of all elements follow in the same order, as text or as binary numbers of either byte order.
"""

from __future__ import annotations

import re
import struct
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .regular import read_regular_file

MAXIMUM_HEADER = 1 << 20
"""Largest size of the header in bytes; some tools store long comments in it."""
TYPES = {
    **{"char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I", "float": "f", "double": "d"},
    **{"int8": "b", "uint8": "B", "int16": "h", "uint16": "H", "int32": "i", "uint32": "I"},
    **{"float32": "f", "float64": "d"},
}
"""Type codes of NumPy and `struct`, by both spellings of the eight types of PLY."""
ORDERS = {"ascii": "<", "binary_little_endian": "<", "binary_big_endian": ">"}


@dataclass(frozen=True)
class _Property:
    name: str
    kind: str
    """Type code with byte order, such as "<f"."""
    length_kind: str = ""
    """Type code of the length of a list; empty for a scalar."""


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
        """Size in bytes of the scalars of a row."""
        return sum(struct.calcsize(each.kind) for each in self.properties if not each.length_kind)

    @property
    def layout(self) -> np.dtype:
        """NumPy record type of the scalars of a row. Raises ValueError for a name that occurs twice."""
        return np.dtype([(each.name, each.kind) for each in self.properties if not each.length_kind])


def read_ply_element(path: Path, name: str) -> np.ndarray:
    """Read the rows of one element as a NumPy record array with its scalar properties as fields.

    Fields have the types of the file; numbers of a text file are float64. The memory is proportional to the size of the
    file, independent of the counts in its header.

    Args:
        path: The file.
        name: Name of the element, such as "vertex".

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is broken or truncated, or does not have exactly one such element.
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
        raise ValueError(f"the file must have exactly one element '{name}', its elements are: {names}")
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
        raise ValueError(f"truncated: the header announces {element.count} rows of '{element.name}', found {found}")
    return np.frombuffer(data, layout, element.count, start)


def _walk(data: bytes, start: int, element: _Element) -> tuple[bytes, int]:
    """Packed scalars of all rows, and the end offset of the element, for elements with lists of varying length."""
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
        # Every row takes at least one byte, so this also stops at a wrong count in the header.
        if start > len(data):
            raise ValueError(f"truncated: the header announces {element.count} rows of '{element.name}', found {row}")
    return bytes(packed), start


def _numbers(text: bytes) -> bytes:
    """Convert the numbers of a text to little-endian float64, to be read like a binary file."""
    text = text.strip()
    if not text:
        return b""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", DeprecationWarning)  # raised by older NumPy for text that is not a number
            return np.fromstring(text, np.float64, sep=" ").astype("<f8").tobytes()
    except (ValueError, DeprecationWarning):
        raise ValueError("its rows contain text that is not a number") from None


def _as_numbers(element: _Element) -> _Element:
    """The element with the float64 types that `_numbers` writes."""
    properties = [replace(each, kind="<d", length_kind=each.length_kind and "<d") for each in element.properties]
    return replace(element, properties=properties)


def _header_lines(data: bytes) -> tuple[list[list[str]], int]:
    """Words of every header line, and the offset of the rows. Accepts Unix, Windows and classic Mac OS line ends."""
    if not re.match(rb"ply[ \t]*[\r\n]", data):
        raise ValueError("not a .ply file: it does not begin with the line 'ply'")
    old = re.match(rb"ply[ \t]*\r(?!\n)", data) is not None
    # A binary row may begin with any byte, so the last line must end like the other lines.
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
        raise ValueError(f"the format must be one of {', '.join(ORDERS)}, version 1.0; got: {what}")
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
                raise ValueError(f"cannot parse the header line '{' '.join(line)[:80]}'")
    return elements
