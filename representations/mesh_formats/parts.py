"""What every reader of a mesh format returns: the parts of a file, each with one material."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int

from ..painted_mesh import Paint

MAX_FACES = 5_000_000
"""Triangles of a file at most; more would take hours on a processor."""
MAX_ELEMENTS = 3 * MAX_FACES
"""Vertices, indices and the like in one array at most, so that a file that lies does not fill the memory."""
GREY = Paint((0.5, 0.5, 0.5))
"""What has no material, as display sRGB."""

Tell = Callable[[str], None]
"""Takes a line about something in the file that had to be left out or replaced."""


@dataclass(frozen=True)
class MeshPart:
    """Triangles with one material, in the file's space."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    paint: Paint
    tints: Float[np.ndarray, "v 3"] | None = None
    """Factors on the paint."""
    coordinates: Float[np.ndarray, "v 2"] | None = None
    """On the paint's texture, v downwards."""


@dataclass(frozen=True)
class MeshParts:
    """All parts of a file. See `PaintedMesh.linear`."""

    parts: list[MeshPart] = field(default_factory=list)
    linear: bool = False
