"""Compiled smooth vertex normals: `triangle_mesh.vertex_normals` and its gradient, each in one pass over the faces.

One thread processes all faces, so the bits do not depend on the number of threads.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit

from ..jit import EXACT


@njit(inline="always", **EXACT)
@no_type_check
def _sides(vertices: np.ndarray, a: int, b: int, c: int) -> tuple[float, float, float, float, float, float]:
    """The edge vectors from a to b and from a to c."""
    x, y, z = vertices[a, 0], vertices[a, 1], vertices[a, 2]
    ux, uy, uz = vertices[b, 0] - x, vertices[b, 1] - y, vertices[b, 2] - z
    return ux, uy, uz, vertices[c, 0] - x, vertices[c, 1] - y, vertices[c, 2] - z


@njit(**EXACT)
@no_type_check
def normals_kernel(vertices: np.ndarray, faces: np.ndarray, normals: np.ndarray, length: np.ndarray) -> None:
    """Write the unit normals [v 3], and the length [v] of the sums of the face area vectors; 0 without any area."""
    normals[:] = 0.0
    for face in range(faces.shape[0]):
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        ux, uy, uz, vx, vy, vz = _sides(vertices, a, b, c)
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for j in range(3):
            vertex = faces[face, j]
            normals[vertex, 0] += nx
            normals[vertex, 1] += ny
            normals[vertex, 2] += nz
    for vertex in range(normals.shape[0]):
        x, y, z = normals[vertex, 0], normals[vertex, 1], normals[vertex, 2]
        length[vertex] = np.sqrt(x * x + y * y + z * z)
        if length[vertex] > 0.0:
            normals[vertex, 0] /= length[vertex]
            normals[vertex, 1] /= length[vertex]
            normals[vertex, 2] /= length[vertex]


@njit(**EXACT)
@no_type_check
def normals_backward_kernel(
    vertices: np.ndarray,
    faces: np.ndarray,
    normals: np.ndarray,
    length: np.ndarray,
    g_normals: np.ndarray,
    g_sums: np.ndarray,
    g_vertices: np.ndarray,
) -> None:
    """Write g_vertices [v 3]; g_sums [v 3] is a buffer for the gradient of the sums."""
    g_vertices[:] = 0.0
    for vertex in range(normals.shape[0]):
        inverse = 1.0 / length[vertex] if length[vertex] > 0.0 else 0.0
        along = 0.0
        for j in range(3):
            along += normals[vertex, j] * g_normals[vertex, j]
        for j in range(3):
            g_sums[vertex, j] = (g_normals[vertex, j] - along * normals[vertex, j]) * inverse
    for face in range(faces.shape[0]):
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        ux, uy, uz, vx, vy, vz = _sides(vertices, a, b, c)
        gx = g_sums[a, 0] + g_sums[b, 0] + g_sums[c, 0]
        gy = g_sums[a, 1] + g_sums[b, 1] + g_sums[c, 1]
        gz = g_sums[a, 2] + g_sums[b, 2] + g_sums[c, 2]
        # n = u x v, so the gradient of u is v x g, and that of v is g x u.
        bx, by, bz = vy * gz - vz * gy, vz * gx - vx * gz, vx * gy - vy * gx
        cx, cy, cz = gy * uz - gz * uy, gz * ux - gx * uz, gx * uy - gy * ux
        g_vertices[a, 0] -= bx + cx
        g_vertices[a, 1] -= by + cy
        g_vertices[a, 2] -= bz + cz
        g_vertices[b, 0] += bx
        g_vertices[b, 1] += by
        g_vertices[b, 2] += bz
        g_vertices[c, 0] += cx
        g_vertices[c, 1] += cy
        g_vertices[c, 2] += cz
