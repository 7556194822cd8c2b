"""Compiled search for the triangles of a surface in a tetrahedral grid."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit

from ...jit import EXACT


@njit(**EXACT)
@no_type_check
def faces_kernel(
    inside: np.ndarray,
    segments: np.ndarray,
    corners: np.ndarray,
    edges: np.ndarray,
    vertex_of_edge: np.ndarray,
    triangles: np.ndarray,
    counts: np.ndarray,
    out: np.ndarray,
) -> int:
    """Write the triangles [f 3] between the vertices, and return their number.

    Args:
        inside: Whether each node is inside the surface.
        segments: Index [s] of the first node of each segment.
        corners: Offsets [4 4] of the corners of the four tetrahedra of a segment.
        edges: Places [s 4 6] of the edges of the tetrahedra in `vertex_of_edge`.
        vertex_of_edge: The vertex on every crossing edge.
        triangles: Triangles [16 2 3] as edges of the tetrahedron, by the mask of inside corners.
        counts: Number [16] of triangles by the mask.
        out: At least as many rows as there are triangles; only the first rows are written.
    """
    found = 0
    for segment in range(len(segments)):
        for tetrahedron in range(4):
            case = 0
            for corner in range(4):
                if inside[segments[segment] + corners[tetrahedron, corner]]:
                    case |= 1 << corner
            for triangle in range(counts[case]):
                for corner in range(3):
                    edge = edges[segment, tetrahedron, triangles[case, triangle, corner]]
                    out[found, corner] = vertex_of_edge[edge]
                found += 1
    return found
