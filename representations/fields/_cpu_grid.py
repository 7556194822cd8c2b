"""Compiled kernels of trilinear feature grids; `grid_reference` is the reference implementation in torch.

The weight of a corner is its trilinear interpolation weight or, with a `direction`, the derivative of that weight along
the direction. With `direction=None` the branch is removed at compile time. `feature` is a tuple with one entry per
feature, so that its length is a compile-time constant of the loops.
"""

from typing import no_type_check

import numpy as np
from numba import njit, prange

from ..jit import FAST

f32, u32, u64 = np.float32, np.uint32, np.uint64
ZERO, ONE = f32(0.0), f32(1.0)
PRIME_Y, PRIME_Z = u32(2654435761), u32(805459861)
# Each thread processes whole blocks of this many points, so that the compiled loop, and every bit of the result, is the
# same for any number of threads.
BLOCK = 1024


@no_type_check
@njit(inline="always", **FAST)
def _cell(points, i, cells):
    """Lowest corner of the cell of a point, and the position inside the cell. The minimum also handles NaN."""
    scale = f32(cells)
    x, y, z = points[i, 0] * scale, points[i, 1] * scale, points[i, 2] * scale
    last = u32(cells - u32(1))
    ix, iy, iz = min(u32(x), last), min(u32(y), last), min(u32(z), last)
    return ix, iy, iz, x - f32(ix), y - f32(iy), z - f32(iz)


@no_type_check
@njit(inline="always", **FAST)
def _entry(ix, iy, iz, corner, side, dense, mask):
    """Index of the table entry of a corner of the cell."""
    x, y, z = ix + u32(corner & 1), iy + u32((corner >> 1) & 1), iz + u32((corner >> 2) & 1)
    if dense:
        return u64(x + side * (y + side * z))
    return u64((x ^ (y * PRIME_Y) ^ (z * PRIME_Z)) & mask)


@no_type_check
@njit(inline="always", **FAST)
def _factors(fx, fy, fz, corner):
    return (
        fx if corner & 1 else ONE - fx,
        fy if corner & 2 else ONE - fy,
        fz if corner & 4 else ONE - fz,
    )


@no_type_check
@njit(inline="always", **FAST)
def _slopes(wx, wy, wz, corner):
    """Derivative of a corner's weight along the axes, in units of 1 / cell."""
    return (
        wy * wz if corner & 1 else -(wy * wz),
        wx * wz if corner & 2 else -(wx * wz),
        wx * wy if corner & 4 else -(wx * wy),
    )


@no_type_check
@njit(inline="always", **FAST)
def _weight(fx, fy, fz, corner, direction, i, cells):
    wx, wy, wz = _factors(fx, fy, fz, corner)
    if direction is None:
        return wx * wy * wz
    sx, sy, sz = _slopes(wx, wy, wz, corner)
    return (sx * direction[i, 0] + sy * direction[i, 1] + sz * direction[i, 2]) * f32(cells)


@no_type_check
@njit(parallel=True, **FAST)
def gather(points, direction, table, resolutions, dense, feature, out):
    """Interpolate features: out [n, levels * features] = sum over the corners of weight * table entry."""
    n, mask = len(points), u32(table.shape[1] - 1)
    for block in prange((n + BLOCK - 1) // BLOCK):
        for level in range(len(resolutions)):
            cells = resolutions[level]
            side, first = u32(cells + u32(1)), level * len(feature)
            for i in range(block * BLOCK, min(n, (block + 1) * BLOCK)):
                ix, iy, iz, fx, fy, fz = _cell(points, i, cells)
                for f in range(len(feature)):
                    out[i, first + f] = ZERO
                for corner in range(8):
                    entry = _entry(ix, iy, iz, corner, side, dense[level], mask)
                    weight = _weight(fx, fy, fz, corner, direction, i, cells)
                    for f in range(len(feature)):
                        out[i, first + f] += weight * table[level, entry, f]


@no_type_check
@njit(parallel=True, **FAST)
def scatter(points, direction, cotangent, resolutions, dense, feature, g_table):
    """The transpose of `gather`: add to g_table. One thread processes a level, so that sums have a fixed order."""
    mask = u32(g_table.shape[1] - 1)
    for level in prange(len(resolutions)):
        cells = resolutions[level]
        side, first = u32(cells + u32(1)), level * len(feature)
        for i in range(len(points)):
            ix, iy, iz, fx, fy, fz = _cell(points, i, cells)
            for corner in range(8):
                entry = _entry(ix, iy, iz, corner, side, dense[level], mask)
                weight = _weight(fx, fy, fz, corner, direction, i, cells)
                for f in range(len(feature)):
                    g_table[level, entry, f] += weight * cotangent[i, first + f]


@no_type_check
@njit(parallel=True, **FAST)
def point_gradient(points, table, cotangent, resolutions, dense, feature, out):
    """Differentiate `gather`: out [n 3] = derivative of sum(cotangent * features) with respect to the points."""
    n, mask = len(points), u32(table.shape[1] - 1)
    for block in prange((n + BLOCK - 1) // BLOCK):
        first_point, last_point = block * BLOCK, min(n, (block + 1) * BLOCK)
        out[first_point:last_point] = ZERO
        for level in range(len(resolutions)):
            cells = resolutions[level]
            side, first = u32(cells + u32(1)), level * len(feature)
            for i in range(first_point, last_point):
                ix, iy, iz, fx, fy, fz = _cell(points, i, cells)
                gx = gy = gz = ZERO
                for corner in range(8):
                    entry = _entry(ix, iy, iz, corner, side, dense[level], mask)
                    value = ZERO
                    for f in range(len(feature)):
                        value += table[level, entry, f] * cotangent[i, first + f]
                    wx, wy, wz = _factors(fx, fy, fz, corner)
                    sx, sy, sz = _slopes(wx, wy, wz, corner)
                    gx += sx * value
                    gy += sy * value
                    gz += sz * value
                out[i, 0] += gx * f32(cells)
                out[i, 1] += gy * f32(cells)
                out[i, 2] += gz * f32(cells)
