"""Compiled interpolation at the covered pixels, and its gradient.

With the perspective-correct weights b, the linear screen-space weights l and the depths z of the corners,
b_i = (l_i / z_i) / sum_j (l_j / z_j). The value is sum_i b_i a_i, and the depth of the pixel sum_i b_i z_i. Moving
corner j on the screen moves the projected triangle under the pixel: dl/dx_j = -l_j dl/dx.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit, prange

from ...jit import EXACT

PARTS = 4
"""Number of partial sums of the gradient; fixed, so that its bits do not depend on the number of threads."""


@njit(parallel=True, **EXACT)
@no_type_check
def values_kernel(
    pixels: np.ndarray,
    triangle: np.ndarray,
    barycentrics: np.ndarray,
    faces: np.ndarray,
    area: int,
    screen: np.ndarray,
    attributes: np.ndarray,
    out: np.ndarray,
) -> None:
    """Write out [n c+1]: attributes and depth at the flat pixel indices.

    `triangle` [b h w] and `barycentrics` [b h w 3] are flattened; `area` is h w.
    """
    channels = attributes.shape[1]
    for i in prange(pixels.shape[0]):
        pixel = pixels[i]
        camera, face = pixel // area, triangle[pixel]
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        wa, wb, wc = barycentrics[pixel, 0], barycentrics[pixel, 1], barycentrics[pixel, 2]
        for channel in range(channels):
            out[i, channel] = wa * attributes[a, channel] + wb * attributes[b, channel] + wc * attributes[c, channel]
        out[i, channels] = wa * screen[camera, a, 2] + wb * screen[camera, b, 2] + wc * screen[camera, c, 2]


@njit(parallel=True, **EXACT)
@no_type_check
def values_backward_kernel(
    pixels: np.ndarray,
    triangle: np.ndarray,
    barycentrics: np.ndarray,
    faces: np.ndarray,
    area: int,
    screen: np.ndarray,
    attributes: np.ndarray,
    g_out: np.ndarray,
    g_screen: np.ndarray,
    g_attributes: np.ndarray,
) -> None:
    """Add the gradients to g_screen [PARTS b v 3] and g_attributes [PARTS v c], one part per block of pixels."""
    channels = attributes.shape[1]
    count = pixels.shape[0]
    for part in prange(PARTS):
        gs, ga = g_screen[part], g_attributes[part]
        corner = np.empty(3, np.int64)
        weight = np.empty(3, np.float64)
        g_weight = np.empty(3, np.float64)
        for i in range(count * part // PARTS, count * (part + 1) // PARTS):
            pixel = pixels[i]
            camera, face = pixel // area, triangle[pixel]
            g_depth = np.float64(g_out[i, channels])
            depth = 0.0
            mean = 0.0
            for j in range(3):
                corner[j] = faces[face, j]
                weight[j] = barycentrics[pixel, j]
                weight_32 = np.float32(weight[j])
                z = np.float64(screen[camera, corner[j], 2])
                depth += weight[j] * z
                total = g_depth * z
                for channel in range(channels):
                    g = g_out[i, channel]
                    total += g * attributes[corner[j], channel]
                    ga[corner[j], channel] += weight_32 * g
                g_weight[j] = total
                mean += weight[j] * total
            a, b, c = corner[0], corner[1], corner[2]
            xa, xb, xc = (
                np.float64(screen[camera, a, 0]),
                np.float64(screen[camera, b, 0]),
                np.float64(screen[camera, c, 0]),
            )
            ya, yb, yc = (
                np.float64(screen[camera, a, 1]),
                np.float64(screen[camera, b, 1]),
                np.float64(screen[camera, c, 1]),
            )
            twice = (xb - xa) * (yc - ya) - (xc - xa) * (yb - ya)
            za, zb, zc = (
                np.float64(screen[camera, a, 2]),
                np.float64(screen[camera, b, 2]),
                np.float64(screen[camera, c, 2]),
            )
            # Gradients of the linear weights; only their differences matter, since the weights sum to 1.
            ra = (g_weight[0] - mean) * depth / za
            rb = (g_weight[1] - mean) * depth / zb
            rc = (g_weight[2] - mean) * depth / zc
            gx = (ra * (yb - yc) + rb * (yc - ya) + rc * (ya - yb)) / twice
            gy = (ra * (xc - xb) + rb * (xa - xc) + rc * (xb - xa)) / twice
            for j in range(3):
                z = np.float64(screen[camera, corner[j], 2])
                linear = weight[j] * z / depth
                gs[camera, corner[j], 0] -= np.float32(linear * gx)
                gs[camera, corner[j], 1] -= np.float32(linear * gy)
                gs[camera, corner[j], 2] += np.float32(weight[j] * (g_depth - (g_weight[j] - mean) / z))
