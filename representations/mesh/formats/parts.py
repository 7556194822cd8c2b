"""The result of all readers of mesh formats: the parts of a file, each with one material."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from ..painted import Paint, PartOrigin

MAX_FACES = 5_000_000
"""Maximum number of triangles of a file; more would take hours on a CPU."""
MAX_ELEMENTS = 3 * MAX_FACES
"""Maximum number of elements of one array (vertices, indices), so that wrong counts cannot fill the memory."""
GRAY = Paint((0.5, 0.5, 0.5))
"""Color of faces without a material, display sRGB."""

Warn = Callable[[str], None]
"""A function that logs a one-line warning about a part of the file that was omitted or replaced."""


@dataclass(frozen=True)
class MeshPart:
    """Triangles with one material, in the coordinates of the file."""

    vertices: Float[np.ndarray, "v 3"]
    """Positions."""
    faces: Int[np.ndarray, "f 3"]
    """Vertex indices."""
    paint: Paint
    """The material."""
    tints: Float[np.ndarray, "v 3"] | None = None
    """Vertex color factors on the material; None: 1."""
    coordinates: Float[np.ndarray, "v 2"] | None = None
    """Texture coordinates, v pointing down; None: the file or the material has none."""
    normals: Float[np.ndarray, "v 3"] | None = None
    """Unit normals, if they were read."""
    origin: PartOrigin = field(default_factory=PartOrigin)
    """Its location in the file."""


@dataclass(frozen=True)
class MeshParts:
    """All parts of a file."""

    parts: list[MeshPart] = field(default_factory=list)
    """The parts."""
    linear: bool = False
    """Whether colors are linear RGB, see `PaintedMesh.linear`."""
