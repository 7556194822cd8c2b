"""Reference implementation of differentiable rasterization in torch, in any precision on any device.

It is the test oracle of the fast backends. Visibility is computed for (triangle, pixel) pairs within the bounding box
of each triangle, `PAIRS` at a time.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .fragments import NEAR
from .raster import Raster
from .silhouettes import mix, outermost
from .silhouettes_reference import visible_crossings
from .topology import outline_edges

PAIRS = 2**22


class TorchRaster(Raster):
    """The torch backend of `Raster`: any device and precision."""

    def __init__(self, screen: Float[Tensor, "b v 3"], faces: Int64[Tensor, "f 3"], size: tuple[int, int]) -> None:
        self.screen, self.faces, self.size = screen, faces, size
        triangle = torch.stack([self._visible(points) for points in screen.detach().double()])
        self.pixels = (triangle.flatten() >= 0).nonzero()[:, 0]
        self._camera = self.pixels // triangle[0].numel()
        self._corners = faces[triangle.flatten()[self.pixels]]
        a, b, c = screen.detach()[self._camera[:, None], self._corners].unbind(1)
        # With pixel y pointing down, counter-clockwise winding has negative area.
        self.front = _cross(b - a, c - a) < 0

    def values(self, attributes: Float[Tensor, "v c"]) -> Float[Tensor, "n c+1"]:
        corners = self.screen[self._camera[:, None], self._corners]
        place = self.pixels % (self.size[0] * self.size[1])
        center = torch.stack([place % self.size[1], place // self.size[1]], 1).to(corners) + 0.5
        a, b, c = (corners[:, j, :2] - center for j in range(3))
        linear = torch.stack([_cross(b, c), _cross(c, a), _cross(a, b)], 1)
        weights = linear / corners[..., 2]
        weights = weights / weights.sum(1, keepdim=True)
        values = torch.cat([attributes[self._corners], corners[..., 2:]], 2)
        return (weights[..., None] * values).sum(1)

    def antialias(
        self, layers: Float[Tensor, "b h w c"], vertices: Float[Tensor, "v 3"]
    ) -> tuple[Float[Tensor, "b h w c"], Int64[Tensor, " m"]]:
        depth = layers.new_zeros(layers.shape[:3].numel())
        depth[self.pixels] = self.values(self.screen.new_zeros(self.screen.shape[1], 0)).detach()[:, 0].to(depth)
        edges = outline_edges(vertices, self.faces)
        crossings = visible_crossings(self.screen.detach().double(), edges, depth.reshape(layers.shape[:3]).double())
        return mix(layers, self.screen, outermost(self.screen, crossings, self.size))

    def _visible(self, points: Float[Tensor, "v 3"]) -> Int64[Tensor, "h w"]:
        """The nearest triangle at every pixel center of one camera, or -1; at equal depth the lower index."""
        height, width = self.size
        faces = drawable(points, self.faces)
        corners = points[self.faces[faces]]
        limit = points.new_tensor([width - 1, height - 1])
        first = (corners[..., :2].amin(1) - 0.5).ceil().clamp(min=0).minimum(limit + 1).long()
        last = (corners[..., :2].amax(1) - 0.5).floor().clamp(min=-1).minimum(limit).long()
        span = (last - first + 1).clamp(min=0)
        count = span.prod(1)
        triangle = torch.full((height * width,), -1, device=points.device)
        nearest = torch.zeros(height * width, device=points.device)
        for chunk in _chunks(count):
            owner = chunk.repeat_interleave(count[chunk])
            before = count[chunk].cumsum(0) - count[chunk]
            place = torch.arange(len(owner), device=owner.device) - before.repeat_interleave(count[chunk])
            x, y = (first[owner] + torch.stack([place % span[owner, 0], place // span[owner, 0]], 1)).unbind(1)
            center = torch.stack([x, y], 1).to(points) + 0.5
            a, b, c = corners[owner].unbind(1)
            # Differences of grid coordinates and their products are exact in float64.
            edges = [_cross(v[:, :2] - u[:, :2], center - u[:, :2]) for u, v in ((b, c), (c, a), (a, b))]
            areas = torch.stack(edges, 1) * _cross(b - a, c - a).sign()[:, None]
            inside = (areas >= 0).all(1)
            depths = torch.stack([a[:, 2], b[:, 2], c[:, 2]], 1)
            inverse = ((areas / depths).sum(1) / areas.sum(1))[inside].float()
            owner, pixel = owner[inside], (y * width + x)[inside]
            best = torch.zeros_like(nearest).scatter_reduce(0, pixel, inverse, "amax")
            wins = inverse == best[pixel]
            winner = torch.full_like(triangle, len(self.faces))
            winner = winner.scatter_reduce(0, pixel[wins], faces[owner[wins]], "amin")
            nearer = best > nearest
            triangle, nearest = torch.where(nearer, winner, triangle), torch.where(nearer, best, nearest)
        return triangle.reshape(height, width)


def drawable(points: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Int64[Tensor, " k"]:
    """Indices of the faces with nonzero screen area and no vertex in front of the near plane."""
    a, b, c = points[faces].unbind(1)
    area = _cross(b - a, c - a).abs()
    depth = torch.stack([a[:, 2], b[:, 2], c[:, 2]]).amin(0)
    return ((area > 0) & area.isfinite() & (depth > NEAR)).nonzero()[:, 0]


def _chunks(count: Int64[Tensor, " f"]) -> list[Int64[Tensor, " _"]]:
    """The indices with a nonzero count, in order, in groups with a total count of about `PAIRS`."""
    index = count.nonzero()[:, 0]
    if len(index) == 0:
        return []
    group = (count[index].cumsum(0) - 1) // PAIRS
    return list(index.split(torch.unique_consecutive(group, return_counts=True)[1].tolist()))


def _cross(a: Float[Tensor, "n _"], b: Float[Tensor, "n _"]) -> Float[Tensor, " n"]:
    return a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
