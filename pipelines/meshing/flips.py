"""Edge flips in flat regions toward a Delaunay triangulation, which has the fewest slivers."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int
from numba import njit

from steindreamer.representations.jit import EXACT

_FLAT = 1e-4
"""Distance between the two diagonals of a quad, as a fraction of the mesh's diagonal, up to which it is flat."""
_TURN = 5.0
"""Angle in degrees by which a triangle's normal may differ from that of its quad."""
_OBTUSE = 1e-3
"""Least gain of a flip, as the negative sum of the cotangents opposite of the edge: 0 for a Delaunay edge."""
_PASSES = 100


def flip_slivers(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, "f 3"]:
    """Faces after flips of the edges whose opposite angles sum to more than 180 degrees [Lawson 1977].

    Only the diagonals of flat convex quads are flipped, so that the surface stays within 1e-4 of its diagonal, and
    keeps its creases. No vertex moves.

    Args:
        vertices: vertices, one per position.
        faces: faces of a closed oriented manifold.
    """
    points = np.ascontiguousarray(vertices, np.float64)
    flipped, flat = faces.astype(np.int64), _FLAT * float(np.linalg.norm(np.ptp(points, axis=0)))
    _flip_kernel(points, flipped, _opposites(flipped), flat, float(np.cos(np.radians(_TURN))), _OBTUSE, _PASSES)
    return flipped


def _opposites(faces: Int[np.ndarray, "f 3"]) -> Int[np.ndarray, " h"]:
    """The opposite of each half-edge; half-edge `3 * face + k` leads from corner k to the next."""
    start, end = faces.reshape(-1), np.roll(faces, -1, 1).reshape(-1)
    forward, backward = np.lexsort((end, start)), np.lexsort((start, end))
    opposite = np.empty(len(start), np.int64)
    opposite[forward] = backward
    return opposite


@njit(inline="always", **EXACT)
@no_type_check
def _cross(ux, uy, uz, vx, vy, vz):
    return uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx


@njit(**EXACT)
@no_type_check
def _triangle(p, a, b, c):
    """Normal of a triangle, whose length is twice its area."""
    return _cross(
        p[b, 0] - p[a, 0], p[b, 1] - p[a, 1], p[b, 2] - p[a, 2], p[c, 0] - p[a, 0], p[c, 1] - p[a, 1], p[c, 2] - p[a, 2]
    )


@njit(**EXACT)
@no_type_check
def _cotangent(p, apex, a, b):
    """Cotangent of the angle at a corner of a triangle; very large for a degenerate one."""
    x, y, z = _triangle(p, apex, a, b)
    dot = 0.0
    for k in range(3):
        dot += (p[a, k] - p[apex, k]) * (p[b, k] - p[apex, k])
    return dot / max((x * x + y * y + z * z) ** 0.5, 1e-30)


@njit(**EXACT)
@no_type_check
def _distance(p, a, b, c, d):
    """Distance between the lines a-b and c-d."""
    x, y, z = _cross(
        p[b, 0] - p[a, 0], p[b, 1] - p[a, 1], p[b, 2] - p[a, 2], p[d, 0] - p[c, 0], p[d, 1] - p[c, 1], p[d, 2] - p[c, 2]
    )
    length = (x * x + y * y + z * z) ** 0.5
    return abs(x * (p[c, 0] - p[a, 0]) + y * (p[c, 1] - p[a, 1]) + z * (p[c, 2] - p[a, 2])) / max(length, 1e-30)


@njit(**EXACT)
@no_type_check
def _is_flat(p, a, b, c, d, flat, least):
    """Whether the quad a-d-b-c is flat, and both triangles of its other diagonal face the same way as it does."""
    if _distance(p, a, b, c, d) > flat:
        return False
    ux, uy, uz = _triangle(p, d, b, c)
    vx, vy, vz = _triangle(p, c, a, d)
    nx, ny, nz = ux + vx, uy + vy, uz + vz
    whole = (nx * nx + ny * ny + nz * nz) ** 0.5
    for x, y, z in ((ux, uy, uz), (vx, vy, vz)):
        length = (x * x + y * y + z * z) ** 0.5
        if length <= 1e-12 * whole or x * nx + y * ny + z * nz < least * length * whole:
            return False
    return True


@njit(**EXACT)
@no_type_check
def _is_edge(faces, opposite, start, end):
    """Whether the vertex that half-edge `start` leaves has an edge to the vertex `end`."""
    h = start
    while True:
        if faces[h // 3, (h + 1) % 3] == end:
            return True
        h = opposite[h // 3 * 3 + (h + 2) % 3]
        if h == start:
            return False


@njit(**EXACT)
@no_type_check
def _flip_kernel(p, faces, opposite, flat, least, obtuse, passes):
    """Flip edges in place until none is left to flip."""
    for _ in range(passes):
        flips = 0
        for h in range(opposite.shape[0]):
            t = opposite[h]
            if t < h:
                continue
            one, two = h // 3, t // 3
            h_next, h_last = one * 3 + (h + 1) % 3, one * 3 + (h + 2) % 3
            t_next, t_last = two * 3 + (t + 1) % 3, two * 3 + (t + 2) % 3
            a, b, c = faces[one, h % 3], faces[one, h_next % 3], faces[one, h_last % 3]
            d = faces[two, t_last % 3]
            if c == d or _cotangent(p, c, a, b) + _cotangent(p, d, b, a) > -obtuse:
                continue
            if not _is_flat(p, a, b, c, d, flat, least) or _is_edge(faces, opposite, h_last, d):
                continue
            # Faces a-b-c and b-a-d become d-b-c and c-a-d.
            outer = opposite[t_last], opposite[h_next], opposite[h_last], opposite[t_next]
            faces[one, 0], faces[one, 1], faces[one, 2] = d, b, c
            faces[two, 0], faces[two, 1], faces[two, 2] = c, a, d
            inner = 3 * one, 3 * one + 1, 3 * two, 3 * two + 1
            for k in range(4):
                opposite[inner[k]] = outer[k]
                opposite[outer[k]] = inner[k]
            opposite[3 * one + 2] = 3 * two + 2
            opposite[3 * two + 2] = 3 * one + 2
            flips += 1
        if flips == 0:
            return
