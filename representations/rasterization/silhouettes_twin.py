"""The search for silhouettes in torch; see `silhouettes`."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .fragments import NEAR
from .silhouettes import HIDDEN, STRAY, Crossings


def visible_crossings(
    screen: Float[Tensor, "b v 3"], edges: Int64[Tensor, "e 4"], depth: Float[Tensor, "b h w"]
) -> Crossings:
    """Every place where a visible silhouette passes between two pixel centres. `depth` is 0 where empty."""
    _, height, width = depth.shape
    a, b, c, d = (screen[:, column.clamp(min=0)] for column in edges.unbind(1))
    one = _side(a, b, c)
    other = _side(a, b, d) * (edges[:, 3] >= 0)
    silhouette = (a[..., 2] > NEAR) & (b[..., 2] > NEAR) & ((one * other > 0) | ((one == 0) != (other == 0)))

    # From here on, u runs along the line of pixels that an edge is compared with, v across.
    steep = (b - a)[..., 1].abs() >= (b - a)[..., 0].abs()
    a, b, c, d = (torch.where(steep[..., None], p, p[..., [1, 0, 2]]) for p in (a, b, c, d))
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    limit = torch.where(steep, height, width)
    first = (low[..., 1] - 0.5).ceil().clamp(0, max(height, width)).long()
    last = (high[..., 1] - 0.5).floor().clamp(-1, max(height, width)).long().minimum(limit - 1)
    proper = silhouette & (low[..., 1] < high[..., 1]) & low[..., 0].isfinite() & high[..., 0].isfinite()
    lines = torch.where(proper, (last - first + 1).clamp(min=0), 0)

    camera, edge = lines.nonzero().unbind(1)
    count = lines[camera, edge]
    rank = torch.arange(int(count.sum()), device=count.device) - (count.cumsum(0) - count).repeat_interleave(count)
    camera, edge = camera.repeat_interleave(count), edge.repeat_interleave(count)
    line = first[camera, edge] + rank
    a, b, c, d = (p[camera, edge] for p in (a, b, c, d))
    share = (line + 0.5 - a[:, 1]) / (b[:, 1] - a[:, 1])
    place = a[:, 0] + share * (b[:, 0] - a[:, 0]) - 0.5
    inverse = (1 - share) / a[:, 2] + share / b[:, 2]

    aside, slope = zip(_slope(a, b, c), _slope(a, b, d), strict=True)
    drawn = one[camera, edge] != 0, other[camera, edge] != 0
    inwards = torch.where(drawn[0], aside[0], aside[1]) > 0
    # The face towards the camera is the nearer one: its 1/z grows fastest.
    behind = torch.stack([torch.where(there, s, -torch.inf) for there, s in zip(drawn, slope, strict=True)]).amax(0)

    steep = steep[camera, edge]
    within = (place >= 0) & (place < torch.where(steep, width, height) - 1)
    left = place.clamp(0, max(height, width)).long()
    inner, outer = torch.where(inwards, left + 1, left), torch.where(inwards, left, left + 1)
    inner_inverse = _inverse_depth(depth, camera, steep, line, inner)
    outer_inverse = _inverse_depth(depth, camera, steep, line, outer)
    behind = behind * (inner - place).abs()
    seen = (inner_inverse > 0) & (outer_inverse < inverse * (1 - HIDDEN))
    seen &= inner_inverse >= inverse + behind.clamp(max=0) - behind.abs() - STRAY * inverse
    crossings = Crossings(camera, steep, line, left, ~inwards, edges[edge, 0], edges[edge, 1])
    return crossings[(within & seen).nonzero()[:, 0]]


def _side(a: Float[Tensor, "b e 3"], b: Float[Tensor, "b e 3"], c: Float[Tensor, "b e 3"]) -> Float[Tensor, "b e"]:
    """Twice the signed area of the triangle; 0 if c is too near to be drawn."""
    u, v = b - a, c - a
    return (u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]) * (c[..., 2] > NEAR)


def _slope(
    a: Float[Tensor, "m 3"], b: Float[Tensor, "m 3"], c: Float[Tensor, "m 3"]
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """How far c is from the edge along u, and how fast 1/z grows towards it."""
    share = (c[:, 1] - a[:, 1]) / (b[:, 1] - a[:, 1])
    aside = c[:, 0] - (a[:, 0] + share * (b[:, 0] - a[:, 0]))
    return aside, (1 / c[:, 2] - (1 - share) / a[:, 2] - share / b[:, 2]) / aside.abs()


def _inverse_depth(
    depth: Float[Tensor, "b h w"],
    camera: Int64[Tensor, " m"],
    steep: Tensor,
    line: Int64[Tensor, " m"],
    place: Int64[Tensor, " m"],
) -> Float[Tensor, " m"]:
    """1/z of the pixels at `place` in row (or column) `line`; 0 where empty or outside."""
    y = torch.where(steep, line, place).clamp(max=depth.shape[1] - 1)
    x = torch.where(steep, place, line).clamp(max=depth.shape[2] - 1)
    z = depth[camera, y, x]
    return torch.where(z > 0, 1 / z, 0)
