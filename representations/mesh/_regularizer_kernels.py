"""Compiled regularizers: each writes its gradient in the pass that computes its value.

One thread processes all elements, so the bits do not depend on the number of threads.
"""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from numba import njit

from ..jit import EXACT


@njit(**EXACT)
@no_type_check
def consistency_kernel(normals: np.ndarray, faces: np.ndarray, scale: float, gradient: np.ndarray) -> float:
    """Sum over the sides of all faces of d / (d + scale), or of d for a scale of 0, with d = 1 - cosine between the
    normals [v 3] at the ends. Writes the gradient [v 3].
    """
    gradient[:] = 0.0
    total = 0.0
    for face in range(faces.shape[0]):
        for side in range(3):
            a, b = faces[face, side], faces[face, (side + 1) % 3]
            cosine = 0.0
            for j in range(3):
                cosine += normals[a, j] * normals[b, j]
            difference, slope = 1.0 - cosine, 1.0
            if scale > 0.0:
                slope = scale / (difference + scale) ** 2
                difference = difference / (difference + scale)
            total += difference
            for j in range(3):
                gradient[a, j] -= slope * normals[b, j]
                gradient[b, j] -= slope * normals[a, j]
    return total


@njit(**EXACT)
@no_type_check
def variation_kernel(texture: np.ndarray, charts: np.ndarray, gradient: np.ndarray) -> tuple[float, int]:
    """Sum of the absolute differences of neighboring texels [3 h w] of the same chart [h w], and their number. Writes
    the gradient [3 h w] of the sum.
    """
    gradient[:] = 0.0
    total, count = 0.0, 0
    height, width = charts.shape
    for channel in range(texture.shape[0]):
        for y in range(height):
            for x in range(width):
                chart = charts[y, x]
                if chart <= 0:
                    continue
                here = texture[channel, y, x]
                if x + 1 < width and charts[y, x + 1] == chart:
                    difference = here - texture[channel, y, x + 1]
                    sign = np.sign(difference)
                    total += abs(difference)
                    count += 1
                    gradient[channel, y, x] += sign
                    gradient[channel, y, x + 1] -= sign
                if y + 1 < height and charts[y + 1, x] == chart:
                    difference = here - texture[channel, y + 1, x]
                    sign = np.sign(difference)
                    total += abs(difference)
                    count += 1
                    gradient[channel, y, x] += sign
                    gradient[channel, y + 1, x] -= sign
    return total, count
