"""Texture coordinates: xatlas cuts the surface into charts, which are packed into one square atlas."""

from __future__ import annotations

import numpy as np
import torch
import xatlas

from steindreamer.representations import TriangleMesh, vertex_normals

from .packing import generate, pack

MAX_FACES = 150_000
"""Maximum number of faces; xatlas takes minutes beyond this."""
_CHART_COSTS = (2.0, 8.0, 32.0)
"""Chart costs that are tried in turn while there are too many charts; a larger cost stretches the texture more."""


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
    origin, corners, charts = _charts(vertices / _size(vertices), faces)
    corners, uvs, kept = pack(charts, corners, size, padding)
    origin = origin[kept]
    return TriangleMesh(
        vertices=mesh.vertices[torch.from_numpy(origin)],
        faces=torch.from_numpy(corners.astype(np.int64)),
        normals=vertex_normals(mesh.vertices, mesh.faces)[torch.from_numpy(origin)],
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


def _charts(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Original vertex of every new vertex, new faces, and flat chart coordinates in the mesh's own units."""
    limit = max(150, len(faces) // 40)
    atlas = _cut_charts(vertices, faces, _CHART_COSTS[0])
    for cost in _CHART_COSTS[1:]:
        if atlas.chart_count > limit:
            atlas = _cut_charts(vertices, faces, cost)
    origin, corners, uvs = atlas.get_mesh(0)
    # xatlas divides u by the width and v by the height of an atlas that is not square.
    flat = uvs * np.array([atlas.width, atlas.height]) / atlas.texels_per_unit
    return origin.astype(np.int64), corners, flat.astype(np.float32)


def _cut_charts(vertices: np.ndarray, faces: np.ndarray, cost: float) -> xatlas.Atlas:
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices, faces.astype(np.uint32))
    options, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    options.max_cost, packing.rotate_charts = cost, False
    generate(atlas, options, packing)
    return atlas
