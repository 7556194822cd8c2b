"""Packing of flat charts into one square texture atlas at the largest scale that fits."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import xatlas
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import ConvexHull

_TRIALS = 12
"""Number of chart orientations that are tried; the atlas holds up to a third more than with the first."""
_REST = 0.002
"""Seconds for the threads of an atlas to fall asleep."""
_GAIN = 1.01
"""Factor on the best scale so far at which another orientation must fit to be refined."""


def pack(charts: np.ndarray, corners: np.ndarray, size: int, padding: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pack charts into an atlas. Returns faces, coordinates in [0, 1] (v downward) and the row of `charts` of each
    vertex.

    Charts keep their relative sizes. They are rotated, never mirrored. Raises ValueError if they do not fit, are not
    finite or have no area.

    Args:
        charts: (n, 2) coordinates.
        corners: (f, 3) rows of `charts`.
        size: size of the texture in texels (square).
        padding: texels between charts.
    """
    if not np.isfinite(charts).all():
        raise ValueError("the charts are not finite")
    best: xatlas.Atlas | None = None
    scale = 0.0
    for turned in _turned(charts, corners):
        if best is None:
            best, scale = _largest(turned, corners, size, padding)
        elif (atlas := _packed(turned, corners, size, padding, scale * _GAIN)) is not None:
            best, scale = _enlarged(turned, corners, size, padding, atlas, scale * _GAIN)
    assert best is not None  # the first orientation fits or raises
    kept, faces, uvs = best.get_mesh(0)
    # xatlas has v upward: in rows of an image, which grow downward, its charts would be mirrored.
    return faces, np.stack([uvs[:, 0], 1 - uvs[:, 1]], 1), kept.astype(np.int64)


def _turned(charts: np.ndarray, corners: np.ndarray) -> Iterator[np.ndarray]:
    """All charts with their minimum-area rectangles axis-aligned and wider than high, then with a random half
    rotated.
    """
    edges = np.concatenate([corners[:, :2], corners[:, 1:]])
    count, chart = connected_components(
        coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (len(charts),) * 2), directed=False
    )
    lying = charts.astype(np.float64)
    for index in range(count):
        rows = chart == index
        lying[rows] = _lying(lying[rows])
    # Separated from each other: xatlas would join charts whose corners coincide.
    apart = np.outer(chart, [3 * np.abs(lying).max(), 0.0])
    rng = np.random.default_rng(0)
    standing = np.zeros(count, dtype=bool)
    for _ in range(_TRIALS):
        rows = standing[chart]
        yield (np.where(rows[:, None], _quarter_turn(lying), lying) + apart).astype(np.float32)
        standing = rng.random(count) < 0.5


def _lying(chart: np.ndarray) -> np.ndarray:
    """The chart rotated so that its smallest rectangle, which shares a side with the convex hull, is wider than
    high.
    """
    hull = chart[ConvexHull(chart, qhull_options="QJ").vertices]
    sides = np.roll(hull, -1, 0) - hull
    sides /= np.linalg.norm(sides, axis=1, keepdims=True).clip(min=1e-12)
    across = np.stack([-sides[:, 1], sides[:, 0]], 1)
    extent = np.stack([np.ptp(hull @ axes.T, axis=0) for axes in (sides, across)])
    smallest = np.argmin(extent[0] * extent[1])
    turned = (chart - hull.mean(0)) @ np.stack([sides[smallest], across[smallest]], 1)
    return turned if extent[0, smallest] >= extent[1, smallest] else _quarter_turn(turned)


def _quarter_turn(points: np.ndarray) -> np.ndarray:
    return np.stack([-points[:, 1], points[:, 0]], 1)


def _largest(charts: np.ndarray, corners: np.ndarray, size: int, padding: int) -> tuple[xatlas.Atlas, float]:
    """The packing at the largest scale that fits, and that scale in texels per unit."""
    triangles = charts[corners].astype(np.float64)
    first, second = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    area = 0.5 * float(np.abs(first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]).sum())
    if not 0 < area < np.inf:
        raise ValueError(f"the charts are too small to be packed: their area is {area:.3g}")
    full = size / np.sqrt(area)  # would need every texel: never fits
    scale = full
    while scale > 1e-3 * full:
        scale *= 0.7
        atlas = _packed(charts, corners, size, padding, scale)
        if atlas is not None:
            return _enlarged(charts, corners, size, padding, atlas, scale)
    raise ValueError(f"the charts do not fit {size} texels with padding {padding}; lower padding")


def _enlarged(
    charts: np.ndarray, corners: np.ndarray, size: int, padding: int, atlas: xatlas.Atlas, low: float
) -> tuple[xatlas.Atlas, float]:
    """Enlarge a packing that fits to the largest scale, to within half a percent."""
    high = low / 0.7
    while high / low > 1.005:
        middle = float(np.sqrt(low * high))
        larger = _packed(charts, corners, size, padding, middle)
        if larger is None:
            high = middle
        else:
            low, atlas = middle, larger
    return atlas, low


def _packed(charts: np.ndarray, corners: np.ndarray, size: int, padding: int, scale: float) -> xatlas.Atlas | None:
    """The atlas, or None if the charts do not fit at this scale."""
    atlas = xatlas.Atlas()
    atlas.add_uv_mesh(charts, corners)
    options = xatlas.PackOptions()
    options.rotate_charts = False  # it would swap u and v, which mirrors
    options.rotate_charts_to_axis = False  # they are already rotated
    options.resolution, options.padding, options.texels_per_unit = size, padding, scale
    generate(atlas, xatlas.ChartOptions(), options)
    return atlas if atlas.atlas_count == 1 and (atlas.width, atlas.height) == (size, size) else None


def generate(atlas: xatlas.Atlas, charts: xatlas.ChartOptions, packing: xatlas.PackOptions) -> None:
    """Run xatlas, then wait until its threads are asleep.

    An atlas stops its threads when it is deleted. xatlas then wakes them without holding their lock: a thread that is
    just falling asleep misses the signal, and the program would wait for it forever.
    """
    atlas.generate(charts, packing)
    time.sleep(_REST)
