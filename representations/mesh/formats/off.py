"""A reader for Geomview's OFF as text, with colors of vertices (COFF) or faces."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from jaxtyping import Float

from ..painted import Paint
from .parts import GRAY, MAX_FACES, MeshPart, MeshParts

_HEADER = re.compile(r"(ST)?(C)?(N)?(4)?(n)?OFF\b")


def read_off(data: bytes) -> MeshParts:
    """Read an OFF file; colors are display sRGB in [0, 255] or [0, 1]. Raises ValueError if it is broken or binary."""
    lines = _lines(data)
    try:
        first = next(lines)
        header = _HEADER.match(first)
        if header is not None:
            first = first[header.end() :].strip() or next(lines)
        if first == "BINARY" or (header is not None and (header[4] or header[5])):
            raise ValueError("binary OFF, and OFF with other than three dimensions, are not supported")
        vertices_count, faces_count = (int(word) for word in first.split()[:2])
        columns = 3 + (3 if header is not None and header[3] else 0)
        colored = 3 if header is not None and header[2] else 0
        rows = [next(lines).split()[: columns + colored] for _ in range(vertices_count)]
        vertices = np.array(rows, np.float64).reshape(-1, columns + colored)
        polygons = [next(lines).split() for _ in range(faces_count)]
    except StopIteration:
        raise ValueError("truncated: it has fewer lines than announced") from None
    tints = _normalized(vertices[:, columns:]) if colored else None
    return MeshParts([_part(vertices[:, :3], tints, polygons)])


def _lines(data: bytes) -> Iterator[str]:
    for line in data.decode("utf-8-sig", "replace").splitlines():
        if text := line.partition("#")[0].strip():
            yield text


def _part(
    vertices: Float[np.ndarray, "v 3"], tints: Float[np.ndarray, "v 3"] | None, polygons: list[list[str]]
) -> MeshPart:
    faces: list[tuple[int, int, int]] = []
    colors: list[list[float]] = []
    for words in polygons:
        count = int(words[0])
        corners, color = [int(word) for word in words[1 : count + 1]], words[count + 1 :]
        if len(corners) != count:
            raise ValueError(f"a face announces {count} corners and has {len(corners)}")
        triangles = [(corners[0], *pair) for pair in pairwise(corners[1:])]
        faces += triangles
        colors += [[float(word) for word in color[:3]] if len(color) >= 3 else [np.nan] * 3] * len(triangles)
        if len(faces) > MAX_FACES:
            raise ValueError(f"it has more than {MAX_FACES} triangles; simplify it")
    table, color_table = np.array(faces, np.int64).reshape(-1, 3), np.array(colors, np.float64).reshape(-1, 3)
    if np.isnan(color_table).all():
        return MeshPart(vertices, table, GRAY if tints is None else Paint(), tints)
    if table.min(initial=0) < 0 or table.max(initial=0) >= len(vertices):
        raise ValueError(f"a face refers to a vertex that does not exist; there are {len(vertices)}")
    # Face colors: every face gets its own vertices.
    own = np.full((3 * len(table), 3), GRAY.factor) if tints is None else tints[table.reshape(-1)]
    given = np.repeat(_normalized(color_table), 3, axis=0)
    tints = np.where(np.isnan(given), own, given)
    return MeshPart(vertices[table.reshape(-1)], np.arange(3 * len(table)).reshape(-1, 3), Paint(), tints)


def _normalized(colors: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Colors in [0, 1], from values in [0, 1] or [0, 255]."""
    return colors / (255 if np.nan_to_num(colors).max(initial=0) > 1 else 1)
