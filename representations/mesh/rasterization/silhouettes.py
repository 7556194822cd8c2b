"""Antialiasing of silhouettes: crossings of silhouettes between neighboring pixel centers, and blending of the pixels.

An edge is a silhouette if its faces are on the same side of it in screen space, or if it has only one face. Each
silhouette edge is traversed over the pixel grid, for triangles of any size: the edge need not belong to a triangle that
is visible at a pixel. (Antialiasing that starts at the pixels [Laine et al. 2020] misses edges of triangles smaller
than a pixel.) The blending is theirs: along rows for steep edges, along columns for flat ones.

Where the outlines of two parts meet in a notch, each continues hidden behind the other, and pixel centers are too far
apart to determine where it ends. Therefore edges are traversed along both axes, and only the outermost crossing between
two pixels is kept (counting the others would bias d(area) of a bumpy sphere by 2 to 3 %).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

HIDDEN = 1e-4
"""An edge is hidden if the outer pixel is nearer to the camera than the edge by this fraction of the depth."""
STRAY = 5e-3
"""The inner pixel may be behind the edge by this fraction of the depth, beyond twice the slope of the edge's face. If
it is farther back, it shows another part of the scene, and the edge belongs to a part too thin for the pixel grid."""


@dataclass(frozen=True)
class Crossings:
    """Crossings of visible silhouettes between two neighboring pixel centers; a pair of pixels may have several."""

    camera: Int64[Tensor, " m"]
    """Index of the camera."""
    in_row: Bool[Tensor, " m"]
    """Whether the two pixels are neighbors in a row (else in a column)."""
    line: Int64[Tensor, " m"]
    """Index of the row (or column)."""
    first: Int64[Tensor, " m"]
    """Index of the first pixel in the row (or column); the other pixel is the next one."""
    inner_first: Bool[Tensor, " m"]
    """Whether the first pixel is on the inner side of the silhouette."""
    start: Int64[Tensor, " m"]
    """First vertex of the edge."""
    end: Int64[Tensor, " m"]
    """Second vertex of the edge."""
    across: Bool[Tensor, " m"]
    """Whether the edge is more perpendicular than parallel to the row (or column); only then the pixels are blended."""

    def __getitem__(self, index: Tensor) -> Crossings:
        return Crossings(*(column[index] for column in vars(self).values()))


def reach(screen: Float[Tensor, "b v 3"], crossings: Crossings) -> Float[Tensor, " m"]:
    """Position of the crossings: 0 at the center of the inner pixel, 1 at that of the outer pixel. Differentiable."""
    count = screen.shape[1]
    points = screen[..., :2].reshape(-1, 2)
    start = points.index_select(0, crossings.camera * count + crossings.start)
    end = points.index_select(0, crossings.camera * count + crossings.end)
    in_row = crossings.in_row[:, None]
    along, across = torch.where(in_row, start, start.flip(1)).unbind(1)
    along_end, across_end = torch.where(in_row, end, end.flip(1)).unbind(1)
    fraction = (crossings.line.to(along) + 0.5 - across) / (across_end - across)
    place = along + fraction * (along_end - along) - 0.5 - crossings.first.to(along)
    return torch.where(crossings.inner_first, place, 1 - place)


def outermost(screen: Float[Tensor, "b v 3"], crossings: Crossings, size: tuple[int, int]) -> Crossings:
    """The outermost crossing between each pair of pixels, if the pair is to be blended."""
    longest = max(size)
    slot = (crossings.camera * 2 + crossings.in_row.long()) * longest + crossings.line
    slot = slot * longest + crossings.first
    order = torch.argsort(reach(screen.detach(), crossings), descending=True, stable=True)
    order = order[torch.argsort(slot[order], stable=True)]
    slot = slot[order]
    leads = torch.ones_like(slot, dtype=torch.bool)
    leads[1:] = slot[1:] != slot[:-1]
    order = order[leads]
    return crossings[order[crossings.across[order]]]


def mix(
    layers: Float[Tensor, "b h w c"], screen: Float[Tensor, "b v 3"], crossings: Crossings
) -> tuple[Float[Tensor, "b h w c"], Int64[Tensor, " m"]]:
    """Blend pixels at silhouettes: the pixel on whose side of the midpoint the silhouette passes gets up to half of the
    other pixel.

    Returns the images, and the flat indices of the blended pixels.
    """
    _, height, width, channels = layers.shape
    row = torch.where(crossings.in_row, crossings.line, crossings.first)
    column = torch.where(crossings.in_row, crossings.first, crossings.line)
    first = (crossings.camera * height + row) * width + column
    second = first + torch.where(crossings.in_row, 1, width)
    # A crossing beyond either center can only be a rounding error.
    excess = reach(screen, crossings).clamp(0, 1) - 0.5
    outward = excess.detach() > 0
    second_changes = outward == crossings.inner_first
    target, source = torch.where(second_changes, second, first), torch.where(second_changes, first, second)
    # Not abs(), whose derivative at 0 is 0.
    weight = torch.where(outward, excess, -excess)
    # The weights of silhouettes on several sides of a pixel may sum to more than 1; normalized, the result is a mean.
    total = weight.new_zeros(layers.shape[:3].numel()).index_add(0, target, weight)
    weight = weight / total.index_select(0, target).clamp(min=1)
    flat = layers.reshape(-1, channels)
    change = weight[:, None] * (flat.index_select(0, source) - flat.index_select(0, target))
    return flat.index_add(0, target, change).reshape(layers.shape), target.unique()
