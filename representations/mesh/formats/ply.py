"""A reader for PLY meshes in all three encodings, with vertex or face colors (display sRGB) or a texture."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float, Int
from trimesh.exchange.ply import load_ply
from trimesh.visual import TextureVisuals

from ...files.ply import ORDERS, TYPES
from ..painted import Paint, Texture
from .neighbors import ImageReader, read_neighbor
from .parts import GRAY, MeshPart, MeshParts, Warn

_COORDINATES = re.compile(rb"^(property\s.*\s)(s|t|u|v|texture_u|texture_v|texcoord)(?=\s*$)", re.MULTILINE)
_COLORS = tuple(
    re.compile(rb"^(property\s+\w+\s+)(?:(?:diffuse_)?%s|%s)(?=\s*$)" % (name, name[:1]), re.MULTILINE)
    for name in (b"red", b"green", b"blue")
)
_COLOR = ("color_0", "color_1", "color_2")
"""Names to which color properties are renamed, because trimesh misreads some color types and fails for polygons."""


def read_ply(data: bytes, folder: Path, warn: Warn) -> MeshParts:
    """Read a PLY mesh; an unreadable texture only causes a warning.

    Args:
        data: Content of the file.
        folder: Folder of its texture.
        warn: Logs warnings.

    Raises:
        ValueError: The file is broken.
    """
    header, end, body = data.partition(b"end_header")
    if not data.startswith(b"ply") or not end:
        raise ValueError("not a PLY file: it needs a first line 'ply' and a line 'end_header'")
    if b"\n" not in header:  # line ends of classic Mac OS
        header = header.replace(b"\r", b"\n")
        body = body.replace(b"\r", b"\n") if re.search(rb"^format\s+ascii", header, re.MULTILINE) else b"\n" + body[1:]
    texture = _texture(header, folder, warn)
    if texture is None:  # trimesh would ignore the colors if there are texture coordinates
        header = _COORDINATES.sub(rb"\1unused_\2", header)
    for name, color in zip(_COLOR, _COLORS, strict=True):
        header = color.sub(rb"\1" + name.encode(), header)
    whole = _readable(header, body)
    visual: Any = None
    if re.search(rb"^element\s+tristrips\s", header, re.MULTILINE):
        loaded = load_ply(io.BytesIO(whole))  # without faces, trimesh makes no mesh
        vertices, elements = np.asarray(loaded["vertices"]), loaded["metadata"]["_ply_raw"]
        faces = _strips(elements["tristrips"]["data"])
    else:
        mesh = trimesh.load_mesh(io.BytesIO(whole), file_type="ply", process=False, resolver=None, skip_materials=True)
        if not isinstance(mesh, trimesh.Trimesh):
            raise ValueError("it has no triangles")
        vertices, faces, visual = np.asarray(mesh.vertices), np.asarray(mesh.faces), mesh.visual
        elements = mesh.metadata.get("_ply_raw", {})
    if not len(faces):
        raise ValueError("it has no triangles")
    if int(faces.max()) >= len(vertices):
        raise ValueError("a face refers to a vertex that does not exist")
    if isinstance(visual, TextureVisuals) and visual.uv is not None:
        coordinates = np.asarray(visual.uv, np.float64) * (1, -1) + (0, 1)  # v grows upward in PLY
        return MeshParts([MeshPart(vertices, faces, Paint(texture=texture), coordinates=coordinates)])
    if (colors := _colors(elements["vertex"]["data"])) is not None:
        return MeshParts([MeshPart(vertices, faces, Paint(), colors)])
    if "face" in elements and (colors := _colors(elements["face"]["data"])) is not None:
        if len(colors) != len(faces):
            faces, colors = _fans(elements["face"]["data"], colors)
        # Every face gets its own vertices.
        corners = np.arange(faces.size).reshape(-1, 3)
        return MeshParts([MeshPart(vertices[faces.reshape(-1)], corners, Paint(), np.repeat(colors, 3, axis=0))])
    return MeshParts([MeshPart(vertices, faces, GRAY)])


def _colors(table: Any) -> Float[np.ndarray, "n 3"] | None:
    """Colors in [0, 1] of the rows of an element, given by trimesh as columns by name; None without colors."""
    names = table if isinstance(table, Mapping) else table.dtype.names or ()
    if not all(name in names for name in _COLOR):
        return None
    columns = [np.asarray(table[name]).reshape(-1) for name in _COLOR]
    colors = np.stack(columns, 1).astype(np.float64)
    kind = columns[0].dtype
    if kind.kind == "u" and kind.itemsize == 2:
        return colors / 65535
    # Some programs write [0, 255] as wider types; for floating-point numbers, both ranges are common.
    return colors / 255 if kind.kind in "iu" or np.nan_to_num(colors).max(initial=0) > 1 else colors


def _fans(table: Any, colors: Float[np.ndarray, "p 3"]) -> tuple[Int[np.ndarray, "f 3"], Float[np.ndarray, "f 3"]]:
    """Split polygons with face colors into triangles with these colors."""
    triangles = [[(row[0], *pair) for pair in pairwise(row[1:])] for row in _lists(table)]
    faces = np.array([corners for fan in triangles for corners in fan], np.int64).reshape(-1, 3)
    return faces, np.repeat(colors, [len(fan) for fan in triangles], axis=0)


def _strips(table: Any) -> Int[np.ndarray, "f 3"]:
    """The triangles of triangle strips, as Stanford's scans have them: -1 ends a strip, every other one is reversed."""
    found = [np.zeros((0, 3), np.int64)]
    for row in _lists(table):
        corners = np.asarray(row, np.int64)
        for part in np.split(corners, np.flatnonzero(corners < 0)):
            strip = part[part >= 0]
            faces = np.stack([strip[:-2], strip[1:-1], strip[2:]], 1) if len(strip) > 2 else found[0]
            faces[1::2] = faces[1::2, [1, 0, 2]]
            found.append(faces)
    faces = np.concatenate(found)
    return faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]


def _lists(table: Any) -> Any:
    """The vertex lists of an element, given by trimesh as columns by name. Raises ValueError if it has none."""
    names = table if isinstance(table, Mapping) else table.dtype.names or ()
    known = [name for name in ("vertex_indices", "vertex_index") if name in names]
    if not known:
        raise ValueError("its faces have no list named vertex_indices or vertex_index")
    lists = table[known[0]]
    if isinstance(lists, np.ndarray) and lists.dtype.names:
        lists = lists[lists.dtype.names[-1]]  # the field after the lengths
    return lists


def _texture(header: bytes, folder: Path, warn: Warn) -> Texture | None:
    """The texture named in a `TextureFile` comment, as written by MeshLab; None without a readable one."""
    named = re.search(rb"^comment\s+TextureFile\s+(.+?)\s*$", header, re.MULTILINE | re.IGNORECASE)
    if named is None:
        return None
    name = named[1].decode("utf-8", "replace")
    try:
        return Texture(ImageReader().decode(read_neighbor(folder, name)))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        warn(f"its texture '{name[:80]}' cannot be read ({reason}) and is ignored")
        return None


def _readable(header: bytes, body: bytes) -> bytes:
    """The file in a form that trimesh reads: a binary file with polygons of different sizes is converted to text.

    Raises ValueError for a text file with fewer rows than announced.
    """
    lines = [line.split() for line in header.splitlines()]
    whole = header + b"end_header" + body
    encoding = next(
        (line[1].decode("ascii", "replace") for line in lines if len(line) > 1 and line[0] == b"format"), ""
    )
    if encoding == "ascii":
        announced = sum(int(line[2]) for line in lines if len(line) == 3 and line[0] == b"element")
        if (found := sum(1 for line in body.splitlines() if line.strip())) < announced:
            raise ValueError(f"truncated: it has {found} of {announced} rows")
        return whole
    if encoding not in ORDERS:
        raise ValueError(f"its format is '{encoding[:40]}'; supported: {', '.join(ORDERS)}")
    try:
        rows, lengths = _rows(lines, body[2:] if body.startswith(b"\r\n") else body[1:], ORDERS[encoding])
    except (struct.error, KeyError, IndexError):
        return whole  # trimesh reports the error
    if all(len(set(each)) <= 1 for each in lengths):
        return whole
    text = re.sub(rb"format\s+\S+", b"format ascii", header, count=1)
    return text + b"end_header\n" + "\n".join(rows).encode()


def _rows(lines: list[list[bytes]], body: bytes, order: str) -> tuple[list[str], list[list[int]]]:
    """All rows as text, and for every property the lengths of its lists."""
    rows: list[str] = []
    lengths: list[list[int]] = []
    kinds: list[tuple[str, str]] = []
    at, count = 0, 0

    def walk() -> None:
        nonlocal at
        found: list[list[int]] = [[] for _ in kinds]
        for _ in range(count if kinds else 0):
            row: list[float] = []
            for (length_kind, kind), list_lengths in zip(kinds, found, strict=True):
                number = 1
                if length_kind:
                    (number,) = struct.unpack_from(order + length_kind, body, at)
                    at += struct.calcsize(length_kind)
                    row.append(number)
                    list_lengths.append(number)
                row += struct.unpack_from(f"{order}{int(number)}{kind}", body, at)
                at += int(number) * struct.calcsize(kind)
            rows.append(" ".join(map(repr, row)))
        lengths.extend(found)

    for line in lines:
        match line:
            case [b"element", _, number]:
                walk()
                count, kinds = int(number), []
            case [b"property", b"list", length_kind, kind, _]:
                kinds.append((TYPES[length_kind.decode()], TYPES[kind.decode()]))
            case [b"property", kind, _]:
                kinds.append(("", TYPES[kind.decode()]))
            case _:
                pass
    walk()
    return rows, lengths
