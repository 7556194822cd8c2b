"""Several textures side by side in one image, so that they are trained as one texture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

GAP = 1
"""Texels around each of several textures that repeat its border, so that bilinear lookups do not mix two of them."""


@dataclass(frozen=True)
class Region:
    """The rectangle of one texture in the image."""

    row: int
    column: int
    height: int
    width: int

    def of(self, image: Shaped[Tensor, "h w *c"]) -> Shaped[Tensor, "r s *c"]:
        """The texels of the texture, as a view of those of the image."""
        return image[self.row : self.row + self.height, self.column : self.column + self.width]

    def moved(self, uvs: Float[Tensor, "v 2"], size: tuple[int, int]) -> Float[Tensor, "v 2"]:
        """Texture coordinates in the image of this size (height, width), from those in the texture, within [0, 1]."""
        scale, start = uvs.new_tensor([self.width, self.height]), uvs.new_tensor([self.column, self.row])
        return (uvs.clamp(0, 1) * scale + start) / uvs.new_tensor([size[1], size[0]])


def arrange(sizes: Sequence[tuple[int, int]]) -> tuple[list[Region], tuple[int, int]]:
    """Place textures in one image: in columns, the highest first. Returns their regions, and the size of the image.

    A single texture is the whole image; several have a border of `GAP` texels each.

    Args:
        sizes: Height and width of each texture.
    """
    gap = GAP if len(sizes) > 1 else 0
    tallest = max(height for height, _ in sizes) + 2 * gap
    columns: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i][0], -sizes[i][1], i)):
        needed = sizes[index][0] + 2 * gap
        room = (each for each in columns if sum(sizes[i][0] + 2 * gap for i in each) + needed <= tallest)
        column = next(room, None)
        if column is None:
            columns.append([index])
        else:
            column.append(index)
    widths = [max(sizes[i][1] for i in column) + 2 * gap for column in columns]
    regions: dict[int, Region] = {}
    for column, left in zip(columns, accumulate(widths, initial=0), strict=False):
        tops = accumulate((sizes[i][0] + 2 * gap for i in column), initial=0)
        regions |= {i: Region(top + gap, left + gap, *sizes[i]) for i, top in zip(column, tops, strict=False)}
    return [regions[index] for index in range(len(sizes))], (tallest, sum(widths))


def sheet_of(images: Sequence[Shaped[Tensor, "_ _ *c"]], regions: Sequence[Region], size: tuple[int, int]) -> Tensor:
    """One image (height, width, channels as given) with each texture in its region; borders repeat its edge."""
    out = images[0].new_zeros((*size, *images[0].shape[2:]))
    gap = GAP if len(images) > 1 else 0
    for image, region in zip(images, regions, strict=True):
        rows, columns = (torch.arange(-gap, side + gap).clamp(0, side - 1) for side in image.shape[:2])
        wide = Region(region.row - gap, region.column - gap, region.height + 2 * gap, region.width + 2 * gap)
        wide.of(out).copy_(image[rows][:, columns])
    return out
