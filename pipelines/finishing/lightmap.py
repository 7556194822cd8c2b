"""Texture coordinates for lightmaps: the charts of the atlas, apart from each other and aligned to texels."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

_GAP = 2
"""Texels between charts, so that bilinear filtering never reads another chart."""
_BISECTIONS = 14


def lightmap_uvs(
    vertices: Float[np.ndarray, "v 3"], uvs: Float[np.ndarray, "v 2"], faces: Int[np.ndarray, "f 3"], size: int
) -> Float[np.ndarray, "v 2"]:
    """A second set of texture coordinates in [0, 1], without overlaps between charts.

    Charts get the same number of texels per meter, as far as their borders, which are on texel centers, allow. Raises
    ValueError if the charts do not fit.

    Args:
        vertices: positions.
        uvs: the first set; charts must not overlap themselves.
        faces: vertex indices.
        size: size of the lightmap in texels.
    """
    chart, count = _charts(uvs, faces)
    scale = _meters_per_unit(vertices, uvs, faces, chart, count)
    flat = uvs.astype(np.float64) * scale[chart][:, None]
    low, high = np.full((count, 2), np.inf), np.full((count, 2), -np.inf)
    np.minimum.at(low, chart, flat)
    np.maximum.at(high, chart, flat)
    extent = high - low
    corners, texels = _packed(extent, size)
    within = (flat - low[chart]) / np.maximum(extent, 1e-12)[chart]
    return ((corners[chart] + 0.5 + within * (texels[chart] - 1)) / size).astype(np.float32)


def overlaps(uvs: Float[np.ndarray, "v 2"], faces: Int[np.ndarray, "f 3"], size: int) -> float:
    """The fraction of covered texels whose centers are inside several triangles."""
    cover = np.zeros((size, size), np.int32)
    for a, b, c in uvs[faces].astype(np.float64) * size - 0.5:
        left, top = np.floor(np.minimum(np.minimum(a, b), c)).astype(int).clip(0, size - 1)
        right, bottom = np.ceil(np.maximum(np.maximum(a, b), c)).astype(int).clip(0, size - 1)
        x, y = np.meshgrid(np.arange(left, right + 1), np.arange(top, bottom + 1))
        area = (b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])
        if area == 0:
            continue
        u = ((b[0] - x) * (c[1] - y) - (c[0] - x) * (b[1] - y)) / area
        v = ((c[0] - x) * (a[1] - y) - (a[0] - x) * (c[1] - y)) / area
        cover[y, x] += (u > 1e-9) & (v > 1e-9) & (u + v < 1 - 1e-9)
    return float((cover > 1).sum() / max(int((cover > 0).sum()), 1))


def _charts(uvs: Float[np.ndarray, "v 2"], faces: Int[np.ndarray, "f 3"]) -> tuple[Int[np.ndarray, " v"], int]:
    """The chart of every vertex, and their number; vertices at the same place of the atlas are one."""
    _, place = np.unique(uvs, axis=0, return_inverse=True)
    place = place.reshape(-1)
    links = np.concatenate([place[faces[:, :2]], place[faces[:, 1:]]])
    count = int(place.max()) + 1
    graph = coo_matrix((np.ones(len(links), bool), (links[:, 0], links[:, 1])), (count, count))
    charts, chart = connected_components(graph, directed=False)
    return chart[place], charts


def _meters_per_unit(
    vertices: np.ndarray, uvs: np.ndarray, faces: np.ndarray, chart: np.ndarray, count: int
) -> Float[np.ndarray, " c"]:
    corners, flat = vertices.astype(np.float64)[faces], uvs.astype(np.float64)[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    one, two = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    covered = np.abs(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0])
    of_face = chart[faces[:, 0]]
    world, atlas = (np.bincount(of_face, values, count) for values in (area, covered))
    return np.sqrt(world / np.maximum(atlas, 1e-12))


def _packed(extent: Float[np.ndarray, "c 2"], size: int) -> tuple[Int[np.ndarray, "c 2"], Int[np.ndarray, "c 2"]]:
    """First texel and size in texels of every chart, at the largest density that fits."""
    low, high = 0.0, size / max(float(extent.max()), 1e-12)
    best = _shelves(np.full(extent.shape, 2), size)
    texels = np.full(extent.shape, 2)
    if best is None:
        raise ValueError(f"{len(extent)} charts do not fit a lightmap of {size} texels; raise lightmap_size")
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        tried = np.maximum(2, np.ceil(extent * middle).astype(np.int64))
        places = _shelves(tried, size)
        if places is None:
            high = middle
        else:
            low, best, texels = middle, places, tried
    return best, texels


def _shelves(texels: Int[np.ndarray, "c 2"], size: int) -> Int[np.ndarray, "c 2"] | None:
    """Place rectangles in rows by decreasing height; None if they do not fit."""
    places = np.zeros_like(texels)
    x = y = _GAP
    row = 0
    for index in np.argsort(-texels[:, 1], kind="stable"):
        width, height = texels[index]
        if x + width + _GAP > size:
            x, y, row = _GAP, y + row + _GAP, 0
        if x + width + _GAP > size or y + height + _GAP > size:
            return None
        places[index] = x, y
        x, row = x + width + _GAP, max(row, height)
    return places
