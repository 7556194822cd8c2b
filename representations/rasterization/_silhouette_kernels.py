"""The compiled search for silhouettes; see `silhouettes`."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from numba import njit, prange

from ..jit import EXACT
from .fragments import NEAR
from .silhouettes import HIDDEN, STRAY


@njit(inline="always", **EXACT)
@no_type_check
def _side(points: np.ndarray, a: int, b: int, c: int) -> float:
    """Twice the signed area of the triangle; 0 if there is no c, or it is too near to be drawn. Exact on the grid."""
    if c < 0 or not points[c, 2] > NEAR:
        return 0.0
    ax, ay = np.float64(points[a, 0]), np.float64(points[a, 1])
    bx, by = np.float64(points[b, 0]), np.float64(points[b, 1])
    return (bx - ax) * (points[c, 1] - ay) - (by - ay) * (points[c, 0] - ax)


@njit(inline="always", **EXACT)
@no_type_check
def _lines(points: np.ndarray, a: int, b: int, height: int, width: int) -> tuple[bool, int, int]:
    """Whether the edge is steep, and the first and the last of the rows (or columns) whose centre lines it crosses."""
    steep = abs(points[b, 1] - points[a, 1]) >= abs(points[b, 0] - points[a, 0])
    axis, count = (1, height) if steep else (0, width)
    low, high = min(points[a, axis], points[b, axis]), max(points[a, axis], points[b, axis])
    if not (low < high and math.isfinite(points[a, 1 - axis]) and math.isfinite(points[b, 1 - axis])):
        return steep, 0, -1
    return steep, int(max(math.ceil(low - 0.5), 0.0)), int(min(math.floor(high - 0.5), count - 1.0))


@njit(parallel=True, **EXACT)
@no_type_check
def count_lines_kernel(screen: np.ndarray, edges: np.ndarray, height: int, width: int, count: np.ndarray) -> None:
    """count [b e]: how many rows (or columns) each edge crosses as a silhouette."""
    for e in prange(edges.shape[0]):
        a, b = edges[e, 0], edges[e, 1]
        for camera in range(screen.shape[0]):
            points = screen[camera]
            count[camera, e] = 0
            if not (points[a, 2] > NEAR and points[b, 2] > NEAR):
                continue
            one, other = _side(points, a, b, edges[e, 2]), _side(points, a, b, edges[e, 3])
            if one * other > 0 or (one == 0) != (other == 0):
                _, first, last = _lines(points, a, b, height, width)
                count[camera, e] = max(last - first + 1, 0)


@njit(parallel=True, **EXACT)
@no_type_check
def walk_kernel(
    screen: np.ndarray,
    edges: np.ndarray,
    depth: np.ndarray,
    which: np.ndarray,
    offset: np.ndarray,
    found: np.ndarray,
    table: np.ndarray,
) -> None:
    """Fill table [m 7] with `Crossings` and mark in found [m] those that are visible.

    which: the silhouettes, as indices into the flattened [b e]; offset: where their rows of the table begin.
    """
    _, height, width = depth.shape
    for i in prange(which.shape[0]):
        camera, e = which[i] // edges.shape[0], which[i] % edges.shape[0]
        points = screen[camera]
        a, b = edges[e, 0], edges[e, 1]
        steep, first, last = _lines(points, a, b, height, width)
        u, v = (0, 1) if steep else (1, 0)
        limit = width if steep else height
        au, av, bu, bv = (
            np.float64(points[a, u]),
            np.float64(points[a, v]),
            np.float64(points[b, u]),
            np.float64(points[b, v]),
        )
        ia, ib = 1.0 / points[a, 2], 1.0 / points[b, 2]
        # The face towards the camera is the nearer one: its 1/z grows fastest along u.
        slope = -math.inf
        inwards = 0.0
        for j in range(2, 4):
            c = edges[e, j]
            if _side(points, a, b, c) == 0.0:
                continue
            cu, cv = np.float64(points[c, u]), np.float64(points[c, v])
            share = (cv - av) / (bv - av)
            aside = cu - (au + share * (bu - au))
            inwards = 1.0 if aside > 0 else -1.0
            slope = max(slope, (1.0 / points[c, 2] - (ia + share * (ib - ia))) / abs(aside))
        for line in range(first, last + 1):
            row = offset[i] + line - first
            found[row] = False
            share = (line + 0.5 - av) / (bv - av)
            place = au + share * (bu - au) - 0.5
            if not 0.0 <= place < limit - 1.0:
                continue
            k = int(place)
            inner, outer = (k + 1, k) if inwards > 0 else (k, k + 1)
            inner_depth = depth[camera, line, inner] if steep else depth[camera, inner, line]
            outer_depth = depth[camera, line, outer] if steep else depth[camera, outer, line]
            if inner_depth == 0.0:
                continue
            edge = ia + share * (ib - ia)
            behind = slope * abs(inner - place)
            nearest_outer = 0.0 if outer_depth == 0.0 else 1.0 / outer_depth
            if nearest_outer >= edge * (1.0 - HIDDEN):
                continue
            if 1.0 / inner_depth < edge + min(behind, 0.0) - abs(behind) - STRAY * edge:
                continue
            found[row] = True
            table[row, 0] = camera
            table[row, 1] = steep
            table[row, 2] = line
            table[row, 3] = k
            table[row, 4] = inwards < 0
            table[row, 5] = a
            table[row, 6] = b
