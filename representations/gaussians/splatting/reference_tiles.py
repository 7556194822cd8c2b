"""The Gaussians that overlap each tile of an image, in torch on any device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

TILE = 8
"""Side of a tile in pixels."""


@dataclass(frozen=True)
class TileLists:
    """One list of Gaussians per tile; tiles are in row-major order."""

    ids: Int64[Tensor, " m"]
    """The concatenated lists."""
    start: Int64[Tensor, " t"]
    """Start of each list in `ids`."""
    length: Int64[Tensor, " t"]
    """Length of each list."""

    def padded(self, tiles: Int64[Tensor, " k"], padding: int) -> Int64[Tensor, "k l"]:
        """The lists of the given tiles, filled up to the longest with `padding`."""
        place = torch.arange(int(self.length[tiles].max()), device=tiles.device)
        inside = place < self.length[tiles, None]
        return torch.where(inside, self.ids[torch.where(inside, self.start[tiles, None] + place, 0)], padding)

    def batches(self, pairs: int) -> Iterator[tuple[Int64[Tensor, " k"], Int64[Tensor, " p"]]]:
        """Batches of tiles with lists of similar length, and of their pixels, with at most `pairs` pixels x Gaussians.

        All non-empty tiles are covered, longest lists first. The smallest batch is one pixel of one tile.
        """
        order = self.length.argsort(descending=True, stable=True)
        lengths = [length for length in self.length[order].tolist() if length]
        begin = 0
        while begin < len(lengths):
            together = max(1, pairs // (TILE**2 * lengths[begin]))
            pixels = max(1, min(TILE**2, pairs // lengths[begin]))
            for some in torch.arange(TILE**2, device=order.device).split(pixels):
                yield order[begin : min(begin + together, len(lengths))], some
            begin += together


def tile_lists(center: Float[Tensor, "n 2"], reach: Float[Tensor, "n 2"], grid: tuple[int, int]) -> TileLists:
    """The boxes (center +- reach, pixels) that overlap each tile of a grid (rows, columns); lists keep their order."""
    rows, columns = grid
    limit = center.new_tensor([columns, rows])
    first = ((center - reach) / TILE).floor().clamp_min(0).minimum(limit).long()
    last = ((center + reach) / TILE).ceil().clamp_min(0).minimum(limit).long()
    width, height = (last - first).clamp_min(0).unbind(1)
    count = width * height
    box = torch.repeat_interleave(count)
    within = torch.arange(len(box), device=box.device) - (count.cumsum(0) - count)[box]
    column, row = first[box, 0] + within % width[box], first[box, 1] + within // width[box]
    tile, order = (row * columns + column).sort(stable=True)
    length = torch.bincount(tile, minlength=rows * columns)
    return TileLists(box[order], length.cumsum(0) - length, length)


def tile_pixels(tiles: Int64[Tensor, " k"], some: Int64[Tensor, " p"], columns: int) -> Int64[Tensor, "k p 2"]:
    """Column and row of the pixels `some` (row-major indices within a tile) of each tile."""
    x = (tiles % columns)[:, None] * TILE + some % TILE
    y = (tiles // columns)[:, None] * TILE + some // TILE
    return torch.stack([x, y], -1)


def joined(values: Float[Tensor, "n c"], grid: tuple[int, int], size: tuple[int, int]) -> Float[Tensor, "c h w"]:
    """Assemble the pixels of all tiles, given tile by tile, to an image that is cropped to `size`."""
    rows, columns = grid
    image = values.reshape(rows, columns, TILE, TILE, -1).permute(4, 0, 2, 1, 3)
    return image.reshape(-1, rows * TILE, columns * TILE)[:, : size[0], : size[1]]
