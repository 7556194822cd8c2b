"""Wavefront OBJ: polygons with texture coordinates, vertex colors and materials."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..painted_mesh import Paint
from .mtl import ObjMaterials, ObjPaint
from .parts import MAX_FACES, MeshPart, MeshParts, Tell

Corners = list[tuple[int, int]]
"""Of triangles, three each: vertex and texture coordinate, counted from 0; -1: none."""


def read_obj(data: bytes, folder: Path, tell: Tell) -> MeshParts:
    """Colors are display sRGB. `folder`: where its material files lie. Raises ValueError for what is broken; material
    files and pictures that are missing or broken are told only.
    """
    reader = _ObjReader()
    for number, line in _lines(data):
        try:
            reader.take(line)
        except (ValueError, IndexError, OverflowError) as error:
            raise ValueError(f"line {number} ('{line[:60]}') cannot be read: {error}") from None
    materials = ObjMaterials(reader.libraries, folder, tell)
    vertices, tints = _vertices(reader.vertices)
    places = np.array(reader.places, np.float64).reshape(-1, 2)
    return MeshParts(
        [
            _part(vertices, tints, places, corners, materials.paint(name))
            for name, corners in reader.faces.items()
            if corners
        ]
    )


class _ObjReader:
    """What the lines say, as they come."""

    def __init__(self) -> None:
        self.vertices: list[list[float]] = []
        """x, y, z and, where it is given, a color."""
        self.places: list[tuple[float, float]] = []
        self.faces: dict[str, Corners] = defaultdict(list)
        """By material."""
        self.libraries: list[str] = []
        self._material = ""
        self._count = 0

    def take(self, line: str) -> None:
        """Raises ValueError or IndexError for a line that cannot be understood."""
        key, _, rest = line.partition(" ")
        if key == "v":
            values = [float(word) for word in rest.split()]
            if len(values) < 3:
                raise ValueError("a vertex has three coordinates")
            # Four are homogeneous, whose last nobody uses; from six on, a color follows.
            self.vertices.append(values[:6] if len(values) >= 6 else values[:3])
        elif key == "vt":
            words = rest.split()
            self.places.append((float(words[0]), float(words[1]) if len(words) > 1 else 0.0))
        elif key == "f":
            self._take_face(rest.split())
        elif key == "usemtl":
            self._material = " ".join(rest.split())
        elif key == "mtllib":
            self.libraries.append(rest.strip())

    def _take_face(self, words: list[str]) -> None:
        polygon = [self._corner(word) for word in words]
        self._count += max(len(polygon) - 2, 0)
        if self._count > MAX_FACES:
            raise ValueError(f"it has more than {MAX_FACES} triangles; simplify it")
        corners = self.faces[self._material]
        for second, third in pairwise(polygon[1:]):
            corners += (polygon[0], second, third)

    def _corner(self, word: str) -> tuple[int, int]:
        vertex, _, rest = word.partition("/")
        place = rest.partition("/")[0]
        return _index(vertex, len(self.vertices)), _index(place, len(self.places)) if place else -1


def _index(word: str, known: int) -> int:
    """Counted from 1, or backwards from the latest, -1. Later lines may still define what is counted from 1."""
    number = int(word)
    if number == 0 or number < -known:
        raise ValueError(f"{number} refers to nothing")
    return number - 1 if number > 0 else known + number


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    """Numbered, without comments, each in one piece."""
    pending = ""
    for number, line in enumerate(data.decode("utf-8-sig", "replace").splitlines(), 1):
        line = pending + line.partition("#")[0].strip().replace("\t", " ")
        if line.endswith("\\"):
            pending = line[:-1] + " "
            continue
        pending = ""
        yield number, line


def _vertices(rows: list[list[float]]) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "v 3"] | None]:
    """Places and, if any vertex has one, colors; white where there is none."""
    places = np.array([row[:3] for row in rows], np.float64).reshape(-1, 3)
    if not any(len(row) == 6 for row in rows):
        return places, None
    colors = np.array([row[3:] if len(row) == 6 else (np.nan,) * 3 for row in rows], np.float64)
    # Some write bytes.
    colors /= 255 if np.nan_to_num(colors).max() > 1 else 1
    return places, np.nan_to_num(colors, nan=1.0)


def _part(
    vertices: Float[np.ndarray, "v 3"],
    tints: Float[np.ndarray, "v 3"] | None,
    places: Float[np.ndarray, "t 2"],
    corners: Corners,
    material: ObjPaint,
) -> MeshPart:
    pairs = np.array(corners, np.int64).reshape(-1, 2)
    for column, known, what in ((0, len(vertices), "vertex"), (1, len(places), "texture coordinate")):
        if (largest := int(pairs[:, column].max())) >= known:
            raise ValueError(f"a face refers to {what} {largest + 1} of {known}")
    used, faces = np.unique(pairs, axis=0, return_inverse=True)
    paint, coordinates = material.paint, None
    if paint.texture is not None:
        padded = np.concatenate([places, np.zeros((1, 2))])  # -1 is the last
        moved = padded[used[:, 1]] * material.scale + material.offset
        coordinates = np.stack([moved[:, 0], 1 - moved[:, 1]], 1)  # v grows upwards in OBJ
    elif tints is not None and not material.colored:
        paint = Paint()
    chosen = None if tints is None else tints[used[:, 0]]
    return MeshPart(vertices[used[:, 0]], faces.reshape(-1, 3), paint, chosen, coordinates)
