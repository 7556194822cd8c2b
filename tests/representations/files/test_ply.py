"""The PLY reader: all types and encodings, other elements around the one that is read, and one-line errors."""

from __future__ import annotations

import os
import time
import tracemalloc
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ply_samples import CODES, ENCODINGS, NEWLINES, Element, Ply, other_elements

from steindreamer.representations.files.ply import MAXIMUM_HEADER, read_ply_element

LIMITS = {"b": (-128, 127), "B": (0, 255), "h": (-32768, 32767), "H": (0, 65535)}
LIMITS |= {"i": (-(2**31), 2**31 - 1), "I": (0, 2**32 - 1), "f": (-1e30, 3e38), "d": (-1e300, 1e-300)}


def read(content: bytes, folder: Path, element: str = "vertex") -> np.ndarray:
    path = folder / "file.ply"
    path.write_bytes(content)
    return read_ply_element(path, element)


@pytest.mark.parametrize("newline", NEWLINES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_all_types_in_both_spellings(encoding: str, newline: str, tmp_path: Path) -> None:
    rows = [[LIMITS[code][end] for code in CODES.values()] for end in (0, 1)]
    # The first byte of a binary row looks like the end of a line, but belongs to no header line.
    rows.append([10 if code == "b" else 1 for code in CODES.values()])
    rows = rows[::-1]
    element = Element("vertex", [f"{kind} {kind}_" for kind in CODES], rows)
    table = read(Ply([element], encoding, newline).content(), tmp_path)
    assert table.dtype.names == tuple(f"{kind}_" for kind in CODES)
    for name, column in zip(CODES, zip(*rows, strict=True), strict=True):
        expected = np.array(column, np.float32 if CODES[name] == "f" else np.float64)
        np.testing.assert_allclose(table[f"{name}_"].astype(np.float64), expected, rtol=1e-7)


@settings(max_examples=60, deadline=None)
@given(
    before=other_elements,
    after=other_elements,
    encoding=st.sampled_from(ENCODINGS),
    newline=st.sampled_from(NEWLINES),
    lists=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    comments=st.lists(
        st.sampled_from(["comment", "comment end_header", "obj_info n 3", "", "comment é\t x"]), max_size=3
    ),
)
def test_other_elements_and_lists_are_stepped_over(
    before: list[Element],
    after: list[Element],
    encoding: str,
    newline: str,
    lists: list[int],
    comments: list[str],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    rows = [[float(i), [9.0] * length, -float(i)] for i, length in enumerate(lists)]
    element = Element("vertex", ["short a", "list uint8 float l", "double b"], rows)
    content = Ply([*before, element, *after], encoding, newline, comments).content()
    folder = tmp_path_factory.mktemp("ply")
    table = read(content, folder)
    assert table["a"].tolist() == [0, 1, 2] and table["b"].tolist() == [0, -1, -2]
    if not after and encoding != "ascii":
        with pytest.raises(ValueError, match="truncated"):
            read(content[:-1], folder)


GOOD = Ply([Element("vertex", ["float x", "list uchar int l"], [[1.5, [1, 2]], [2.5, []]])]).content()
HEADER = GOOD[: GOOD.index(b"end_header\n") + 11]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a .ply file"),
        (b"PLY\n" + GOOD[4:], "does not begin with the line 'ply'"),
        (b"\x89PNG\r\n" + GOOD, "not a .ply file"),
        (HEADER[:-12], "no line 'end_header'"),
        (b"ply\n" + b"comment x\n" * (MAXIMUM_HEADER // 10) + GOOD[4:], "no line 'end_header' within"),
        (GOOD.replace(b"format binary_little_endian 1.0\n", b""), "got: none"),
        (GOOD.replace(b"binary_little_endian 1.0", b"binary_middle_endian 1.0"), "got: binary_middle_endian"),
        (GOOD.replace(b"endian 1.0", b"endian 2.0"), "version 1.0; got"),
        (GOOD.replace(b"format", b"format ascii 1.0\nformat"), "the format must be one of"),
        (GOOD.replace(b"element vertex", b"element vertices"), "its elements are: vertices"),
        (GOOD.replace(b"element", b"element vertex 1\nelement"), "exactly one element 'vertex'"),
        (GOOD.replace(b"vertex 2", b"vertex -2"), "cannot parse the header line 'element vertex -2'"),
        (GOOD.replace(b"vertex 2", b"vertex 2.0"), "cannot parse the header line"),
        (GOOD.replace(b"vertex 2", b"vertex " + b"9" * 5000), "cannot parse the header line"),
        (GOOD.replace(b"vertex 2", b"vertex 0"), "'vertex' is empty"),
        (GOOD.replace(b"float x", b"half x"), "cannot parse the header line 'property half x'"),
        (GOOD.replace(b"float x", b"float"), "cannot parse the header line 'property float'"),
        (GOOD.replace(b"list uchar int", b"list uchar list"), "cannot parse the header line"),
        (GOOD.replace(b"element", b"property float y\nelement"), "cannot parse the header line 'property float y'"),
        (GOOD.replace(b"element", b"material 3\nelement"), "cannot parse the header line 'material 3'"),
        (GOOD.replace(b"float x", b"float x\nproperty float x"), "contradict each other"),
        (GOOD.replace(b"vertex 2", b"vertex 3"), "truncated: the header announces 3 rows of 'vertex', found 2"),
        (GOOD.replace(b"vertex 2", b"vertex " + b"9" * 30), "truncated"),
        (GOOD[:-1], "truncated"),
        (HEADER, "truncated"),
        (HEADER + b"\0\0\0\0\xff", "truncated"),
        (HEADER.replace(b"list uchar", b"list char") + b"\0\0\0\0\xff", "row 0 of 'vertex' has a list of length -1"),
        (HEADER.replace(b"list uchar", b"list float") + b"\0" * 6 + b"\xc0\x7f", "list of length nan"),
        (HEADER.replace(b"list uchar", b"list float") + b"\0" * 7 + b"\x3f", "list of length 0.5"),
        (b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nend_header\n1\n", "truncated"),
        (b"ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nend_header\n \n", "truncated"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\none\n", "not a number"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nend_header\n1\0\n", "not a number"),
    ],
)
def test_broken_files_raise_a_one_line_error(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as raised:
        read(content, tmp_path)
    assert str(raised.value).startswith(str(tmp_path / "file.ply: ")) and "\n" not in str(raised.value)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("element", ["other", "vertex"])
@pytest.mark.parametrize("kinds", [["float x"], ["list uchar int l"], ["list uint double l", "double x"], []])
def test_wrong_row_counts_cost_neither_time_nor_memory(
    kinds: list[str], element: str, encoding: str, tmp_path: Path
) -> None:
    properties = "".join(f"property {kind}\n" for kind in kinds)
    rest = "" if element == "vertex" else "element vertex 1\nproperty float x\n"
    content = f"ply\nformat {encoding} 1.0\nelement {element} 99999999999999\n{properties}{rest}end_header\n".encode()
    content += b"1 " * 5000
    start = time.perf_counter()
    tracemalloc.start()
    # Rows without properties take no memory, for any number of rows.
    harmless = not kinds and element == "other"
    with nullcontext() if harmless else pytest.raises(ValueError, match=r"truncated|empty"):
        read(content, tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3e6 and time.perf_counter() - start < 5


def test_special_files_are_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.ply"
    os.mkfifo(pipe)
    for path, kind in [(pipe, "a pipe"), (tmp_path, "a folder"), (Path("/dev/zero"), "a device")]:
        with pytest.raises(ValueError, match=f"is {kind}, not a file"):
            read_ply_element(path, "vertex")
    with pytest.raises(FileNotFoundError):
        read_ply_element(tmp_path / "missing.ply", "vertex")
    link = tmp_path / "link.ply"
    link.symlink_to(pipe)
    with pytest.raises(ValueError, match="is a pipe"):
        read_ply_element(link, "vertex")
