"""Checks of what all readers return."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from steindreamer.representations.mesh.formats.parts import MAX_ELEMENTS, MAX_FACES

from .asset_file import Part


def checked_faces(faces: np.ndarray, count: int) -> Int[np.ndarray, "f 3"]:
    """Faces as int64. Raises ValueError if one refers to a vertex that does not exist."""
    faces = np.asarray(faces, np.int64).reshape(-1, 3)
    if len(faces) and not 0 <= faces.min() <= faces.max() < count:
        raise ValueError(f"a face refers to vertex {faces.max()}; there are {count}")
    return faces


def check_parts(parts: Sequence[Part]) -> None:
    """Raises ValueError if there are no triangles, too many, or no valid vertices."""
    count = sum(len(part.faces) for part in parts)
    if count == 0:
        raise ValueError("it has no triangles")
    if count > MAX_FACES:
        raise ValueError(f"it has more than {MAX_FACES} triangles; simplify it")
    if sum(len(part.positions) for part in parts) > MAX_ELEMENTS:
        raise ValueError(f"it has more than {MAX_ELEMENTS} vertices; simplify it")
    for part in parts:
        used = part.positions[part.faces.reshape(-1)]
        if len(used) and not np.isfinite(used).any():
            raise ValueError("none of its vertices is finite (NaN or infinite)")
