"""The volumetric field of Gaussians at points, with 3D binning instead of a sum over all Gaussians per point."""

from __future__ import annotations

import math
from typing import no_type_check

import numpy as np
import torch
from jaxtyping import Float
from numba import njit, prange
from torch import Tensor

from ...jit import FAST
from .geometry import rotation_matrices
from .semantics import MIN_ALPHA

f32 = np.float32
POINTS_PER_CELL = 32
MAXIMUM_RESOLUTION = 64
MAXIMUM_PAIRS = 2**25
"""Maximum number of (cell, Gaussian) pairs; the grid is coarsened until it has no more."""


def gaussian_field(
    points: Float[Tensor, "p 3"],
    means: Float[Tensor, "n 3"],
    quaternions: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colors: Float[Tensor, "n 3"],
) -> tuple[Float[Tensor, " p"], Float[Tensor, "p 3"]]:
    """Density `sum_i w_i` and color `sum_i w_i c_i / sum_i w_i` with `w_i = opacity_i exp(-d_i^2 / 2)`.

    d_i is the Mahalanobis distance. Terms below 1/255 are omitted, as in an image; without any term, both are 0. It is
    computed on the CPU in float32, without gradient; the results are on the device of the points.
    """
    axes = rotation_matrices(quaternions) * scales[:, None]
    half_sizes = (2 * (opacities / MIN_ALPHA).clamp_min(1).log()).sqrt()[:, None] * axes.norm(dim=-1)
    whiten = rotation_matrices(quaternions).transpose(1, 2) / scales[..., None]
    arrays = [
        t.detach().float().cpu().contiguous().numpy() for t in (points, means, half_sizes, whiten, opacities, colors)
    ]
    positions, centers, halves, *_ = arrays
    out = np.zeros((len(points), 4), np.float32)
    if len(points) and len(means):
        low, high = positions.min(0), positions.max(0)
        resolution = max(1, min(MAXIMUM_RESOLUTION, round((len(points) / POINTS_PER_CELL) ** (1 / 3))))
        boxes = _boxes(centers, halves, low, high, resolution)
        while resolution > 1 and _pairs(boxes) > MAXIMUM_PAIRS:
            resolution //= 2
            boxes = _boxes(centers, halves, low, high, resolution)
        cells = _cells(positions, low, high, resolution) @ np.array([resolution**2, resolution, 1])
        point_order = np.argsort(cells, kind="stable")
        point_starts = np.searchsorted(cells[point_order], np.arange(resolution**3 + 1))
        starts, ids = _bin(boxes, resolution)
        arguments = [point_starts, point_order, starts, ids, *arrays, out]
        _evaluate(*arguments)
    result = torch.from_numpy(out).to(points.device)
    return result[:, 0], result[:, 1:]


def _cells(positions: np.ndarray, low: np.ndarray, high: np.ndarray, resolution: int) -> np.ndarray:
    width = np.maximum(high - low, 1e-9) / resolution
    return np.clip((positions - low) / width, -1, resolution).astype(np.int64).clip(0, resolution - 1)


def _boxes(centers: np.ndarray, halves: np.ndarray, low: np.ndarray, high: np.ndarray, resolution: int) -> np.ndarray:
    """First and last (exclusive) cell along each axis, [n 6]; empty for Gaussians outside the box of the points."""
    first = _cells(centers - halves, low, high, resolution)
    last = _cells(centers + halves, low, high, resolution) + 1
    outside = ((centers + halves < low) | (centers - halves > high) | (halves <= 0)).any(1)
    last[outside] = first[outside]
    return np.concatenate([first, last], 1)


def _pairs(boxes: np.ndarray) -> int:
    return int((boxes[:, 3:] - boxes[:, :3]).prod(1).sum())


@no_type_check
@njit(**FAST)
def _bin(boxes, resolution):
    """List the Gaussians of every cell by ascending index: the start of each list, and the concatenated lists."""
    count = np.zeros(resolution**3 + 1, np.int64)
    for g in range(boxes.shape[0]):
        for x in range(boxes[g, 0], boxes[g, 3]):
            for y in range(boxes[g, 1], boxes[g, 4]):
                for z in range(boxes[g, 2], boxes[g, 5]):
                    count[(x * resolution + y) * resolution + z + 1] += 1
    starts = np.cumsum(count)
    position = starts[:-1].copy()
    ids = np.empty(starts[-1], np.int32)
    for g in range(boxes.shape[0]):
        for x in range(boxes[g, 0], boxes[g, 3]):
            for y in range(boxes[g, 1], boxes[g, 4]):
                for z in range(boxes[g, 2], boxes[g, 5]):
                    cell = (x * resolution + y) * resolution + z
                    ids[position[cell]] = g
                    position[cell] += 1
    return starts, ids


@no_type_check
@njit(parallel=True, **FAST)
def _evaluate(point_starts, point_order, starts, ids, points, means, half_sizes, whiten, opacities, colors, out):
    smallest = f32(MIN_ALPHA)
    for cell in prange(starts.size - 1):
        for j in range(point_starts[cell], point_starts[cell + 1]):
            p = point_order[j]
            density = red = green = blue = f32(0.0)
            for k in range(starts[cell], starts[cell + 1]):
                g = ids[k]
                dx, dy, dz = points[p, 0] - means[g, 0], points[p, 1] - means[g, 1], points[p, 2] - means[g, 2]
                if abs(dx) > half_sizes[g, 0] or abs(dy) > half_sizes[g, 1] or abs(dz) > half_sizes[g, 2]:
                    continue
                distance = f32(0.0)
                for i in range(3):
                    along = whiten[g, i, 0] * dx + whiten[g, i, 1] * dy + whiten[g, i, 2] * dz
                    distance += along * along
                w = opacities[g] * math.exp(f32(-0.5) * distance)
                if w >= smallest:
                    density += w
                    red += w * colors[g, 0]
                    green += w * colors[g, 1]
                    blue += w * colors[g, 2]
            out[p, 0] = density
            if density > f32(0.0):
                out[p, 1], out[p, 2], out[p, 3] = red / density, green / density, blue / density
