"""A mesh whose positions, normals and texture coordinates have indices of their own, as OBJ and USD store it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from ..finished import Finished


@dataclass(frozen=True)
class IndexedSurface:
    """Triangles without vertices that differ only in normal or texture coordinates: a closed mesh stays closed."""

    points: Float[np.ndarray, "p 3"]
    """Positions in meters, +Y up."""
    normals: Float[np.ndarray, "n 3"]
    uvs: Float[np.ndarray, "t 2"]
    """Texture coordinates, v pointing down."""
    point_faces: Int[np.ndarray, "f 3"]
    normal_faces: Int[np.ndarray, "f 3"]
    uv_faces: Int[np.ndarray, "f 3"]


def indexed_surface(asset: Finished, level: int) -> IndexedSurface:
    """A level of detail of an asset."""
    mesh = asset.looks[level].mesh
    assert mesh.normals is not None and mesh.uvs is not None
    used, faces = np.unique(mesh.faces.numpy(), return_inverse=True)
    faces = faces.reshape(-1, 3)
    points, point = _distinct(asset.frame.points(mesh.vertices)[used])
    normals, normal = _distinct(mesh.normals.numpy()[used])
    uvs, uv = _distinct(mesh.uvs.numpy()[used])
    return IndexedSurface(points, normals, uvs, point[faces], normal[faces], uv[faces])


def _distinct(rows: Float[np.ndarray, "v c"]) -> tuple[Float[np.ndarray, "d c"], Int[np.ndarray, " v"]]:
    values, index = np.unique(rows.astype(np.float32) + np.float32(0), axis=0, return_inverse=True)
    return values, index.reshape(-1)
