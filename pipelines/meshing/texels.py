"""Rasterization of the texture atlas: the point of the mesh that every texel shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit
from scipy import ndimage
from torch import Tensor

from steindreamer.representations import TriangleMesh
from steindreamer.representations.jit import EXACT

_REACH = 1.0
"""Distance outside a chart, in texels, that is baked too: bilinear filtering reads these texels."""


@dataclass(frozen=True)
class Texels:
    """The texels that show a point of a mesh."""

    faces: np.ndarray
    """Vertices of the face that each texel is on, `[t, 3]`."""
    weights: np.ndarray
    """Barycentric weights of these vertices, `[t, 3]`."""
    rows: np.ndarray
    """Row of each texel in the atlas, `[t]`; its column is in `columns`."""
    columns: np.ndarray
    nearest: np.ndarray
    """Index of the nearest texel for each pixel of the atlas, `[size, size]`."""

    def interpolate(self, attribute: Float[Tensor, "v c"]) -> np.ndarray:
        """A vertex attribute at every texel, `[t, c]`."""
        return np.einsum("tk,tkc->tc", self.weights, attribute.numpy()[self.faces])

    def image(self, values: np.ndarray) -> np.ndarray:
        """Spread `[t, c]` values into a full image `[size, size, c]`: empty texels copy the nearest baked one.

        Mipmaps average over the whole atlas, so no background color may remain.
        """
        return values[self.nearest]


def rasterize_uvs(mesh: TriangleMesh, size: int) -> Texels:
    """Find the texels of every face of an unwrapped mesh. Raises ValueError if it has no uvs."""
    if mesh.uvs is None:
        raise ValueError("the mesh has no uvs; unwrap it first")
    uvs, faces = mesh.uvs.numpy() * size, mesh.faces.numpy()
    owner = np.full((size, size), -1, np.int64)
    weights = np.zeros((size, size, 3), np.float32)
    _rasterize_kernel(uvs.astype(np.float64), faces, _REACH, owner, weights)
    baked = owner >= 0
    places = ndimage.distance_transform_edt(~baked, return_distances=False, return_indices=True)
    row, column = np.asarray(places)
    number = np.cumsum(baked).reshape(size, size) - 1
    rows, columns = np.nonzero(baked)
    return Texels(faces[owner[baked]], weights[baked], rows, columns, number[row, column])


@njit(inline="always", **EXACT)
@no_type_check
def closest_on_edge(x, y, px, py, qx, qy):
    """Fraction of the edge from p to q at which it is closest to (x, y), and the squared distance there."""
    length = (qx - px) ** 2 + (qy - py) ** 2
    t = ((x - px) * (qx - px) + (y - py) * (qy - py)) / length if length > 0 else 0.0
    t = min(1.0, max(0.0, t))
    return t, (px + t * (qx - px) - x) ** 2 + (py + t * (qy - py) - y) ** 2


@njit(**EXACT)
@no_type_check
def _rasterize_kernel(uvs, faces, reach, owner, weights):
    """Assign every texel center to the nearest face within reach, and to the nearest point of that face."""
    size = owner.shape[0]
    nearest = np.full((size, size), reach * reach + 1e-9)
    for f in range(faces.shape[0]):
        ax, ay = uvs[faces[f, 0], 0], uvs[faces[f, 0], 1]
        bx, by = uvs[faces[f, 1], 0], uvs[faces[f, 1], 1]
        cx, cy = uvs[faces[f, 2], 0], uvs[faces[f, 2], 1]
        area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
        left, right = int(np.ceil(min(ax, bx, cx) - reach - 0.5)), int(np.floor(max(ax, bx, cx) + reach - 0.5))
        top, bottom = int(np.ceil(min(ay, by, cy) - reach - 0.5)), int(np.floor(max(ay, by, cy) + reach - 0.5))
        for row in range(max(top, 0), min(bottom, size - 1) + 1):
            for column in range(max(left, 0), min(right, size - 1) + 1):
                x, y = column + 0.5, row + 0.5
                inside = False
                if area != 0:
                    wa = ((bx - x) * (cy - y) - (cx - x) * (by - y)) / area
                    wb = ((cx - x) * (ay - y) - (ax - x) * (cy - y)) / area
                    wc = 1 - wa - wb
                    inside = wa >= 0 and wb >= 0 and wc >= 0
                if inside:
                    distance = 0.0
                else:
                    distance = 1e30
                    wa = wb = wc = 0.0
                    for edge in range(3):
                        if edge == 0:
                            px, py, qx, qy = ax, ay, bx, by
                        elif edge == 1:
                            px, py, qx, qy = bx, by, cx, cy
                        else:
                            px, py, qx, qy = cx, cy, ax, ay
                        t, d = closest_on_edge(x, y, px, py, qx, qy)
                        if d < distance:
                            distance = d
                            if edge == 0:
                                wa, wb, wc = 1 - t, t, 0.0
                            elif edge == 1:
                                wa, wb, wc = 0.0, 1 - t, t
                            else:
                                wa, wb, wc = t, 0.0, 1 - t
                if distance < nearest[row, column]:
                    nearest[row, column] = distance
                    owner[row, column] = f
                    weights[row, column, 0] = wa
                    weights[row, column, 1] = wb
                    weights[row, column, 2] = wc
