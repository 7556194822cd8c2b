"""A body-centered cubic lattice of nodes and the tetrahedra between them.

It consists of two cubic lattices of `resolution`^3 nodes each, the second one shifted by half a cell along every axis.
Each segment between two neighboring nodes of the second lattice is surrounded by four tetrahedra, whose other two
corners are nodes of the first lattice; together they fill space (congruent tetragonal disphenoids). Compared with the
Kuhn subdivision of cubes (six tetrahedra per cube) with the same number of nodes, the extracted surfaces of a torus, a
box and a bumpy sphere were 23 to 31 % more accurate, with 6 to 7 % fewer triangles and fewer slivers.

All indices are computed arithmetically, without large tables. Node (lattice l, x, y, z) has the index
((l R + x) R + y) R + z; an edge is identified by its kind and its first node.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Step = tuple[int, int, int, int]
"""Offset from one node to another: change of lattice, x, y and z."""

_UNIT: tuple[Step, ...] = ((0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
_CORNER = (0, 1)
EDGES: tuple[tuple[int, Step], ...] = (
    *((0, step) for step in _UNIT),
    *((1, step) for step in _UNIT),
    *((1, (-1, x, y, z)) for x in _CORNER for y in _CORNER for z in _CORNER),
)
"""The kinds of edges: lattice of the first node, and step to the second node."""
EDGES_OF_TETRAHEDRON = ((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))
"""Corners of the six edges of a tetrahedron."""


@dataclass(frozen=True)
class TetrahedralGrid:
    """The lattice over the cube [-extent, extent]^3. Raises ValueError for a resolution below 4 or an empty cube."""

    resolution: int
    """Number of nodes per axis of each of the two lattices."""
    extent: float = 1.0
    """Half the side of the cube in meters."""

    def __post_init__(self) -> None:
        if self.resolution < 4 or not self.extent > 0:
            raise ValueError(f"need resolution >= 4 and extent > 0, got {self.resolution} and {self.extent}")

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of node values as an array over lattice, x, y, z."""
        return (2, self.resolution, self.resolution, self.resolution)

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return 2 * self.resolution**3

    @property
    def cell(self) -> float:
        """Distance between neighboring nodes of one lattice, in meters."""
        return 2 * self.extent / (self.resolution - 0.5)

    @property
    def positions(self) -> Float[Tensor, "n 3"]:
        """World positions of the nodes, in meters."""
        axis = torch.arange(self.resolution, dtype=torch.float32)
        first = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
        return torch.cat([first, first + 0.5]) * self.cell - self.extent

    @property
    def border(self) -> Bool[Tensor, " n"]:
        """Whether each node is on the border. A surface with all border nodes outside is closed."""
        inner = torch.zeros(self.shape, dtype=torch.bool)
        inner[:, 1:-1, 1:-1, 1:-1] = True
        return ~inner.reshape(-1)

    @property
    def tetrahedra(self) -> Int64[Tensor, "t 4"]:
        """Node indices of all tetrahedra, positively oriented: (b - a) . ((c - a) x (d - a)) > 0."""
        first = torch.arange(self.nodes // 2).reshape(self.shape[1:])
        base = first[:-1, :-1, :-1].reshape(-1, 1, 1)
        corners, _ = self.tables
        return torch.cat([base + table for table in corners]).reshape(-1, 4)

    def nearest(self, points: Float[Tensor, "m 3"]) -> Int64[Tensor, "m 2"]:
        """The node of each lattice that is nearest to a point (meters)."""
        lattice = torch.arange(2, device=points.device)
        where = (points[:, None] + self.extent) / self.cell - 0.5 * lattice[:, None]
        return self._numbers(lattice, where.round().long().clamp(0, self.resolution - 1))

    def locate(self, points: Float[Tensor, "m 3"]) -> tuple[Int64[Tensor, "m 4"], Float[Tensor, "m 4"]]:
        """Corners of the tetrahedron that contains a point (meters), and its barycentric coordinates.

        Points closer to the border than a cell may get other corners.
        """
        where = (points + self.extent) / self.cell - 0.5
        center = where.round()
        offset = where - center
        # The tetrahedron is around the segment along the axis of the largest offset; of the four, it is the one on the
        # side of the second largest.
        size, axes = offset.abs().sort(1, descending=True)
        step = F.one_hot(axes, 3) * torch.where(offset < 0, -1, 1)[:, None]
        first, second, third = step.unbind(1)
        x, y, z = size.unbind(1)
        middle = center.long()[:, None]
        centers = torch.stack([torch.zeros_like(first), first], 1) + middle
        # A center (x, y, z) is between the nodes (x, y, z) and (x + 1, y + 1, z + 1) of the first lattice.
        square = torch.stack([first + second + third, first + second - third], 1)
        square = torch.div(square + 1, 2, rounding_mode="floor") + middle
        corners = torch.cat([centers, square], 1).clamp(0, self.resolution - 1)
        lattice = torch.tensor([1, 1, 0, 0], device=points.device)
        return self._numbers(lattice, corners), torch.stack([1 - x - y, x - y, y + z, y - z], 1)

    def _numbers(self, lattice: Int64[Tensor, " k"], corners: Int64[Tensor, "m k 3"]) -> Int64[Tensor, "m k"]:
        """Indices of nodes."""
        x, y, z = corners.unbind(2)
        return ((lattice * self.resolution + x) * self.resolution + y) * self.resolution + z

    def index(self, step: Step) -> int:
        """Difference of node indices of a step; the index of a node for the step from node 0."""
        lattice, x, y, z = step
        return ((lattice * self.resolution + x) * self.resolution + y) * self.resolution + z

    @property
    def tables(self) -> tuple[Int64[Tensor, "3 4 4"], Int64[Tensor, "3 4 6"]]:
        """Corners and edges of the four tetrahedra around a segment along each axis.

        They are relative to the index of (0, x, y, z), where (1, x, y, z) is the first node of the segment. The index
        of an edge is kind * n / 2 + the index of its first node within its lattice.
        """
        return _tables(self.resolution)


def interpolate_lattice(weights: Float[Tensor, "2 r k"], coarse: Float[Tensor, "k k k"]) -> Float[Tensor, "2 r r r"]:
    """Values at the nodes by separable interpolation from a coarse cubic lattice.

    Args:
        weights: Weights of the coarse values at the nodes along one axis, per lattice.
        coarse: Values on the coarse lattice.
    """
    values = torch.einsum("lxi,ijk->lxjk", weights, coarse)
    values = torch.einsum("lyj,lxjk->lxyk", weights, values)
    return torch.einsum("lzk,lxyk->lxyz", weights, values)


@lru_cache(maxsize=16)
def _tables(resolution: int) -> tuple[Int64[Tensor, "3 4 4"], Int64[Tensor, "3 4 6"]]:
    kinds = {edge: kind for kind, edge in enumerate(EDGES)}

    grid = TetrahedralGrid(resolution)

    def edge(a: Step, b: Step) -> int:
        step = (b[0] - a[0], b[1] - a[1], b[2] - a[2], b[3] - a[3])
        if (a[0], step) not in kinds:
            return edge(b, a)
        return grid.index((kinds[a[0], step], *a[1:]))

    corners, edges = [], []
    for tetrahedra in _around_segments():
        corners.append([[grid.index(node) for node in tetrahedron] for tetrahedron in tetrahedra])
        edges.append(
            [[edge(tetrahedron[i], tetrahedron[j]) for i, j in EDGES_OF_TETRAHEDRON] for tetrahedron in tetrahedra]
        )
    return torch.tensor(corners), torch.tensor(edges)


def _around_segments() -> list[list[tuple[Step, Step, Step, Step]]]:
    """For every axis, the four tetrahedra around the segment that starts at node (1, 0, 0, 0)."""
    out = []
    for axis in range(3):
        # u, v and the axis are a cyclic permutation of x, y, z, so that the orientation is right-handed.
        u, v = (axis + 1) % 3, (axis + 2) % 3

        def node(lattice: int, *axes: int) -> Step:
            return (lattice, int(0 in axes), int(1 in axes), int(2 in axes))

        square = [node(0, axis), node(0, axis, u), node(0, axis, u, v), node(0, axis, v)]
        begin, end = node(1), node(1, axis)
        out.append([(begin, end, square[k], square[(k + 1) % 4]) for k in range(4)])
    return out
