"""Texture coordinates of a material, rasterized: coverage, overlaps and distances between charts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int
from numba import njit
from scipy import ndimage
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from steindreamer.representations.jit import EXACT

from .reading.asset_file import AssetFile, Part
from .rows import distinct_rows
from .surface import Surface

_DEFAULT_SIZE = 1024
"""Texels along a side where a material has no texture."""
_LARGEST = 2048
"""Texels along a side of the raster; larger textures are scaled down."""
_WORK = 4e8
"""Number of texels in the bounding boxes of all triangles together; more are rasterized at a lower resolution."""
_INSIDE = 1e-5
"""Barycentric weight from which a texel is inside a triangle: neighbors share the texels on their edge."""
_SAME = 1e-6
"""Difference of texture coordinates below which two corners are one."""
_OUTSIDE = 1e-4
"""Distance from the unit square that rounding may cause."""


@dataclass(frozen=True, eq=False)
class Atlas:
    """The triangles of one material in one texture coordinate set."""

    name: str
    """Name of the material, or of an object without one."""
    material: int
    """Index of the material; -1: none."""
    size: tuple[int, int]
    """Width and height of its largest texture; of the default texture without one."""
    faces: Int[np.ndarray, " t"]
    """Triangles of the surface."""
    uvs: Float[np.ndarray, "t 3 2"]
    """Texture coordinates of their corners, v pointing down; all finite."""
    points: Int[np.ndarray, "t 3"]
    """Points of their corners."""
    areas: Float[np.ndarray, " t"]
    """Areas in the scene."""

    @cached_property
    def signed_areas(self) -> Float[np.ndarray, " t"]:
        """Areas in the unit square, negative for triangles that are mirrored in the texture."""
        a, b, c = self.uvs.transpose(1, 0, 2)
        # v points down: counter-clockwise triangles have a negative determinant.
        return -0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])

    @cached_property
    def outside(self) -> int:
        """Number of triangles that leave the unit square."""
        return int(((self.uvs < -_OUTSIDE) | (self.uvs > 1 + _OUTSIDE)).any((1, 2)).sum())

    @cached_property
    def charts(self) -> Int[np.ndarray, " t"]:
        """Chart of each triangle: triangles that share corners in space and in the texture."""
        grid = np.round(np.clip(self.uvs, -1e6, 1e6) / _SAME).astype(np.int64)
        key = np.column_stack([self.points.reshape(-1), grid.reshape(-1, 2)])
        corner = distinct_rows(key)[1].reshape(-1, 3)
        links = np.concatenate([corner[:, :2], corner[:, 1:]])
        count = int(corner.max(initial=0)) + 1
        graph = coo_matrix((np.ones(len(links), bool), (links[:, 0], links[:, 1])), (count, count))
        return np.unique(connected_components(graph, directed=False)[1][corner[:, 0]], return_inverse=True)[1]

    @cached_property
    def texel_density(self) -> Float[np.ndarray, " t"]:
        """Texels per unit of length of each triangle with an area; weights are in `areas`."""
        texels = np.abs(self.signed_areas) * self.size[0] * self.size[1]
        return np.sqrt(texels / np.maximum(self.areas, 1e-300))

    @cached_property
    def raster(self) -> tuple[Int[np.ndarray, "h w"], Int[np.ndarray, "h w"], float]:
        """Number of triangles and chart (-1: none) at each texel, and texels of the texture per texel of the raster."""
        boxes = float(np.prod(np.ptp(np.clip(self.uvs, 0, 1), axis=1), axis=1).sum())
        scale = min(1.0, _LARGEST / max(self.size), np.sqrt(_WORK / max(boxes * self.size[0] * self.size[1], 1.0)))
        width, height = (max(16, round(side * scale)) for side in self.size)
        count, owner = np.zeros((height, width), np.int32), np.full((height, width), -1, np.int64)
        _count_kernel(self.uvs * (width, height), self.charts, _INSIDE, count, owner)
        return count, owner, max(self.size) / max(width, height)

    @property
    def overlap(self) -> float:
        """Fraction of the covered texels that several triangles cover."""
        count = self.raster[0]
        return float((count > 1).sum() / max((count > 0).sum(), 1))

    @property
    def coverage(self) -> float:
        """Fraction of the texture that triangles cover."""
        return float((self.raster[0] > 0).mean())

    @property
    def gutter(self) -> float:
        """Smallest number of empty texels between two charts; infinite for a single one."""
        _, owner, scale = self.raster
        if len(np.unique(owner[owner >= 0])) < 2:
            return np.inf
        empty = owner < 0
        distance = np.asarray(ndimage.distance_transform_edt(empty))
        places = np.asarray(ndimage.distance_transform_edt(empty, return_distances=False, return_indices=True))
        nearest = owner[tuple(places)]
        gaps = [
            (distance[a] + distance[b])[nearest[a] != nearest[b]]
            for a, b in (
                (np.s_[:, 1:], np.s_[:, :-1]),
                (np.s_[1:], np.s_[:-1]),
            )
        ]
        return scale * float(min(gap.min(initial=np.inf) for gap in gaps))


def atlases(file: AssetFile, surface: Surface) -> Iterator[Atlas]:
    """The atlases of all materials of the surface whose parts have texture coordinates."""
    parts: dict[int, list[int]] = {}
    for index, part in enumerate(surface.parts):
        parts.setdefault(part.material, []).append(index)
    for material in sorted(parts):
        known = file.materials[material] if material >= 0 else None
        uses = tuple(known.textures.values()) if known else ()
        number = uses[0].uv_set if uses else 0
        sizes = [file.images[use.image].header[1:] for use in uses if use.image >= 0]
        size = max((size for size in sizes if min(size) > 0), key=max, default=(_DEFAULT_SIZE, _DEFAULT_SIZE))
        yield from atlas_of(
            surface,
            parts[material],
            number,
            size,
            material,
            known.name if known else "",
            uses[0].transform if uses else None,
        )


def atlas_of(
    surface: Surface,
    parts: list[int],
    uv_set: int,
    size: tuple[int, int],
    material: int = -1,
    name: str = "",
    transform: Float[np.ndarray, "2 3"] | None = None,
) -> Iterator[Atlas]:
    """The atlas of these parts; none if no part has this texture coordinate set."""
    rows, uvs = [], []
    for index in parts:
        part: Part = surface.parts[index]
        if uv_set not in part.uvs:
            continue
        rows_of_part = surface.rows(index)
        faces = np.arange(rows_of_part.start, rows_of_part.stop)
        corners = part.uvs[uv_set][surface.corners[faces]]
        if transform is not None:
            corners = corners @ transform[:, :2].T + transform[:, 2]
        finite = np.isfinite(corners).all((1, 2))
        rows.append(faces[finite])
        uvs.append(corners[finite])
    chosen = np.concatenate(rows) if rows else np.zeros(0, np.int64)
    if len(chosen):
        label = name or surface.parts[parts[0]].label
        yield Atlas(label, material, size, chosen, np.concatenate(uvs), surface.faces[chosen], surface.areas[chosen])


@njit(**EXACT)
@no_type_check
def _count_kernel(uvs, charts, inside, count, owner):
    """Count the triangles over every texel center; triangles outside the raster are clipped."""
    height, width = count.shape
    for f in range(uvs.shape[0]):
        ax, ay = uvs[f, 0, 0], uvs[f, 0, 1]
        bx, by = uvs[f, 1, 0], uvs[f, 1, 1]
        cx, cy = uvs[f, 2, 0], uvs[f, 2, 1]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0:
            continue
        left = min(width, max(0.0, np.ceil(min(ax, bx, cx) - 0.5)))
        right = max(-1.0, min(width - 1.0, np.floor(max(ax, bx, cx) - 0.5)))
        top = min(height, max(0.0, np.ceil(min(ay, by, cy) - 0.5)))
        bottom = max(-1.0, min(height - 1.0, np.floor(max(ay, by, cy) - 0.5)))
        for row in range(int(top), int(bottom) + 1):
            for column in range(int(left), int(right) + 1):
                x, y = column + 0.5, row + 0.5
                wa = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / area
                wb = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / area
                if wa > inside and wb > inside and 1 - wa - wb > inside:
                    count[row, column] += 1
                    owner[row, column] = charts[f]
