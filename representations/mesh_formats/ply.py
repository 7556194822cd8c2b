"""PLY meshes in its three encodings, with colors of vertices or faces, or a texture; colors are display values."""

from __future__ import annotations

import io
import re
import struct
from pathlib import Path

import numpy as np
import trimesh
from trimesh.visual import ColorVisuals, TextureVisuals

from ..painted_mesh import Paint, Texture
from ..ply import ORDERS, TYPES
from .neighbors import PictureReader, read_neighbor
from .parts import GREY, MeshPart, MeshParts, Tell

_COORDINATES = re.compile(rb"^(property\s.*\s)(s|t|u|v|texture_u|texture_v|texcoord)(?=\s*$)", re.MULTILINE)


def read_ply(data: bytes, folder: Path, tell: Tell) -> MeshParts:
    """`folder`: where its texture lies; one that cannot be read is told only. Raises ValueError for what is broken."""
    header, end, body = data.partition(b"end_header")
    if not data.startswith(b"ply") or not end:
        raise ValueError("no PLY: it begins with the line 'ply', and has one 'end_header'")
    texture = _texture(header, folder, tell)
    if texture is None:  # its coordinates would only hide the colors
        header = _COORDINATES.sub(rb"\1unused_\2", header)
    whole = _readable(header, body)
    mesh = trimesh.load_mesh(io.BytesIO(whole), file_type="ply", process=False, resolver=None, skip_materials=True)
    if not isinstance(mesh, trimesh.Trimesh):
        raise ValueError("it holds no triangles")
    vertices, faces, visual = np.asarray(mesh.vertices), np.asarray(mesh.faces), mesh.visual
    if isinstance(visual, TextureVisuals) and visual.uv is not None:
        coordinates = np.asarray(visual.uv, np.float64) * (1, -1) + (0, 1)  # v grows upwards in PLY
        return MeshParts([MeshPart(vertices, faces, Paint(texture=texture), coordinates=coordinates)])
    if isinstance(visual, ColorVisuals) and visual.kind == "face":
        # No two faces share a vertex.
        colors = np.repeat(np.asarray(visual.face_colors)[:, :3] / 255, 3, axis=0)
        return MeshParts([MeshPart(vertices[faces.reshape(-1)], np.arange(faces.size).reshape(-1, 3), Paint(), colors)])
    if isinstance(visual, ColorVisuals) and visual.kind == "vertex":
        return MeshParts([MeshPart(vertices, faces, Paint(), np.asarray(visual.vertex_colors)[:, :3] / 255)])
    return MeshParts([MeshPart(vertices, faces, GREY)])


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
