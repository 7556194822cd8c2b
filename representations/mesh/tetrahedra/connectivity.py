"""Connectivity of the surface between the inside and the outside nodes of a tetrahedral grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import permutations

import numpy as np
import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from ._connectivity_kernels import faces_kernel
from .grid import EDGES, EDGES_OF_TETRAHEDRON, TetrahedralGrid


def crossing_edges(
    inside: Bool[Tensor, " n"], grid: TetrahedralGrid
) -> tuple[Int64[Tensor, " e"], Int64[Tensor, "e 2"]]:
    """Edges with exactly one end inside: their indices (see `TetrahedralGrid.tables`), ascending, and their nodes."""
    return _edges_where(torch.ne, inside, grid)


class SurfaceBand:
    """The connectivity of a surface that changes little from one extraction to the next.

    Only the edges and tetrahedra within a band around an earlier surface are examined. A node outside the band that
    changes its sign is noticed, and the band is found again, so that the result does not depend on the band.

    Args:
        grid: The grid.
        width: Number of edges from the surface to the border of the band, which its nodes can cross before the band is
            found again.
    """

    def __init__(self, grid: TetrahedralGrid, width: int = 2) -> None:
        self.grid = grid
        self.width = width
        self._inside: Bool[Tensor, " n"] | None = None
        """Signs of the nodes for which the band was found."""

    def topology(self, inside: Bool[Tensor, " n"]) -> tuple[Int64[Tensor, "v 2"], Int64[Tensor, "f 3"]]:
        """The nodes at both ends of the edge of every vertex, in the order of `crossing_edges`, and the faces.

        Args:
            inside: Whether each node is inside the surface.
        """
        if not self._contains(inside):
            self._find(inside)
        begin, end = self._ends
        chosen = (inside[begin] != inside[end]).nonzero()[:, 0]
        vertex_of_edge = torch.empty_like(begin)
        vertex_of_edge[chosen] = torch.arange(len(chosen), device=inside.device)
        find_faces = self._faces_compiled if inside.device.type == "cpu" else self._faces
        return torch.stack([begin[chosen], end[chosen]], 1), find_faces(inside, vertex_of_edge, len(chosen))

    def _contains(self, inside: Bool[Tensor, " n"]) -> bool:
        """Whether all nodes outside the band have the signs for which the band was found."""
        if self._inside is None or self._inside.device != inside.device:
            return False
        return not bool(((inside != self._inside) & self._outside_band).any())

    def _find(self, inside: Bool[Tensor, " n"]) -> None:
        """Find the band around a surface, and index its edges and tetrahedra.

        The band contains both ends of all crossing edges, so that an edge between two nodes outside it did not cross,
        and cannot cross as long as their signs stay the same.
        """
        grid, device = self.grid, inside.device
        near = torch.zeros_like(inside).reshape(grid.shape)
        for (begin, end), (near_begin, near_end) in zip(
            _edge_ends(inside.reshape(grid.shape)), _edge_ends(near), strict=True
        ):
            crossing = begin != end
            near_begin |= crossing
            near_end |= crossing
        for _ in range(self.width):
            wider = near.clone()
            for (begin, end), (wider_begin, wider_end) in zip(_edge_ends(near), _edge_ends(wider), strict=True):
                wider_begin |= end
                wider_end |= begin
            near = wider
        self._inside = inside.clone()
        self._outside_band = ~near.reshape(-1)
        numbers, ends = _edges_where(torch.logical_or, near.reshape(-1), grid)
        self._ends = (ends[:, 0].contiguous(), ends[:, 1].contiguous())
        self._segments = _segments_near(near, grid)
        # The places of the edges of each tetrahedron in the band's list of edges. All of them are in it where a
        # tetrahedron is crossed; elsewhere the place has no meaning.
        place_of_edge = torch.zeros(len(EDGES) * (grid.nodes // 2), dtype=torch.int32, device=device)
        place_of_edge[numbers] = torch.arange(len(numbers), dtype=torch.int32, device=device)
        self._edge_places = [
            place_of_edge[base[:, None, None] + edges.to(device)]
            for base, edges in zip(self._segments, grid.tables[1], strict=True)
        ]

    def _faces(
        self, inside: Bool[Tensor, " n"], vertex_of_edge: Int64[Tensor, " e"], vertices: int
    ) -> Int64[Tensor, "f 3"]:
        """Triangles between the vertices.

        Args:
            inside: Whether each node is inside the surface.
            vertex_of_edge: The vertex on every crossing edge of the band.
            vertices: Number of vertices.
        """
        corners = self.grid.tables[0].to(inside.device)
        triangles, counts = (table.to(inside.device) for table in _cases())
        bits = torch.tensor([1, 2, 4, 8], device=inside.device)
        faces = []
        for axis, (base, places) in enumerate(zip(self._segments, self._edge_places, strict=True)):
            around = corners[axis].unique()
            inner = torch.zeros_like(base, dtype=torch.uint8)
            for corner in around:
                inner += inside[base + corner]
            crossed = ((inner > 0) & (inner < len(around))).nonzero()[:, 0]
            case = (inside[base[crossed][:, None, None] + corners[axis]] * bits).sum(-1)
            edges = places[crossed]
            drawn = counts[case][..., None] > torch.arange(2, device=inside.device)
            segment, tetrahedron, place = drawn.nonzero(as_tuple=True)
            triangle = triangles[case[segment, tetrahedron], place]
            faces.append(vertex_of_edge[edges[segment, tetrahedron].gather(1, triangle).long()])
        return torch.cat(faces)

    def _faces_compiled(
        self, inside: Bool[Tensor, " n"], vertex_of_edge: Int64[Tensor, " e"], vertices: int
    ) -> Int64[Tensor, "f 3"]:
        """`_faces` in CPU memory."""
        vertex_of, triangles, counts = (table.numpy() for table in (vertex_of_edge, *_cases()))
        # Of a tetrahedron's edges, three are crossed by one triangle or four by two, and an edge is in at most six.
        faces = np.empty((3 * vertices, 3), np.int64)
        found = 0
        for base, places, corners in zip(self._segments, self._edge_places, self.grid.tables[0], strict=True):
            nodes, tables = inside.numpy(), (base.numpy(), corners.numpy(), places.numpy())
            found += faces_kernel(nodes, *tables, vertex_of, triangles, counts, faces[found:])
        return torch.from_numpy(faces[:found])


def _edge_ends(
    values: Bool[Tensor, "2 r r r"],
) -> Iterator[tuple[Bool[Tensor, "_ _ _"], Bool[Tensor, "_ _ _"]]]:
    """Per kind of edge, views of the values at the first and at the second nodes of all edges."""
    side = values.shape[1]
    for lattice, (change, *steps) in EDGES:
        begin = tuple(slice(0, side - step) for step in steps)
        end = tuple(slice(step, side) for step in steps)
        yield values[lattice][begin], values[lattice + change][end]


def _edges_where(
    condition: Callable[[Tensor, Tensor], Tensor], values: Bool[Tensor, " n"], grid: TetrahedralGrid
) -> tuple[Int64[Tensor, " e"], Int64[Tensor, "e 2"]]:
    """Edges whose values at both ends fulfill the condition: their indices, ascending, and their nodes."""
    per_lattice, numbers, nodes = grid.nodes // 2, [], []
    for kind, (begin, end) in enumerate(_edge_ends(values.reshape(grid.shape))):
        lattice, step = EDGES[kind]
        fulfilled = values.new_zeros(grid.shape[1:])
        fulfilled[tuple(slice(0, size) for size in begin.shape)] = condition(begin, end)
        starts = fulfilled.reshape(-1).nonzero()[:, 0]
        numbers.append(kind * per_lattice + starts)
        first = lattice * per_lattice + starts
        nodes.append(torch.stack([first, first + grid.index(step)], 1))
    return torch.cat(numbers), torch.cat(nodes)


def _segments_near(near: Bool[Tensor, "2 r r r"], grid: TetrahedralGrid) -> list[Int64[Tensor, " _"]]:
    """Per axis, the index of (0, x, y, z) of every segment whose tetrahedra have a node in the band."""
    corners, centers = near
    low, high, side = slice(0, -1), slice(1, None), grid.resolution
    out = []
    for axis in range(3):
        begin, end = [low, low, low], [low, low, low]
        end[axis] = high
        touched = centers[tuple(begin)] | centers[tuple(end)]
        for u in (low, high):
            for v in (low, high):
                place = [high, high, high]
                place[(axis + 1) % 3], place[(axis + 2) % 3] = u, v
                touched |= corners[tuple(place)]
        x, y, z = touched.nonzero(as_tuple=True)
        out.append((x * side + y) * side + z)
    return out


@lru_cache(maxsize=1)
def _cases() -> tuple[Int64[Tensor, "16 2 3"], Int64[Tensor, " 16"]]:
    """Triangles (as edges of the tetrahedron) and their number, by the mask of inside corners (bit i: corner i)."""
    edge = {frozenset(ends): number for number, ends in enumerate(EDGES_OF_TETRAHEDRON)}
    triangles, counts = torch.zeros(16, 2, 3, dtype=torch.int64), torch.zeros(16, dtype=torch.int64)
    for i, j, k, last in permutations(range(4)):
        if torch.eye(4)[[i, j, k, last]].det() < 0:
            continue
        # In a positively oriented tetrahedron, this is counter-clockwise, viewed from the corners other than i.
        cut = [edge[frozenset((i, other))] for other in (j, k, last)]
        triangles[1 << i, 0], counts[1 << i] = torch.tensor(cut), 1
        triangles[15 - (1 << i), 0], counts[15 - (1 << i)] = torch.tensor(cut[::-1]), 1
        if i < j:
            p, q, r, s = (edge[frozenset(ends)] for ends in ((i, k), (i, last), (j, last), (j, k)))
            case = (1 << i) | (1 << j)
            triangles[case], counts[case] = torch.tensor([[p, q, r], [p, r, s]]), 2
    return triangles, counts
