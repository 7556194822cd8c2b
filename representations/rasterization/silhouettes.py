"""Where silhouettes pass between two neighbouring pixel centres, and the mixing of such pixels.

An edge is a silhouette where its faces lie on the same side of it on the screen, or where it has one face only. It is
walked over the pixel grid (rows if it is steep, columns if not), whatever the size of its triangles: an edge need not
belong to the triangle that a pixel shows. (Antialiasing that starts at the pixels [Laine et al. 2020] loses edges once
triangles are smaller than a pixel.) The mixing is theirs.
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
    steep: Bool[Tensor, " m"]
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

    def __getitem__(self, index: Tensor) -> Crossings:
        return Crossings(*(column[index] for column in vars(self).values()))


def reach(screen: Float[Tensor, "b v 3"], crossings: Crossings) -> Float[Tensor, " m"]:
    """Where the silhouettes cross: 0 at the inner pixel's centre, 1 at the outer one's. Differentiable."""
    count = screen.shape[1]
    points = screen[..., :2].reshape(-1, 2)
    start = points.index_select(0, crossings.camera * count + crossings.start)
    end = points.index_select(0, crossings.camera * count + crossings.end)
    steep = crossings.steep[:, None]
    along, across = torch.where(steep, start, start.flip(1)).unbind(1)
    along_end, across_end = torch.where(steep, end, end.flip(1)).unbind(1)
    share = (crossings.line.to(along) + 0.5 - across) / (across_end - across)
    place = along + share * (along_end - along) - 0.5 - crossings.first.to(along)
    return torch.where(crossings.inner_first, place, 1 - place)


def outermost(screen: Float[Tensor, "b v 3"], crossings: Crossings, size: tuple[int, int]) -> Crossings:
    """Of all silhouettes between the same two pixels the one that reaches farthest out."""
    longest = max(size)
    slot = (crossings.camera * 2 + crossings.steep.long()) * longest + crossings.line
    slot = slot * longest + crossings.first
    order = torch.argsort(reach(screen.detach(), crossings), descending=True, stable=True)
    order = order[torch.argsort(slot[order], stable=True)]
    slot = slot[order]
    leads = torch.ones_like(slot, dtype=torch.bool)
    leads[1:] = slot[1:] != slot[:-1]
    return crossings[order[leads]]


def mix(
    layers: Float[Tensor, "b h w c"], screen: Float[Tensor, "b v 3"], crossings: Crossings
) -> Float[Tensor, "b h w c"]:
    """The pixel on whose side of the half-way point a silhouette passes takes on the other's values, up to one half."""
    if len(crossings.camera) == 0:
        return layers
    _, height, width, channels = layers.shape
    step = torch.where(crossings.steep, 1, width)
    first = torch.where(
        crossings.steep,
        crossings.line * width + crossings.first,
        crossings.first * width + crossings.line,
    )
    first = first + crossings.camera * (height * width)
    inner = torch.where(crossings.inner_first, first, first + step)
    outer = torch.where(crossings.inner_first, first + step, first)
    # A crossing beyond either centre can only be rounding.
    excess = reach(screen, crossings).clamp(0, 1) - 0.5
    outwards = excess.detach() > 0
    target, source = torch.where(outwards, outer, inner), torch.where(outwards, inner, outer)
    weight = excess.abs()
    # Silhouettes on several sides of one pixel may add up to more than all of it: the result stays a mean.
    total = weight.new_zeros(layers.shape[:3].numel()).index_add(0, target, weight)
    weight = weight / total.index_select(0, target).clamp(min=1)
    flat = layers.reshape(-1, channels)
    change = weight[:, None] * (flat.index_select(0, source) - flat.index_select(0, target))
    return flat.index_add(0, target, change).reshape(layers.shape)
