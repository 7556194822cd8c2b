"""Where silhouettes pass between two neighbouring pixel centres, and the mixing of such pixels.

An edge is a silhouette where its faces lie on the same side of it on the screen, or where it has one face only. It is
walked over the pixel grid, whatever the size of its triangles: an edge need not belong to the triangle that a pixel
shows. (Antialiasing that starts at the pixels [Laine et al. 2020] loses edges once triangles are smaller than a pixel.)
The mixing is theirs: along rows for steep edges, along columns for flat ones.

Where outlines of two parts meet in a notch, each goes on hidden behind the other, and pixel centres are too far apart
to tell where it ends. So edges are walked along both axes, and whatever is not the outermost between two pixels is
dropped (counting it would bias d(area) of a bumpy sphere by 2 to 3 %).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

HIDDEN = 1e-4
"""An edge is hidden if the outer pixel is nearer to the camera than the edge, by this fraction of the depth."""
STRAY = 5e-3
"""The inner pixel may lie behind the edge by this fraction of the depth, beyond twice the slope of the edge's face.
What lies farther back belongs to another part of the scene, and the edge to something too thin for the pixel grid."""


@dataclass(frozen=True)
class Crossings:
    """Visible silhouettes between two neighbouring pixel centres; several may fall between the same two."""

    camera: Int64[Tensor, " m"]
    in_row: Bool[Tensor, " m"]
    """Whether the two pixels are neighbours in a row (else in a column)."""
    line: Int64[Tensor, " m"]
    """That row (or column),"""
    first: Int64[Tensor, " m"]
    """and the first pixel's place in it; the other pixel is the next one."""
    inner_first: Bool[Tensor, " m"]
    """Whether the first pixel is the one on the inner side."""
    start: Int64[Tensor, " m"]
    end: Int64[Tensor, " m"]
    """Vertices of the edge."""
    across: Bool[Tensor, " m"]
    """Whether the edge goes rather across that row (or column) than along it: only then the two are mixed."""

    def __getitem__(self, index: Tensor) -> Crossings:
        return Crossings(*(column[index] for column in vars(self).values()))


def reach(screen: Float[Tensor, "b v 3"], crossings: Crossings) -> Float[Tensor, " m"]:
    """Where the silhouettes cross: 0 at the inner pixel's centre, 1 at the outer one's. Differentiable."""
    count = screen.shape[1]
    points = screen[..., :2].reshape(-1, 2)
    start = points.index_select(0, crossings.camera * count + crossings.start)
    end = points.index_select(0, crossings.camera * count + crossings.end)
    in_row = crossings.in_row[:, None]
    along, across = torch.where(in_row, start, start.flip(1)).unbind(1)
    along_end, across_end = torch.where(in_row, end, end.flip(1)).unbind(1)
    share = (crossings.line.to(along) + 0.5 - across) / (across_end - across)
    place = along + share * (along_end - along) - 0.5 - crossings.first.to(along)
    return torch.where(crossings.inner_first, place, 1 - place)


def outermost(screen: Float[Tensor, "b v 3"], crossings: Crossings, size: tuple[int, int]) -> Crossings:
    """Of all silhouettes between the same two pixels the one that reaches farthest out, if they are to be mixed."""
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
    """The pixel on whose side of the half-way point a silhouette passes takes on the other's values, up to one half.

    Also returns the (flat) indices of those pixels.
    """
    _, height, width, channels = layers.shape
    row = torch.where(crossings.in_row, crossings.line, crossings.first)
    column = torch.where(crossings.in_row, crossings.first, crossings.line)
    first = (crossings.camera * height + row) * width + column
    second = first + torch.where(crossings.in_row, 1, width)
    # A crossing beyond either centre can only be rounding.
    excess = reach(screen, crossings).clamp(0, 1) - 0.5
    outwards = excess.detach() > 0
    second_changes = outwards == crossings.inner_first
    target, source = torch.where(second_changes, second, first), torch.where(second_changes, first, second)
    # Not abs(), whose slope at 0 is 0.
    weight = torch.where(outwards, excess, -excess)
    # Silhouettes on several sides of one pixel may add up to more than all of it: the result stays a mean.
    total = weight.new_zeros(layers.shape[:3].numel()).index_add(0, target, weight)
    weight = weight / total.index_select(0, target).clamp(min=1)
    flat = layers.reshape(-1, channels)
    change = weight[:, None] * (flat.index_select(0, source) - flat.index_select(0, target))
    return flat.index_add(0, target, change).reshape(layers.shape), target.unique()
