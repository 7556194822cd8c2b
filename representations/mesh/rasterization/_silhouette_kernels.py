"""Compiled search for silhouettes; see `silhouettes`."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from numba import njit, prange

from ...jit import EXACT
from .fragments import NEAR
from .silhouettes import HIDDEN, STRAY


@njit(inline="always", **EXACT)
@no_type_check
def _side(points: np.ndarray, a: int, b: int, c: int) -> float:
    """Twice the signed area of the triangle; 0 if c is -1 or in front of the near plane. Exact for snapped points."""
    if c < 0 or not points[c, 2] > NEAR:
        return 0.0
    ax, ay = np.float64(points[a, 0]), np.float64(points[a, 1])
    bx, by = np.float64(points[b, 0]), np.float64(points[b, 1])
    return (bx - ax) * (points[c, 1] - ay) - (by - ay) * (points[c, 0] - ax)


@njit(inline="always", **EXACT)
@no_type_check
def _lines(points: np.ndarray, a: int, b: int, axis: int, count: int) -> tuple[int, int]:
    """First and last row (axis 1) or column (axis 0) whose center line the edge crosses."""
    low, high = min(points[a, axis], points[b, axis]), max(points[a, axis], points[b, axis])
    if not (low < high and math.isfinite(points[a, 1 - axis]) and math.isfinite(points[b, 1 - axis])):
        return 0, -1
    return int(max(math.ceil(low - 0.5), 0.0)), int(min(math.floor(high - 0.5), count - 1.0))


@njit(parallel=True, **EXACT)
@no_type_check
def count_lines_kernel(screen: np.ndarray, edges: np.ndarray, height: int, width: int, count: np.ndarray) -> None:
    """Write count [b e]: the number of rows and columns that each edge crosses as a silhouette."""
    for e in prange(edges.shape[0]):
        a, b = edges[e, 0], edges[e, 1]
        for camera in range(screen.shape[0]):
            points = screen[camera]
            count[camera, e] = 0
            if not (points[a, 2] > NEAR and points[b, 2] > NEAR):
                continue
            one, other = _side(points, a, b, edges[e, 2]), _side(points, a, b, edges[e, 3])
            if one * other > 0 or (one == 0) != (other == 0):
                for axis in range(2):
                    first, last = _lines(points, a, b, axis, height if axis == 1 else width)
                    count[camera, e] += max(last - first + 1, 0)


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
    """Write the columns of `Crossings` to table [m 8], and to found [m] whether they are visible.

    Args:
        screen: Vertices [b v 3] as in `Raster.screen`.
        edges: Edge table [e 4] of `outline_edges`.
        depth: z-depth [b h w]; 0 where empty.
        which: The silhouettes, as indices into the flattened [b e].
        offset: First row of each silhouette in the table.
        found: Output [m].
        table: Output [m 8].
    """
    for i in prange(which.shape[0]):
        camera, e = which[i] // edges.shape[0], which[i] % edges.shape[0]
        row = offset[i]
        for axis in range(2):
            row = _walk(screen[camera], edges[e], depth[camera], axis, camera, row, found, table)


@njit(**EXACT)
@no_type_check
def _walk(
    points: np.ndarray,
    edge: np.ndarray,
    depth: np.ndarray,
    v: int,
    camera: int,
    row: int,
    found: np.ndarray,
    table: np.ndarray,
) -> int:
    """Write the crossings of an edge with rows (v = 1) or columns (v = 0) to the table from `row` on.

    Returns the next free row of the table.
    """
    u = 1 - v
    a, b = edge[0], edge[1]
    limit = depth.shape[v]
    au, av = np.float64(points[a, u]), np.float64(points[a, v])
    bu, bv = np.float64(points[b, u]), np.float64(points[b, v])
    ia, ib = 1.0 / points[a, 2], 1.0 / points[b, 2]
    first, last = _lines(points, a, b, v, depth.shape[u])
    across = abs(bv - av) > abs(bu - au) or (v == 1 and abs(bv - av) == abs(bu - au))
    # The front face is the nearer one: its 1/z increases fastest along u.
    slope = -math.inf
    inward = False
    for j in range(2, 4):
        c = edge[j]
        if _side(points, a, b, c) == 0.0:
            continue
        fraction = (points[c, v] - av) / (bv - av)
        aside = points[c, u] - (au + fraction * (bu - au))
        inward = aside > 0
        slope = max(slope, (1.0 / points[c, 2] - (ia + fraction * (ib - ia))) / abs(aside))
    for line in range(first, last + 1):
        found[row] = False
        fraction = (line + 0.5 - av) / (bv - av)
        place = au + fraction * (bu - au) - 0.5
        if 0.0 <= place < limit - 1.0:
            left = int(place)
            inner, outer = (left + 1, left) if inward else (left, left + 1)
            inner_depth = depth[line, inner] if v == 1 else depth[inner, line]
            outer_depth = depth[line, outer] if v == 1 else depth[outer, line]
            inverse = ia + fraction * (ib - ia)
            outer_near = 1.0 / outer_depth if outer_depth > 0.0 else 0.0
            behind = slope * abs(inner - place)
            found[row] = (
                inner_depth > 0.0
                and outer_near < inverse * (1.0 - HIDDEN)
                and 1.0 / inner_depth >= inverse + min(behind, 0.0) - abs(behind) - STRAY * inverse
            )
            table[row, 0] = camera
            table[row, 1] = v
            table[row, 2] = line
            table[row, 3] = left
            table[row, 4] = not inward
            table[row, 5] = a
            table[row, 6] = b
            table[row, 7] = across
        row += 1
    return row
