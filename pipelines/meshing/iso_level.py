"""The iso level of a volume whose silhouettes agree best with those of the representation."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
import torch
from numba import njit, prange

from steindreamer.representations.jit import EXACT

from .tsdf import Grid, Volume
from .views import Views

_JUDGING_VIEWS = 16
_JUDGING_SIZE = 128


def best_level(volume: Volume, grid: Grid, views: Views, level: float) -> float:
    """The level whose silhouettes have the largest IoU with the representation's.

    The silhouette of a level set consists of the rays whose largest value exceeds the level, so that one
    maximum-intensity projection per view evaluates all levels at once. Raises ValueError for an empty volume, or one
    with values that are not finite.

    Args:
        volume: inside values on the grid.
        grid: the grid of the volume.
        views: the images of the representation.
        level: opacity from which a pixel of the images is solid.
    """
    if not np.isfinite(volume).all():
        raise ValueError("the scene's density is not finite everywhere; did the run diverge?")
    step = max(1, len(views.cameras) // _JUDGING_VIEWS)
    chosen = views[::step]
    size = min(_JUDGING_SIZE, chosen.cameras.height)
    cameras = chosen.cameras.resized(size)
    target = torch.nn.functional.interpolate(chosen.opacity, size=(size, size), mode="area")[:, 0].numpy() > level
    projected = np.full(target.shape, volume.min(), np.float32)
    directions = torch.nn.functional.normalize(cameras.rays(), dim=1)
    _project_kernel(
        volume,
        ((cameras.position.numpy() - grid.origin) / grid.voxel).astype(np.float32),
        directions.contiguous().numpy(),
        projected,
    )
    reached = projected[projected > volume.min()]
    if reached.size == 0:
        raise ValueError("no view shows any part of the scene inside the grid; is it smaller than a voxel?")
    levels = np.unique(np.quantile(reached, np.linspace(0, 1, 257)))
    scores = np.array([_iou(projected > value, target) for value in levels])
    # The optimum is flat; the median is more stable than the maximum.
    return float(np.median(levels[scores >= scores.max() - 0.002]))


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


@njit(parallel=True, **EXACT)
@no_type_check
def _project_kernel(volume, eyes, directions, out):
    """Largest value along every ray, sampled trilinearly once per voxel. Eyes are in voxels from the first corner."""
    count, height, width = out.shape
    for row in prange(count * height):
        v, h = row // height, row % height
        for w in range(width):
            near, far = 0.0, 1e30
            for a in range(3):
                direction, eye, top = directions[v, a, h, w], eyes[v, a], volume.shape[a] - 1.001
                if abs(direction) < 1e-9:
                    if eye < 0 or eye > top:
                        far = -1.0
                    continue
                first, second = -eye / direction, (top - eye) / direction
                near, far = max(near, min(first, second)), min(far, max(first, second))
            best = out[v, h, w]
            t = near + 1e-3
            while t < far:
                x = eyes[v, 0] + t * directions[v, 0, h, w]
                y = eyes[v, 1] + t * directions[v, 1, h, w]
                z = eyes[v, 2] + t * directions[v, 2, h, w]
                i, j, k = int(x), int(y), int(z)
                a, b, c = x - i, y - j, z - k
                low = (1 - b) * ((1 - c) * volume[i, j, k] + c * volume[i, j, k + 1])
                low += b * ((1 - c) * volume[i, j + 1, k] + c * volume[i, j + 1, k + 1])
                high = (1 - b) * ((1 - c) * volume[i + 1, j, k] + c * volume[i + 1, j, k + 1])
                high += b * ((1 - c) * volume[i + 1, j + 1, k] + c * volume[i + 1, j + 1, k + 1])
                best = max(best, (1 - a) * low + a * high)
                t += 1.0
            out[v, h, w] = best
