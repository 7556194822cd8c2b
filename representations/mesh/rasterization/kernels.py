"""Compiled kernels of the rasterizer.

No fast-math: edge functions of snapped pixel coordinates are exact in float64, so two triangles with a common edge
never both miss a pixel. Every pixel is written by one thread, in face order.
"""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
from numba import njit, prange

from ...jit import EXACT

# `no_type_check` on every kernel: numba cannot compile the wrapper of a runtime type checker (the tests' import hook).


@njit(parallel=True, **EXACT)
@no_type_check
def rasterize_kernel(
    screen: np.ndarray,
    faces: np.ndarray,
    near: float,
    stripes: int,
    triangle: np.ndarray,
    barycentrics: np.ndarray,
    depth: np.ndarray,
    front: np.ndarray,
) -> None:
    """Write the four buffers of `Fragments`.

    `screen` [b v 3] has pixel x, pixel y, z-depth. Stripe s consists of the rows s, s + stripes, ...
    """
    batch, height, _ = triangle.shape
    for task in prange(batch * stripes):
        camera, stripe = task // stripes, task % stripes
        points = screen[camera]
        for y in range(stripe, height, stripes):
            triangle[camera, y] = -1
            depth[camera, y] = 0.0
        _nearest(points, faces, near, stripe, stripes, triangle[camera], depth[camera])
        for y in range(stripe, height, stripes):
            _resolve_row(points, faces, y, triangle[camera], barycentrics[camera], depth[camera], front[camera])


@njit(**EXACT)
@no_type_check
def _nearest(
    points: np.ndarray,
    faces: np.ndarray,
    near: float,
    stripe: int,
    stripes: int,
    triangle: np.ndarray,
    inverse_depth: np.ndarray,
) -> None:
    """Rasterize with a z-buffer over the rows of a stripe, with 1/z, which is linear in screen space."""
    height, width = triangle.shape
    for face in range(faces.shape[0]):
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        za, zb, zc = np.float64(points[a, 2]), np.float64(points[b, 2]), np.float64(points[c, 2])
        if not (za > near and zb > near and zc > near):
            continue
        ya, yb, yc = np.float64(points[a, 1]), np.float64(points[b, 1]), np.float64(points[c, 1])
        first = int(max(math.ceil(min(ya, yb, yc) - 0.5), 0.0))
        last = int(min(math.floor(max(ya, yb, yc) - 0.5), height - 1.0))
        first += (stripe - first) % stripes
        if first > last:
            continue
        xa, xb, xc = np.float64(points[a, 0]), np.float64(points[b, 0]), np.float64(points[c, 0])
        left = int(max(math.ceil(min(xa, xb, xc) - 0.5), 0.0))
        right = int(min(math.floor(max(xa, xb, xc) - 0.5), width - 1.0))
        if left > right:
            continue
        area = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
        if not 0.0 < abs(area) < math.inf:
            continue
        sign = 1.0 if area > 0 else -1.0
        ia, ib, ic = 1.0 / (za * abs(area)), 1.0 / (zb * abs(area)), 1.0 / (zc * abs(area))
        # Edge functions, positive inside, as the difference of two exact products.
        ax, bx, cx = sign * (yc - yb), sign * (ya - yc), sign * (yb - ya)
        ay, by, cy = sign * (xc - xb), sign * (xa - xc), sign * (xb - xa)
        for y in range(first, last + 1, stripes):
            py = y + 0.5
            ra, rb, rc = ay * (py - yb), by * (py - yc), cy * (py - ya)
            entered = False
            for x in range(left, right + 1):
                px = x + 0.5
                ea = ra - ax * (px - xb)
                eb = rb - bx * (px - xc)
                ec = rc - cx * (px - xa)
                if ea >= 0 and eb >= 0 and ec >= 0:
                    entered = True
                    inverse = np.float32(ea * ia + eb * ib + ec * ic)
                    if inverse > inverse_depth[y, x]:
                        inverse_depth[y, x] = inverse
                        triangle[y, x] = face
                elif entered:
                    break


@njit(**EXACT)
@no_type_check
def _resolve_row(
    points: np.ndarray,
    faces: np.ndarray,
    y: int,
    triangle: np.ndarray,
    barycentrics: np.ndarray,
    depth: np.ndarray,
    front: np.ndarray,
) -> None:
    """Write barycentrics, depth and facing of the visible triangles; `depth` is 1/z on entry and z on return."""
    py = y + 0.5
    for x in range(triangle.shape[1]):
        face = triangle[y, x]
        if face < 0:
            barycentrics[y, x, 0] = barycentrics[y, x, 1] = barycentrics[y, x, 2] = 0.0
            front[y, x] = False
            continue
        px = x + 0.5
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        xa, xb, xc = np.float64(points[a, 0]), np.float64(points[b, 0]), np.float64(points[c, 0])
        ya, yb, yc = np.float64(points[a, 1]), np.float64(points[b, 1]), np.float64(points[c, 1])
        wa = ((xc - xb) * (py - yb) - (yc - yb) * (px - xb)) / np.float64(points[a, 2])
        wb = ((xa - xc) * (py - yc) - (ya - yc) * (px - xc)) / np.float64(points[b, 2])
        wc = ((xb - xa) * (py - ya) - (yb - ya) * (px - xa)) / np.float64(points[c, 2])
        total = wa + wb + wc
        barycentrics[y, x, 0], barycentrics[y, x, 1], barycentrics[y, x, 2] = wa / total, wb / total, wc / total
        depth[y, x] = 1.0 / depth[y, x]
        # With pixel y pointing down, counter-clockwise winding has negative area.
        front[y, x] = total < 0.0


@njit(parallel=True, **EXACT)
@no_type_check
def interpolate_kernel(
    triangle: np.ndarray, barycentrics: np.ndarray, faces: np.ndarray, attributes: np.ndarray, out: np.ndarray
) -> None:
    """Interpolate: out [b c h w] = sum over the corners of the triangle of weight * attribute [v c]."""
    batch, channels, height, width = out.shape
    for row in prange(batch * height):
        camera, y = row // height, row % height
        for x in range(width):
            face = triangle[camera, y, x]
            if face < 0:
                for channel in range(channels):
                    out[camera, channel, y, x] = 0.0
                continue
            a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
            wa, wb, wc = barycentrics[camera, y, x, 0], barycentrics[camera, y, x, 1], barycentrics[camera, y, x, 2]
            for channel in range(channels):
                out[camera, channel, y, x] = (
                    wa * attributes[a, channel] + wb * attributes[b, channel] + wc * attributes[c, channel]
                )


@njit(parallel=True, **EXACT)
@no_type_check
def resolve_kernel(
    triangle: np.ndarray,
    barycentrics: np.ndarray,
    faces: np.ndarray,
    attributes: np.ndarray,
    background: np.ndarray,
    out: np.ndarray,
) -> None:
    """Average over samples: out [b c h w] = mean over a pixel's samples of the attribute [v c].

    Empty samples use the background [b c].
    """
    batch, channels, height, width = out.shape
    samples = triangle.shape[1] // height
    fraction = np.float32(1.0 / samples**2)
    for row in prange(batch * height):
        camera, y = row // height, row % height
        for channel in range(channels):
            out[camera, channel, y, :] = 0.0
        for sample in range(samples * samples):
            fine_y = y * samples + sample // samples
            for x in range(width):
                fine_x = x * samples + sample % samples
                face = triangle[camera, fine_y, fine_x]
                if face < 0:
                    for channel in range(channels):
                        out[camera, channel, y, x] += fraction * background[camera, channel]
                    continue
                a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
                wa = fraction * barycentrics[camera, fine_y, fine_x, 0]
                wb = fraction * barycentrics[camera, fine_y, fine_x, 1]
                wc = fraction * barycentrics[camera, fine_y, fine_x, 2]
                for channel in range(channels):
                    out[camera, channel, y, x] += (
                        wa * attributes[a, channel] + wb * attributes[b, channel] + wc * attributes[c, channel]
                    )
