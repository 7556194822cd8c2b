"""Reference implementation of the search for silhouettes in torch; see `silhouettes`."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from .fragments import NEAR
from .silhouettes import HIDDEN, STRAY, Crossings


def visible_crossings(
    screen: Float[Tensor, "b v 3"], edges: Int64[Tensor, "e 4"], depth: Float[Tensor, "b h w"]
) -> Crossings:
    """All crossings of visible silhouettes between two pixel centers; `depth` (meters) is 0 where empty."""
    a, b, c, d = (screen[:, column.clamp(min=0)] for column in edges.unbind(1))
    one, other = _side(a, b, c), _side(a, b, d) * (edges[:, 3] >= 0)
    in_front = (a[..., 2] > NEAR) & (b[..., 2] > NEAR) & a.isfinite().all(2) & b.isfinite().all(2)
    silhouette = in_front & ((one * other > 0) | ((one == 0) != (other == 0)))
    steep = (b - a)[..., 1].abs() >= (b - a)[..., 0].abs()
    rows = _along_rows((a, b, c, d), (one != 0, other != 0), silhouette, depth)
    swapped = tuple(points[..., [1, 0, 2]] for points in (a, b, c, d))
    columns = _along_rows(swapped, (one != 0, other != 0), silhouette, depth.transpose(1, 2))
    found = []
    for in_rows, (camera, edge, line, first, inner_first) in ((True, rows), (False, columns)):
        across = steep[camera, edge] == in_rows
        axis = torch.full_like(across, in_rows)
        found.append(Crossings(camera, axis, line, first, inner_first, edges[edge, 0], edges[edge, 1], across))
    return Crossings(*(torch.cat(pair) for pair in zip(*(vars(part).values() for part in found), strict=True)))


def _along_rows(
    points: tuple[Float[Tensor, "b e 3"], ...],
    exists: tuple[Bool[Tensor, "b e"], Bool[Tensor, "b e"]],
    silhouette: Bool[Tensor, "b e"],
    depth: Float[Tensor, "b h w"],
) -> tuple[Tensor, ...]:
    """Camera, edge, row, first pixel, and whether that is the inner one, of crossings along rows.

    `exists` says whether each edge has a first and a second face.
    """
    _, height, width = depth.shape
    a, b = points[:2]
    low, high = torch.minimum(a, b)[..., 1], torch.maximum(a, b)[..., 1]
    first = (low - 0.5).ceil().clamp(0, height).nan_to_num().long()
    last = (high - 0.5).floor().clamp(-1, height - 1).nan_to_num().long()
    lines = torch.where(silhouette & (low < high), (last - first + 1).clamp(min=0), 0)

    camera, edge = lines.nonzero().unbind(1)
    count = lines[camera, edge]
    rank = torch.arange(int(count.sum()), device=count.device) - (count.cumsum(0) - count).repeat_interleave(count)
    camera, edge = camera.repeat_interleave(count), edge.repeat_interleave(count)
    line = first[camera, edge] + rank
    a, b, c, d = (p[camera, edge] for p in points)
    fraction = (line + 0.5 - a[:, 1]) / (b[:, 1] - a[:, 1])
    place = a[:, 0] + fraction * (b[:, 0] - a[:, 0]) - 0.5
    inverse = (1 - fraction) / a[:, 2] + fraction / b[:, 2]

    aside, slope = zip(_slope(a, b, c), _slope(a, b, d), strict=True)
    present = tuple(face[camera, edge] for face in exists)
    inward = torch.where(present[0], aside[0], aside[1]) > 0
    # The front face is the nearer one: its 1/z increases fastest.
    steepest = torch.maximum(*(torch.where(face, s, -torch.inf) for face, s in zip(present, slope, strict=True)))

    within = (place >= 0) & (place < width - 1)
    left = place.clamp(0, max(width - 2, 0)).nan_to_num().long()
    inner, outer = torch.where(inward, left + 1, left), torch.where(inward, left, left + 1)
    near = torch.where(depth > 0, 1 / depth, 0)
    inner_near, outer_near = (near[camera, line, x.clamp(max=width - 1)] for x in (inner, outer))
    behind = steepest * (inner - place).abs()
    visible = (inner_near > 0) & (outer_near < inverse * (1 - HIDDEN))
    visible &= inner_near >= inverse + behind.clamp(max=0) - behind.abs() - STRAY * inverse
    return tuple(column[within & visible] for column in (camera, edge, line, left, ~inward))


def _side(a: Float[Tensor, "b e 3"], b: Float[Tensor, "b e 3"], c: Float[Tensor, "b e 3"]) -> Float[Tensor, "b e"]:
    """Twice the signed area of the triangle; 0 if c is in front of the near plane."""
    u, v = b - a, c - a
    return (u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]) * (c[..., 2] > NEAR)


def _slope(
    a: Float[Tensor, "m 3"], b: Float[Tensor, "m 3"], c: Float[Tensor, "m 3"]
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Signed distance of c from the edge along the row, and slope of 1/z toward c."""
    fraction = (c[:, 1] - a[:, 1]) / (b[:, 1] - a[:, 1])
    aside = c[:, 0] - (a[:, 0] + fraction * (b[:, 0] - a[:, 0]))
    return aside, (1 / c[:, 2] - (1 - fraction) / a[:, 2] - fraction / b[:, 2]) / aside.abs()
