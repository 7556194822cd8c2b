"""Which Gaussians each tile of a picture meets, in readable torch on any device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

TILE = 8
"""Pixels along the side of a tile."""


@dataclass(frozen=True)
class TileLists:
    """One list of Gaussians per tile; tiles count row by row."""

    ids: Int64[Tensor, " m"]
    """The lists, one after the other."""
    start: Int64[Tensor, " t"]
    length: Int64[Tensor, " t"]

    def side_by_side(self, tiles: Int64[Tensor, " k"], padding: int) -> Int64[Tensor, "k l"]:
        """The lists of some tiles, as long as the longest; the shorter ones end with `padding`."""
        place = torch.arange(int(self.length[tiles].max()), device=tiles.device)
        inside = place < self.length[tiles, None]
        return torch.where(inside, self.ids[torch.where(inside, self.start[tiles, None] + place, 0)], padding)

    def batches(self, pairs: int) -> Iterator[tuple[Int64[Tensor, " k"], Int64[Tensor, " p"]]]:
        """Tiles of about the same length, and which of their pixels: at most `pairs` pixels times Gaussians.

        All tiles but empty ones come, the longest first. The least batch is one pixel of one tile.
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


def tile_lists(centre: Float[Tensor, "n 2"], reach: Float[Tensor, "n 2"], grid: tuple[int, int]) -> TileLists:
    """Of boxes that go `reach` pixels to both sides of `centre`; every list keeps their order. Grid: rows, columns."""
    rows, columns = grid
    limit = centre.new_tensor([columns, rows])
    first = ((centre - reach) / TILE).floor().clamp_min(0).minimum(limit).long()
    last = ((centre + reach) / TILE).ceil().clamp_min(0).minimum(limit).long()
    width, height = (last - first).clamp_min(0).unbind(1)
    count = width * height
    box = torch.repeat_interleave(count)
    within = torch.arange(len(box), device=box.device) - (count.cumsum(0) - count)[box]
    column, row = first[box, 0] + within % width[box], first[box, 1] + within // width[box]
    tile, order = (row * columns + column).sort(stable=True)
    length = torch.bincount(tile, minlength=rows * columns)
    return TileLists(box[order], length.cumsum(0) - length, length)


def tile_pixels(tiles: Int64[Tensor, " k"], some: Int64[Tensor, " p"], columns: int) -> Int64[Tensor, "k p 2"]:
    """Column and row of some pixels, counted row by row, of each tile."""
    x = (tiles % columns)[:, None] * TILE + some % TILE
    y = (tiles // columns)[:, None] * TILE + some // TILE
    return torch.stack([x, y], -1)


def joined(values: Float[Tensor, "n c"], grid: tuple[int, int], size: tuple[int, int]) -> Float[Tensor, "c h w"]:
    """The picture of all tiles' pixels, one tile after the other, without what lies beyond its border."""
    rows, columns = grid
    picture = values.reshape(rows, columns, TILE, TILE, -1).permute(4, 0, 2, 1, 3)
    return picture.reshape(-1, rows * TILE, columns * TILE)[:, : size[0], : size[1]]
