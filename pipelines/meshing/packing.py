"""Packing of flat charts into one square texture atlas at the largest scale that fits.

Charts are placed by their outlines on a grid of cells, one after another, each at the lowest free place in the best of
four orientations. Orders are found by hill climbing on a coarse grid. The best one is enlarged on a fine grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int
from numba import njit

from steindreamer.representations.jit import EXACT

from .flattening import signed_areas
from .rectangles import lying
from .texels import closest_on_edge

_COARSE, _FINE = 192, 512
"""Maximum number of cells along each side: finer ones are slower and hardly hold more."""
_TRIALS = 100
"""Number of orders that are tried."""
_FIRST = 0.77
"""First scale, relative to that at which the charts would need the whole atlas."""
_GROWTH = 1.01
"""Factor on the scale once an order fits; half of it is the precision of the final scale."""
_SPREAD = 0.3
"""Standard deviation by which a trial changes the logarithm of a chart's size, by which the charts are ordered."""
_WORD = 64
"""Cells per integer of the bit masks."""


def pack(
    flat: Float[np.ndarray, "n 2"],
    corners: Int[np.ndarray, "f 3"],
    chart: Int[np.ndarray, " f"],
    size: int,
    padding: int,
) -> Float[np.ndarray, "n 2"]:
    """Coordinates in [0, 1] (v downward) of charts in one atlas.

    Charts keep their relative sizes. They are rotated, never mirrored. Raises ValueError if they do not fit, are not
    finite or have no area.

    Args:
        flat: positions of the charts' vertices in the plane, v upward.
        corners: rows of `flat`.
        chart: chart of each face, from 0; no two have a vertex in common.
        size: size of the texture in texels (square).
        padding: minimum number of texels between charts.
    """
    if not np.isfinite(flat).all():
        raise ValueError("the charts are not finite")
    area = float(np.abs(signed_areas(flat.astype(np.float64), corners)).sum())
    if not 0 < area < np.inf:
        raise ValueError(f"the charts are too small to be packed: their area is {area:.3g}")
    charts = _Charts(flat.astype(np.float64), corners, chart, 0.5 * (padding + 1) / size)
    full = 1 / np.sqrt(area)  # would need every cell: never fits
    found = _search(charts, min(size, _COARSE), full)
    if found is None:
        raise ValueError(f"the charts do not fit {size} texels with padding {padding}; lower padding")
    order, scale, uvs = found
    for larger in scale * np.arange(1.06, 1.0, 0.5 * (1 - _GROWTH)):
        masks = charts.masks(larger, min(size, _FINE))
        placed, height = masks.place(order)
        if height <= masks.cells:
            uvs = charts.positions(masks, placed)
            break
    return np.stack([uvs[:, 0], 1 - uvs[:, 1]], 1)


def _search(charts: _Charts, cells: int, full: float) -> tuple[np.ndarray, float, np.ndarray] | None:
    """The order of the charts that fits at the largest scale, that scale, and the positions; None if none fits."""
    rng = np.random.default_rng(0)
    sizes = np.log(charts.extents)
    scale, found, trials = _FIRST * full, None, 0
    while scale > 1e-3 * full:
        masks, lowest, tried = charts.masks(scale, cells), np.inf, sizes
        while True:
            order = np.argsort(-tried, kind="stable")
            placed, height = masks.place(order)
            trials += 1
            if height <= lowest:
                lowest, sizes = height, tried
            if height <= cells:
                found = order, scale, charts.positions(masks, placed)
                scale *= _GROWTH
                break
            if found is None:
                scale *= 0.9
                break
            if trials >= _TRIALS:
                return found
            tried = sizes + rng.normal(0, _SPREAD, len(sizes)) * (rng.random(len(sizes)) < 0.5)
    return found


@dataclass(frozen=True)
class _Masks:
    """Bit masks of all charts at one scale, in four orientations."""

    cells: int
    bits: np.ndarray
    """Rows of all masks, `_WORD` cells per integer."""
    shapes: np.ndarray
    """First integer, height, width and integers per row of each mask, `[c, 4, 4]`."""
    scale: float

    def place(self, order: np.ndarray) -> tuple[np.ndarray, int]:
        """Column, row and orientation of each chart, and the height in cells; more than `cells` if they do not fit."""
        placed = np.zeros((len(order), 3), np.int64)
        return placed, _place(order, self.shapes, self.bits, self.cells, placed)


class _Charts:
    """Charts with their smallest rectangles axis-aligned."""

    def __init__(self, flat: np.ndarray, corners: np.ndarray, chart: np.ndarray, margin: float) -> None:
        self.margin, self.count = margin, len(flat)
        self.rows = [np.unique(corners[chart == index]) for index in range(int(chart.max()) + 1)]
        self.points = [lying(flat[rows]) for rows in self.rows]
        self.points = [points - points.min(0) for points in self.points]
        self.corners = [np.searchsorted(rows, corners[chart == index]) for index, rows in enumerate(self.rows)]
        self.extents = np.maximum([np.prod(points.max(0)) for points in self.points], 1e-30)

    def masks(self, scale: float, cells: int) -> _Masks:
        """Cells that the charts cover with their margin.

        Args:
            scale: fraction of the atlas per unit.
            cells: cells along each side of the atlas.
        """
        bits, shapes, start = [], np.zeros((len(self.points), 4, 4), np.int64), 0
        margin = self.margin * cells
        for index, (points, corners) in enumerate(zip(self.points, self.corners, strict=True)):
            local = points * (scale * cells) + margin
            mask = np.zeros(np.ceil(local.max(0) + margin).astype(int)[::-1], np.bool_)
            _cover(local, corners, margin, mask)
            for orientation in range(4):
                height, width = len(mask), len(mask.T)
                words = (width + _WORD - 1) // _WORD
                padded = np.zeros((height, words * _WORD), np.bool_)
                padded[:, :width] = mask
                bits.append(np.packbits(padded, axis=1, bitorder="little").view("<u8").ravel())
                shapes[index, orientation] = start, height, width, words
                start += height * words
                mask = mask.T[:, ::-1]  # a quarter turn counterclockwise
        return _Masks(cells, np.concatenate(bits).astype(np.uint64), shapes, scale)

    def positions(self, masks: _Masks, placed: np.ndarray) -> Float[np.ndarray, "n 2"]:
        """Positions in the atlas as fractions of its side."""
        out = np.empty((self.count, 2))
        for index, (rows, points) in enumerate(zip(self.rows, self.points, strict=True)):
            local = (points * masks.scale + self.margin) * masks.cells
            orientation = placed[index, 2]
            for turn in range(orientation):
                local = np.stack([masks.shapes[index, turn, 1] - local[:, 1], local[:, 0]], 1)
            out[rows] = (local + placed[index, :2]) / masks.cells
        return out


@njit(**EXACT)
@no_type_check
def _place(order, shapes, bits, cells, placed):
    """Place each chart in the orientation and at the place with the lowest top, then leftmost. Returns the height of
    all, which is larger than `cells` if they do not fit.
    """
    tall = cells + cells // 2
    occupied = np.zeros((tall + 1, cells // 64 + 3), np.uint64)
    highest = 0
    for chart in order:
        best, best_x, best_y, best_o = tall + 1, 0, 0, -1
        for o in range(4):
            start, height, width, words = shapes[chart, o]
            for y in range(tall - height + 1):
                if y + height > best or (y + height == best and best_x == 0):
                    break
                x = _leftmost(occupied, bits, start, height, width, words, y, cells)
                if x >= 0:
                    if y + height < best or x < best_x:
                        best, best_x, best_y, best_o = y + height, x, y, o
                    break
        if best_o < 0:
            return 2 * tall
        placed[chart, 0], placed[chart, 1], placed[chart, 2] = best_x, best_y, best_o
        highest = max(highest, best)
        start, height, width, words = shapes[chart, best_o]
        word, shift = best_x >> 6, np.uint64(best_x & 63)
        for row in range(height):
            for k in range(words):
                mask = bits[start + row * words + k]
                occupied[best_y + row, word + k] |= mask << shift
                if shift:
                    occupied[best_y + row, word + k + 1] |= mask >> (np.uint64(64) - shift)
    return highest


@njit(**EXACT)
@no_type_check
def _leftmost(occupied, bits, start, height, width, words, y, cells):
    """Leftmost free column of a mask at row y; -1 for none."""
    one = np.uint64(1)
    x = 0
    while x + width <= cells:
        skip = 0
        for row in range(height):
            for k in range(words):
                mask = bits[start + row * words + k]
                place = x + 64 * k
                word, shift = place >> 6, np.uint64(place & 63)
                below = occupied[y + row, word] >> shift
                if shift:
                    below |= occupied[y + row, word + 1] << (np.uint64(64) - shift)
                hit = below & mask
                if hit:
                    # This cell of the mask hits every column up to the end of the occupied run.
                    while not hit & one:
                        hit >>= one
                        place += 1
                    while (occupied[y + row, place >> 6] >> np.uint64(place & 63)) & one:
                        place += 1
                        skip += 1
                    break
            if skip:
                break
        if skip == 0:
            return x
        x += skip
    return -1


@njit(**EXACT)
@no_type_check
def _cover(points, corners, margin, mask):
    """Mark every cell that may have a point within the margin of a triangle."""
    height, width = mask.shape
    reach = margin + np.sqrt(0.5)  # from the cell's center
    for f in range(corners.shape[0]):
        ax, ay = points[corners[f, 0]]
        bx, by = points[corners[f, 1]]
        cx, cy = points[corners[f, 2]]
        top, bottom = int(np.floor(min(ay, by, cy) - reach)), int(np.ceil(max(ay, by, cy) + reach))
        left, right = int(np.floor(min(ax, bx, cx) - reach)), int(np.ceil(max(ax, bx, cx) + reach))
        for row in range(max(top, 0), min(bottom, height)):
            for column in range(max(left, 0), min(right, width)):
                if mask[row, column]:
                    continue
                x, y = column + 0.5, row + 0.5
                one = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
                two = (cx - bx) * (y - by) - (cy - by) * (x - bx)
                three = (ax - cx) * (y - cy) - (ay - cy) * (x - cx)
                if (one >= 0 and two >= 0 and three >= 0) or (one <= 0 and two <= 0 and three <= 0):
                    mask[row, column] = True
                    continue
                for edge in range(3):
                    if edge == 0:
                        px, py, qx, qy = ax, ay, bx, by
                    elif edge == 1:
                        px, py, qx, qy = bx, by, cx, cy
                    else:
                        px, py, qx, qy = cx, cy, ax, ay
                    if closest_on_edge(x, y, px, py, qx, qy)[1] <= reach * reach:
                        mask[row, column] = True
                        break
