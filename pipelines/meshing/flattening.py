"""Flattening of charts by least-squares conformal maps [Levy et al. 2002]."""

from __future__ import annotations

from typing import no_type_check

import numpy as np
from jaxtyping import Bool, Float, Int
from numba import njit
from scipy.sparse import csc_matrix
from scipy.sparse.linalg import splu

from steindreamer.representations.jit import EXACT

_STRETCH = 4.0
"""Largest ratio of a face's scale in the plane to that of its chart, or the other way around."""
_SAMPLES = 128
"""Cells along the longer side of a chart in which its faces must not overlap."""


def flatten(
    points: Float[np.ndarray, "n 3"], corners: Int[np.ndarray, "f 3"], chart: Int[np.ndarray, " f"]
) -> Float[np.ndarray, "n 2"]:
    """Positions of the charts in the plane, each with the area that it has in space, faces counterclockwise.

    Args:
        points: positions of the charts' vertices, which no two charts have in common.
        corners: rows of `points`.
        chart: chart of each face, from 0.
    """
    matrix = _conformal(points, corners)
    count = len(points)
    pins = _pins(points, corners, chart)
    fixed = np.concatenate([pins.ravel(), count + pins.ravel()])
    span = np.linalg.norm(points[pins[:, 0]] - points[pins[:, 1]], axis=1)
    values = np.zeros((len(pins), 2))
    values[:, 1] = span
    known = np.concatenate([values.ravel(), np.zeros(pins.size)])
    free = np.setdiff1d(np.arange(2 * count), fixed)
    inner = matrix[:, free]
    normal = (inner.T @ inner).tocsc()
    normal = normal + csc_matrix((np.full(len(free), 1e-12), (range(len(free)),) * 2), normal.shape)
    solution = np.empty(2 * count)
    solution[fixed] = known
    solution[free] = splu(normal).solve(-(inner.T @ (matrix[:, fixed] @ known)))
    flat = solution.reshape(2, count).T
    own, true = signed_areas(flat, corners), _areas(points, corners)
    ratio = np.bincount(chart, true) / np.maximum(np.abs(np.bincount(chart, own)), 1e-30)
    owner = np.empty(count, np.int64)
    owner[corners.ravel()] = np.repeat(chart, 3)
    return flat * np.sqrt(ratio)[owner, None]


def invalid_charts(
    points: Float[np.ndarray, "n 3"],
    flat: Float[np.ndarray, "n 2"],
    corners: Int[np.ndarray, "f 3"],
    chart: Int[np.ndarray, " f"],
) -> Bool[np.ndarray, " c"]:
    """Charts that overlap themselves, or scale a part too differently."""
    own, true = signed_areas(flat, corners), _areas(points, corners)
    total = np.bincount(chart, true)
    scale = np.sqrt(np.maximum(own, 0) / np.maximum(true, 1e-30))
    far = (scale > _STRETCH) | (scale < 1 / _STRETCH)
    # Needles may be turned over by rounding; they show nothing.
    bad = np.bincount(chart, true * far) > 1e-3 * total
    for index in np.unique(chart):
        if not bad[index]:
            bad[index] = _overlaps(flat[corners[chart == index]])
    return bad


def signed_areas(flat: Float[np.ndarray, "n 2"], corners: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, " f"]:
    """Areas in the plane, positive for counterclockwise faces."""
    first, second, third = flat[corners].swapaxes(0, 1)
    one, two = second - first, third - first
    return 0.5 * (one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0])


def _areas(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    first, second, third = points[corners].swapaxes(0, 1)
    return 0.5 * np.linalg.norm(np.cross(second - first, third - first), axis=1)


def _conformal(points: np.ndarray, corners: np.ndarray) -> csc_matrix:
    """Cauchy-Riemann equations of every face for the stacked coordinates, weighted by the root of its area."""
    first, second, third = points[corners].swapaxes(0, 1)
    along, side = second - first, third - first
    length = np.maximum(np.linalg.norm(along, axis=1), 1e-15)
    x = (along * side).sum(1) / length
    y = np.linalg.norm(np.cross(along, side), axis=1) / length
    # Corners at (0, 0), (length, 0), (x, y): the edges opposite to them, as complex numbers.
    edges = np.stack([np.stack([x - length, -x, length], 1), np.stack([y, -y, np.zeros_like(y)], 1)])
    edges = edges / np.sqrt(np.maximum(length * y, 1e-18))[None, :, None]
    rows = np.repeat(np.arange(len(corners)), 3)
    columns, real, imaginary = corners.ravel(), edges[0].ravel(), edges[1].ravel()
    shape = 2 * len(corners), 2 * len(points)
    entries = [
        (real, rows, columns), (-imaginary, rows, len(points) + columns),
        (imaginary, len(corners) + rows, columns), (real, len(corners) + rows, len(points) + columns),
    ]  # fmt: skip
    values, row, column = (np.concatenate(each) for each in zip(*entries, strict=True))
    return csc_matrix((values, (row, column)), shape)


def _pins(points: np.ndarray, corners: np.ndarray, chart: np.ndarray) -> Int[np.ndarray, "c 2"]:
    """Two vertices of each chart that are far from each other."""
    pins = np.empty((chart.max() + 1, 2), np.int64)
    for index in range(len(pins)):
        rows = np.unique(corners[chart == index])
        far = _farthest(points, rows, int(rows[0]))
        pins[index] = far, _farthest(points, rows, far)
    return pins


def _farthest(points: np.ndarray, rows: np.ndarray, start: int) -> int:
    return int(rows[((points[rows] - points[start]) ** 2).sum(1).argmax()])


def _overlaps(triangles: Float[np.ndarray, "f 3 2"]) -> bool:
    low = triangles.min((0, 1))
    cell = float((triangles.max((0, 1)) - low).max()) / _SAMPLES
    counts = np.zeros((_SAMPLES + 1, _SAMPLES + 1), np.int64)
    _count((triangles - low) / max(cell, 1e-30), counts)
    return int((counts > 1).sum()) > 1e-3 * int((counts > 0).sum()) + 1


@njit(**EXACT)
@no_type_check
def _count(triangles, counts):
    """Count the faces over every cell's center; those at an edge do not count."""
    for f in range(triangles.shape[0]):
        ax, ay = triangles[f, 0]
        bx, by = triangles[f, 1]
        cx, cy = triangles[f, 2]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0:
            continue
        for row in range(max(int(min(ay, by, cy)), 0), min(int(max(ay, by, cy)) + 1, counts.shape[0])):
            for column in range(max(int(min(ax, bx, cx)), 0), min(int(max(ax, bx, cx)) + 1, counts.shape[1])):
                x, y = column + 0.5, row + 0.5
                one = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / area
                two = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / area
                if min(one, two, 1 - one - two) > 1e-6:
                    counts[row, column] += 1
