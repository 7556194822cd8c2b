"""A reader for Wavefront OBJ: polygons with texture coordinates, vertex colors and materials."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..painted import Paint, PartOrigin
from .mtl import ObjMaterials, ObjPaint
from .parts import MAX_FACES, MeshPart, MeshParts, Warn

Corners = list[tuple[int, int]]
"""Corners of triangles, three each: index of the vertex, and of the texture coordinate (-1: none)."""


def read_obj(data: bytes, folder: Path, warn: Warn) -> MeshParts:
    """Read an OBJ file; missing or broken material files and images only cause warnings. Colors are display sRGB.

    Args:
        data: Content of the file.
        folder: Folder of its material files.
        warn: Logs warnings.

    Raises:
        ValueError: The file is broken.
    """
    reader = _ObjReader()
    for number, line in numbered_lines(data):
        try:
            reader.take(line)
        except (ValueError, IndexError, OverflowError) as error:
            raise ValueError(f"line {number} ('{line[:60]}') cannot be read: {error}") from None
    materials = ObjMaterials(reader.libraries, folder, warn)
    vertices, tints = _vertices(reader.vertices)
    places = np.array(reader.places, np.float64).reshape(-1, 2)
    return MeshParts(
        [
            replace(
                _part(vertices, tints, places, corners, materials.paint(name)),
                origin=PartOrigin((name,) if name else (), index),
            )
            for index, (name, corners) in enumerate(reader.faces.items())
            if corners
        ]
    )


class _ObjReader:
    """Collects the content of an OBJ file line by line."""

    def __init__(self) -> None:
        self.vertices: list[list[float]] = []
        """Coordinates x, y, z and, if given, a color."""
        self.places: list[tuple[float, float]] = []
        """Texture coordinates."""
        self.faces: dict[str, Corners] = defaultdict(list)
        """Triangles by material."""
        self.libraries: list[str] = []
        """Arguments of the `mtllib` lines."""
        self._material = ""
        self._count = 0

    def take(self, line: str) -> None:
        """Parse a line. Raises ValueError or IndexError for an invalid line."""
        key, _, rest = line.partition(" ")
        if key == "v":
            values = [float(word) for word in rest.split()]
            if len(values) < 3:
                raise ValueError("a vertex has three coordinates")
            # Four values are homogeneous coordinates, whose last is ignored; from six on, a color follows.
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
        return element_index(vertex, len(self.vertices)), element_index(place, len(self.places)) if place else -1


def element_index(word: str, known: int) -> int:
    """Index from 0 of a reference, which counts from 1, or backward from the latest element, -1.

    A positive reference may be to an element of a later line.
    """
    number = int(word)
    if number == 0 or number < -known:
        raise ValueError(f"{number} is not a valid index")
    return number - 1 if number > 0 else known + number


def numbered_lines(data: bytes) -> Iterator[tuple[int, str]]:
    """Numbered lines without comments, with continued lines joined."""
    pending = ""
    for number, line in enumerate(data.decode("utf-8-sig", "replace").splitlines(), 1):
        line = pending + line.partition("#")[0].strip().replace("\t", " ")
        if line.endswith("\\"):
            pending = line[:-1] + " "
            continue
        pending = ""
        yield number, line


def _vertices(rows: list[list[float]]) -> tuple[Float[np.ndarray, "v 3"], Float[np.ndarray, "v 3"] | None]:
    """Positions and colors; white for vertices without a color, and None if no vertex has one."""
    places = np.array([row[:3] for row in rows], np.float64).reshape(-1, 3)
    if not any(len(row) == 6 for row in rows):
        return places, None
    colors = np.array([row[3:] if len(row) == 6 else (np.nan,) * 3 for row in rows], np.float64)
    # Some programs write values in [0, 255].
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
        padded = np.concatenate([places, np.zeros((1, 2))])  # index -1 refers to the last row
        moved = padded[used[:, 1]] * material.scale + material.offset
        coordinates = np.stack([moved[:, 0], 1 - moved[:, 1]], 1)  # v grows upward in OBJ
    elif (used[:, 1] >= 0).all():
        coordinates = np.stack([places[used[:, 1], 0], 1 - places[used[:, 1], 1]], 1)
    if paint.texture is None and tints is not None and not material.colored:
        paint = Paint()
    chosen = None if tints is None else tints[used[:, 0]]
    return MeshPart(vertices[used[:, 0]], faces.reshape(-1, 3), paint, chosen, coordinates)
