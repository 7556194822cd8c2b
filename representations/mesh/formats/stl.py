"""A reader for STL, which has no colors."""

from __future__ import annotations

import io

import numpy as np
import trimesh

from .parts import GRAY, MAX_FACES, MeshPart, MeshParts


def read_stl(data: bytes) -> MeshParts:
    """Read a binary or text STL file. Raises ValueError if it is broken."""
    if len(data) // 50 > 3 * MAX_FACES:
        raise ValueError(f"it has more than {MAX_FACES} triangles; simplify it")
    scene = trimesh.load_scene(io.BytesIO(data), file_type="stl", process=False)
    parts = [part for part in scene.dump() if isinstance(part, trimesh.Trimesh)]
    return MeshParts([MeshPart(np.asarray(part.vertices), np.asarray(part.faces), GRAY) for part in parts])
