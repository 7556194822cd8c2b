"""Compiled kernels of ray marching and of sums along rays; `reference` is the reference implementation in torch.

Samples are packed: those of ray r are starts[r] to starts[r + 1], front to back.
"""

import math
from typing import no_type_check

import numpy as np
from numba import njit, prange

from ...jit import EXACT, FAST

f32 = np.float32
ZERO, ONE, HALF = f32(0.0), f32(1.0), f32(0.5)
SMALLEST_SLOPE = f32(1e-9)


@no_type_check
@njit(inline="always", **EXACT)
def _cell(position, bound, resolution):
    return min(max(int((position / bound + ONE) * HALF * f32(resolution)), 0), resolution - 1)


@no_type_check
@njit(inline="always", **EXACT)
def _interval(origin, direction, bound, near):
    """Distances at which the ray enters and leaves the box."""
    enter, leave = near, f32(np.inf)
    for axis in range(3):
        slope = direction[axis] if abs(direction[axis]) > SMALLEST_SLOPE else SMALLEST_SLOPE
        one, other = (-bound - origin[axis]) / slope, (bound - origin[axis]) / slope
        enter, leave = max(enter, min(one, other)), min(leave, max(one, other))
    return enter, leave


# The next two kernels use IEEE arithmetic: they must agree with each other and with the reference on every sample.
@no_type_check
@njit(parallel=True, **EXACT)
def count(origins, directions, offsets, occupied, bound, step, near, counts):
    """Number of samples per ray."""
    resolution = occupied.shape[0]
    for ray in prange(len(origins)):
        origin, direction = origins[ray], directions[ray]
        enter, leave = _interval(origin, direction, bound, near)
        found, k = 0, 0
        t = enter + offsets[ray] * step
        while t < leave:
            x = _cell(origin[0] + t * direction[0], bound, resolution)
            y = _cell(origin[1] + t * direction[1], bound, resolution)
            z = _cell(origin[2] + t * direction[2], bound, resolution)
            found += occupied[x, y, z]
            k += 1
            t = enter + (f32(k) + offsets[ray]) * step
        counts[ray] = found


@no_type_check
@njit(parallel=True, **EXACT)
def fill(origins, directions, offsets, occupied, bound, step, near, starts, points, distances, rays):
    """Write points, distances and ray indices of the samples that `count` has counted."""
    resolution = occupied.shape[0]
    for ray in prange(len(origins)):
        i = starts[ray]
        if i == starts[ray + 1]:
            continue
        origin, direction = origins[ray], directions[ray]
        enter, leave = _interval(origin, direction, bound, near)
        k = 0
        t = enter + offsets[ray] * step
        while t < leave:
            px, py, pz = origin[0] + t * direction[0], origin[1] + t * direction[1], origin[2] + t * direction[2]
            if occupied[_cell(px, bound, resolution), _cell(py, bound, resolution), _cell(pz, bound, resolution)]:
                points[i, 0], points[i, 1], points[i, 2] = px, py, pz
                distances[i] = t
                rays[i] = ray
                i += 1
            k += 1
            t = enter + (f32(k) + offsets[ray]) * step


@no_type_check
@njit(parallel=True, **FAST)
def weights(optical, starts, out):
    """Rendering weights: out = T (1 - exp(-optical)) with the transmittance T = exp(-sum of optical in front)."""
    for ray in prange(len(starts) - 1):
        front = ZERO
        for i in range(starts[ray], starts[ray + 1]):
            out[i] = -math.exp(-front) * math.expm1(-optical[i])
            front += optical[i]


@no_type_check
@njit(parallel=True, **FAST)
def weights_backward(optical, starts, weight, g_weight, g_optical):
    """Gradient of `weights`: d w_i / d s_i = T_i exp(-s_i), and d w_j / d s_i = -w_j for every j behind i."""
    for ray in prange(len(starts) - 1):
        first, last = starts[ray], starts[ray + 1]
        front = ZERO
        for i in range(first, last):
            front += optical[i]
            g_optical[i] = g_weight[i] * math.exp(-front)
        behind = ZERO
        for i in range(last - 1, first - 1, -1):
            g_optical[i] -= behind
            behind += g_weight[i] * weight[i]


@no_type_check
@njit(parallel=True, **FAST)
def accumulate(weight, values, starts, out):
    """Composite along each ray: out [rays c] = sum of weight * value."""
    for ray in prange(len(starts) - 1):
        for c in range(values.shape[1]):
            out[ray, c] = ZERO
        for i in range(starts[ray], starts[ray + 1]):
            for c in range(values.shape[1]):
                out[ray, c] += weight[i] * values[i, c]


@no_type_check
@njit(parallel=True, **FAST)
def accumulate_backward(weight, values, starts, g_out, g_weight, g_values):
    """Gradient of `accumulate` in the weights and the values."""
    for ray in prange(len(starts) - 1):
        for i in range(starts[ray], starts[ray + 1]):
            along = ZERO
            for c in range(values.shape[1]):
                along += values[i, c] * g_out[ray, c]
                g_values[i, c] = weight[i] * g_out[ray, c]
            g_weight[i] = along
