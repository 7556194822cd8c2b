"""One square texture page: xatlas cuts the charts, a bisection on their scale makes them fill exactly that page."""

from __future__ import annotations

import numpy as np
import torch
import xatlas

from ...representations import TriangleMesh, vertex_normals

MAX_FACES = 150_000
"""xatlas takes minutes beyond this."""
_CHART_COSTS = (2.0, 8.0, 32.0)
"""Tried in turn while the surface falls into too many charts; a larger cost stretches the texture more."""


def unwrap(mesh: TriangleMesh, page: int = 1024, padding: int = 4) -> TriangleMesh:
    """The mesh with texture coordinates in [0, 1] on one page; vertices are split along chart borders.

    Normals are those of the mesh before the split, so that seams do not show in the shading. Charts keep at least
    `padding` texels of a `page` x `page` texture between them. Raises ValueError for a page that is not a power
    of two, a mesh too large to unwrap, or a padding that leaves no room.
    """
    if page < 16 or page & (page - 1):
        raise ValueError(f"texture size {page} is not a power of two of at least 16; use 512, 1024 or 2048")
    if len(mesh.faces) > MAX_FACES:
        raise ValueError(f"{len(mesh.faces)} faces are too many to unwrap; set face_budget to {MAX_FACES} or less")
    vertices, faces = mesh.vertices.numpy(), mesh.faces.numpy()
    origin, corners, charts = _charts(vertices, faces)
    corners, uvs, kept = _pack(charts, corners, page, padding)
    origin = origin[kept]
    return TriangleMesh(
        vertices=mesh.vertices[torch.from_numpy(origin)],
        faces=torch.from_numpy(corners.astype(np.int64)),
        normals=vertex_normals(mesh.vertices, mesh.faces)[torch.from_numpy(origin)],
        uvs=torch.from_numpy(uvs.astype(np.float32)),
    )


def _charts(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Original vertex of every new vertex, new faces, and flat chart coordinates in the mesh's own units."""
    limit = max(150, len(faces) // 40)
    atlas = _cut_charts(vertices, faces, _CHART_COSTS[0])
    for cost in _CHART_COSTS[1:]:
        if atlas.chart_count > limit:
            atlas = _cut_charts(vertices, faces, cost)
    origin, corners, uvs = atlas.get_mesh(0)
    # xatlas divides u by the width and v by the height of a page that is not square.
    flat = uvs * np.array([atlas.width, atlas.height]) / atlas.texels_per_unit
    return origin.astype(np.int64), corners, flat.astype(np.float32)


def _cut_charts(vertices: np.ndarray, faces: np.ndarray, cost: float) -> xatlas.Atlas:
    atlas = xatlas.Atlas()
    atlas.add_mesh(vertices, faces.astype(np.uint32))
    options, packing = xatlas.ChartOptions(), xatlas.PackOptions()
    options.max_cost, packing.rotate_charts = cost, False
    atlas.generate(options, packing)
    return atlas


def _pack(charts: np.ndarray, corners: np.ndarray, page: int, padding: int) -> tuple[np.ndarray, ...]:
    """The largest scale whose charts fit one page, to half a percent. Packing is quick beside cutting the charts."""

    def packed(texels_per_unit: float) -> xatlas.Atlas | None:
        atlas = xatlas.Atlas()
        atlas.add_uv_mesh(charts, corners)
        options = xatlas.PackOptions()
        options.rotate_charts = False  # it would swap u and v, which mirrors
        options.resolution, options.padding, options.texels_per_unit = page, padding, texels_per_unit
        atlas.generate(xatlas.ChartOptions(), options)
        return atlas if atlas.atlas_count == 1 and (atlas.width, atlas.height) == (page, page) else None

    triangles = charts[corners].astype(np.float64)
    first, second = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    area = 0.5 * float(np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).sum())
    high = page / np.sqrt(area)  # would need every texel: never fits
    low, best = high, None
    while best is None:
        low *= 0.7
        best = packed(low)
        if low < 1e-3 * high:
            raise ValueError(f"the charts do not fit {page} texels with padding {padding}; lower padding")
    high = min(high, low / 0.7)
    while high / low > 1.005:
        middle = float(np.sqrt(low * high))
        atlas = packed(middle)
        if atlas is None:
            high = middle
        else:
            low, best = middle, atlas
    kept, corners, uvs = best.get_mesh(0)
    # xatlas has v upwards: as rows of a picture, growing downwards, its charts would show mirrored.
    return corners, np.stack([uvs[:, 0], 1 - uvs[:, 1]], 1), kept.astype(np.int64)
