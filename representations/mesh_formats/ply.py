"""PLY meshes in its three encodings, with colors of vertices or faces, or a texture; colors are display values."""

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
from trimesh.visual import TextureVisuals

from ..painted_mesh import Paint, Texture
from ..ply import ORDERS, TYPES
from .neighbors import PictureReader, read_neighbor
from .parts import GREY, MeshPart, MeshParts, Tell

_COORDINATES = re.compile(rb"^(property\s.*\s)(s|t|u|v|texture_u|texture_v|texcoord)(?=\s*$)", re.MULTILINE)
_COLORS = tuple(
    re.compile(rb"^(property\s+\w+\s+)(?:(?:diffuse_)?%s|%s)(?=\s*$)" % (name, name[:1]), re.MULTILINE)
    for name in (b"red", b"green", b"blue")
)
_COLOR = ("color_0", "color_1", "color_2")
"""What the channels are called for trimesh, which would read some types wrongly and fail at colors of polygons."""


def read_ply(data: bytes, folder: Path, tell: Tell) -> MeshParts:
    """`folder`: where its texture lies; one that cannot be read is told only. Raises ValueError for what is broken."""
    header, end, body = data.partition(b"end_header")
    if not data.startswith(b"ply") or not end:
        raise ValueError("no PLY: it begins with the line 'ply', and has one 'end_header'")
    if b"\n" not in header:  # lines end as on old Macintoshes
        header = header.replace(b"\r", b"\n")
        body = body.replace(b"\r", b"\n") if re.search(rb"^format\s+ascii", header, re.MULTILINE) else b"\n" + body[1:]
    texture = _texture(header, folder, tell)
    if texture is None:  # its coordinates would only hide the colors
        header = _COORDINATES.sub(rb"\1unused_\2", header)
    for name, color in zip(_COLOR, _COLORS, strict=True):
        header = color.sub(rb"\1" + name.encode(), header)
    whole = _readable(header, body)
    mesh = trimesh.load_mesh(io.BytesIO(whole), file_type="ply", process=False, resolver=None, skip_materials=True)
    if not isinstance(mesh, trimesh.Trimesh) or not len(mesh.faces):
        raise ValueError("it holds no triangles")
    vertices, faces, visual = np.asarray(mesh.vertices), np.asarray(mesh.faces), mesh.visual
    if isinstance(visual, TextureVisuals) and visual.uv is not None:
        coordinates = np.asarray(visual.uv, np.float64) * (1, -1) + (0, 1)  # v grows upwards in PLY
        return MeshParts([MeshPart(vertices, faces, Paint(texture=texture), coordinates=coordinates)])
    elements = mesh.metadata["_ply_raw"]
    if (colors := _colors(elements["vertex"]["data"])) is not None:
        return MeshParts([MeshPart(vertices, faces, Paint(), colors)])
    if (colors := _colors(elements["face"]["data"])) is not None:
        if len(colors) != len(faces):
            faces, colors = _fans(elements["face"]["data"], colors)
        # No two faces share a vertex.
        corners = np.arange(faces.size).reshape(-1, 3)
        return MeshParts([MeshPart(vertices[faces.reshape(-1)], corners, Paint(), np.repeat(colors, 3, axis=0))])
    return MeshParts([MeshPart(vertices, faces, GREY)])


def _colors(table: Any) -> Float[np.ndarray, "n 3"] | None:
    """Of an element's rows, as shares of 1; `table`: columns by name, as trimesh keeps them."""
    names = table if isinstance(table, Mapping) else table.dtype.names or ()
    if not all(name in names for name in _COLOR):
        return None
    columns = [np.asarray(table[name]).reshape(-1) for name in _COLOR]
    colors = np.stack(columns, 1).astype(np.float64)
    kind = columns[0].dtype
    if kind.kind == "u" and kind.itemsize == 2:
        return colors / 65535
    # Some write bytes as wider types; as floating-point numbers both are common.
    return colors / 255 if kind.kind in "iu" or np.nan_to_num(colors).max(initial=0) > 1 else colors


def _fans(table: Any, colors: Float[np.ndarray, "p 3"]) -> tuple[Int[np.ndarray, "f 3"], Float[np.ndarray, "f 3"]]:
    """Polygons with colors of their own as triangles with those."""
    names = table if isinstance(table, Mapping) else table.dtype.names or ()
    polygons = table[next(name for name in ("vertex_indices", "vertex_index") if name in names)]
    if isinstance(polygons, np.ndarray) and polygons.dtype.names:
        polygons = polygons[polygons.dtype.names[-1]]  # behind their lengths
    triangles = [[(row[0], *pair) for pair in pairwise(row[1:])] for row in polygons]
    faces = np.array([corners for fan in triangles for corners in fan], np.int64).reshape(-1, 3)
    return faces, np.repeat(colors, [len(fan) for fan in triangles], axis=0)


def _texture(header: bytes, folder: Path, tell: Tell) -> Texture | None:
    """The picture that a comment names, as MeshLab writes it."""
    named = re.search(rb"^comment\s+TextureFile\s+(.+?)\s*$", header, re.MULTILINE | re.IGNORECASE)
    if named is None:
        return None
    name = named[1].decode("utf-8", "replace")
    try:
        return Texture(PictureReader().decode(read_neighbor(folder, name)))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        tell(f"its texture '{name[:80]}' cannot be read ({reason}) and is left out")
        return None


def _readable(header: bytes, body: bytes) -> bytes:
    """The file; as text, if it is binary and its polygons have different numbers of corners: trimesh reads those from
    text only. Raises ValueError for text with fewer rows than it announces.
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
        raise ValueError(f"its format is '{encoding[:40]}'; {', '.join(ORDERS)} are read")
    try:
        rows, lengths = _rows(lines, body[2:] if body.startswith(b"\r\n") else body[1:], ORDERS[encoding])
    except (struct.error, KeyError, IndexError):
        return whole  # for the reader to say what is wrong with it
    if all(len(set(each)) <= 1 for each in lengths):
        return whole
    text = re.sub(rb"format\s+\S+", b"format ascii", header, count=1)
    return text + b"end_header\n" + "\n".join(rows).encode()


def _rows(lines: list[list[bytes]], body: bytes, order: str) -> tuple[list[str], list[list[int]]]:
    """All rows as text, and the lengths of the lists of every list property."""
    rows: list[str] = []
    lengths: list[list[int]] = []
    kinds: list[tuple[str, str]] = []
    at, count = 0, 0

    def walk() -> None:
        nonlocal at
        found: list[list[int]] = [[] for _ in kinds]
        for _ in range(count if kinds else 0):
            row: list[float] = []
            for (length_kind, kind), seen in zip(kinds, found, strict=True):
                number = 1
                if length_kind:
                    (number,) = struct.unpack_from(order + length_kind, body, at)
                    at += struct.calcsize(length_kind)
                    row.append(number)
                    seen.append(number)
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
