"""Coverage of the texels of an image by triangles in texture space."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int
from numba import njit
from scipy import ndimage

from ..jit import EXACT


@dataclass(frozen=True)
class Coverage:
    """The triangles that cover the centers of texels."""

    owner: Int[np.ndarray, "h w"]
    """Index of the first face that covers each texel; -1: none."""
    count: Int[np.ndarray, "h w"]
    """Number of faces that have the center of each texel strictly inside."""

    def nearest(self) -> tuple[Int[np.ndarray, "h w"], Int[np.ndarray, "h w"]]:
        """Row and column of the covered texel nearest to each texel; that of a covered texel is itself.

        There must be a covered one.
        """
        places = ndimage.distance_transform_edt(self.owner < 0, return_distances=False, return_indices=True)
        row, column = np.asarray(places)
        return row, column


def cover_texels(uvs: Float[np.ndarray, "v 2"], faces: Int[np.ndarray, "f 3"], size: tuple[int, int]) -> Coverage:
    """Find the faces that cover each texel; parts of faces outside the image have no effect.

    Args:
        uvs: Texture coordinates, v pointing down.
        faces: Vertex indices; earlier faces have precedence.
        size: Height and width of the image in texels.
    """
    owner, count = np.full(size, -1, np.int64), np.zeros(size, np.int64)
    corners = np.asarray(uvs, np.float64) * np.array(size[::-1], np.float64)
    _cover_kernel(corners, np.asarray(faces, np.int64), owner, count)
    return Coverage(owner, count)


@njit(**EXACT)
@no_type_check
def _cover_kernel(corners, faces, owner, count):
    height, width = owner.shape
    for f in range(faces.shape[0]):
        ax, ay = corners[faces[f, 0], 0], corners[faces[f, 0], 1]
        bx, by = corners[faces[f, 1], 0], corners[faces[f, 1], 1]
        cx, cy = corners[faces[f, 2], 0], corners[faces[f, 2], 1]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        if area == 0:
            continue
        left, right = int(np.ceil(min(ax, bx, cx) - 0.5)), int(np.floor(max(ax, bx, cx) - 0.5))
        top, bottom = int(np.ceil(min(ay, by, cy) - 0.5)), int(np.floor(max(ay, by, cy) - 0.5))
        for row in range(max(top, 0), min(bottom, height - 1) + 1):
            for column in range(max(left, 0), min(right, width - 1) + 1):
                x, y = column + 0.5, row + 0.5
                wa = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / area
                wb = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / area
                least = min(wa, wb, 1 - wa - wb)
                if least >= 0 and owner[row, column] < 0:
                    owner[row, column] = f
                if least > 1e-6:
                    count[row, column] += 1
