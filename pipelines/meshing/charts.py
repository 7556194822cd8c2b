"""Charts of a surface: connected groups of faces, each flattened to the plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from .flattening import flatten, invalid_charts
from .rectangles import lying
from .segmentation import Surface, partition, straightened

_LARGE = 0.01
"""Fraction of the surface's area below which a chart is not cut to save room."""
_CUTS = 15
"""Number of places along each side of a chart's rectangle at which a cut is tried."""
_SAVING = 0.05
"""Fraction of the rectangle that a cut must save."""


@dataclass(frozen=True)
class Charts:
    """Flat charts. Vertices are split along their borders."""

    origin: Int[np.ndarray, " n"]
    """Vertex of the mesh that each vertex of a chart is."""
    corners: Int[np.ndarray, "f 3"]
    """Vertices of the charts at the corners of the mesh's faces."""
    flat: Float[np.ndarray, "n 2"]
    """Positions in the plane, in the mesh's units, v upward; charts have the area that they have in space."""
    chart: Int[np.ndarray, " f"]
    """Chart of each face, from 0."""


def cut_charts(vertices: Float[np.ndarray, "v 3"], faces: Int[np.ndarray, "f 3"]) -> Charts:
    """Cut a surface into charts that do not overlap themselves and leave little of their rectangles empty."""
    surface = Surface(vertices, faces)
    charts = _flat_charts(surface, partition(surface))
    label = _without_waste(surface, charts)
    if label.max() == charts.chart.max():
        return charts
    return _flat_charts(surface, straightened(surface, label))


def _flat_charts(surface: Surface, label: Int[np.ndarray, " f"]) -> Charts:
    """Flatten charts; those that overlap themselves or stretch too much are halved until none does."""
    while True:
        corners, origin = surface.split(label)
        points = surface.vertices[origin]
        flat = flatten(points, corners, label)
        bad = invalid_charts(points, flat, corners, label) & (np.bincount(label) > 1)
        if not bad.any():
            return Charts(origin, corners, flat, label)
        side = np.zeros(len(label), np.int64)
        for index in np.flatnonzero(bad):
            rows = np.flatnonzero(label == index)
            side[rows] = _upper_half(surface.centers[rows])
        label = surface.connected(2 * label + side)


def _upper_half(points: Float[np.ndarray, "n 3"]) -> Bool[np.ndarray, " n"]:
    """The half of the points that is farther along their longest axis."""
    centered = points - points.mean(0)
    along = centered @ np.linalg.eigh(centered.T @ centered)[1][:, -1]
    half = np.zeros(len(points), bool)
    half[np.argsort(along, kind="stable")[len(points) // 2 :]] = True
    return half


def _without_waste(surface: Surface, charts: Charts) -> Int[np.ndarray, " f"]:
    """Cut charts across their rectangles while the rectangles of the parts are much smaller."""
    label, total = charts.chart.copy(), surface.areas.sum()
    area = np.bincount(label, surface.areas)
    queue = list(np.flatnonzero(area > _LARGE * total))
    while queue:
        index = queue.pop()
        rows = np.flatnonzero(label == index)
        parts = _best_cut(surface, rows, charts)
        if parts is None:
            continue
        label[rows] = np.where(parts == 0, index, label.max() + parts)
        for part in np.unique(label[rows]):
            if surface.areas[label == part].sum() > _LARGE * total:
                queue.append(part)
    return label


def _best_cut(surface: Surface, rows: Int[np.ndarray, " n"], charts: Charts) -> Int[np.ndarray, " n"] | None:
    """The part of each of a chart's faces after the best cut; None if no cut saves enough."""
    corners = charts.corners[rows]
    used, local = np.unique(corners, return_inverse=True)
    triangles = lying(charts.flat[used])[local.reshape(-1, 3)]
    center, whole = triangles.mean(1), np.prod(np.ptp(triangles, axis=(0, 1)))
    joined = surface.connected_within(rows)
    best, found = (1 - _SAVING) * whole, None
    for axis in (0, 1):
        low, high = triangles[..., axis].min(), triangles[..., axis].max()
        for place in np.linspace(low, high, _CUTS + 2)[1:-1]:
            parts = joined(center[:, axis] > place)
            rectangles = sum(np.prod(np.ptp(triangles[parts == part], axis=(0, 1))) for part in range(parts.max() + 1))
            if rectangles < best:
                best, found = rectangles, parts
    return found
