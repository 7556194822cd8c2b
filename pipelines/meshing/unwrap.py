"""Texture coordinates: the surface is cut into charts, which are packed into one square atlas."""

from __future__ import annotations

import numpy as np
import torch

from steindreamer.representations import TriangleMesh, vertex_normals

from .charts import cut_charts
from .packing import pack

MAX_FACES = 150_000
"""Maximum number of faces; xatlas takes minutes beyond it."""


def unwrap(mesh: TriangleMesh, size: int = 1024, padding: int = 4) -> TriangleMesh:
    """The mesh with texture coordinates in [0, 1] in one atlas; vertices are split along chart borders.

    Normals are those of the mesh before the split, so that seams are invisible in the shading. Raises ValueError for a
    `size` that is not a power of two, a mesh that is too large to unwrap or has no size, or a padding that leaves no
    room.

    Args:
        mesh: the mesh to unwrap.
        size: size of the texture in texels (square).
        padding: minimum number of texels between charts.

    Example:
        >>> unwrapped = unwrap(mesh, size=512)
    """
    if size < 16 or size & (size - 1):
        raise ValueError(f"texture size {size} is not a power of two of at least 16; use 512, 1024 or 2048")
    if len(mesh.faces) > MAX_FACES:
        raise ValueError(f"{len(mesh.faces)} faces are too many to unwrap; set face_budget to {MAX_FACES} or less")
    vertices, faces = mesh.vertices.numpy(), mesh.faces.numpy()
    charts = cut_charts(vertices / _size(vertices), faces)
    uvs = pack(charts.flat, charts.corners, charts.chart, size, padding)
    origin = torch.from_numpy(charts.origin)
    return TriangleMesh(
        vertices=mesh.vertices[origin],
        faces=torch.from_numpy(charts.corners),
        normals=vertex_normals(mesh.vertices, mesh.faces)[origin],
        uvs=torch.from_numpy(uvs.astype(np.float32)),
    )


def _size(vertices: np.ndarray) -> np.float32:
    """The power of two nearest to the mesh's size, which makes xatlas's absolute tolerances independent of the scale.

    Division by it is exact. Raises ValueError for a mesh without size.
    """
    extent = float(np.ptp(vertices.astype(np.float64), axis=0).max(initial=0))
    if not 0 < extent < np.inf:
        raise ValueError(f"the surface is too small to be unwrapped: its longest side is {extent:.3g}")
    return np.float32(2.0 ** round(np.log2(extent)))
