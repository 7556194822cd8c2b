"""Marching tetrahedra over a whole grid, without a band: the reference of `SurfaceBand`."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from steindreamer.representations.mesh.tetrahedra import TetrahedralGrid
from steindreamer.representations.mesh.tetrahedra.connectivity import _cases
from steindreamer.representations.mesh.tetrahedra.grid import EDGES

_NEAR_ZERO = 1e-9


def plain_marching_tetrahedra(
    positions: Float[Tensor, "n 3"], sdf: Float[Tensor, " n"], grid: TetrahedralGrid
) -> tuple[Float[Tensor, "v 3"], Int64[Tensor, "f 3"]]:
    """Vertices and faces of the zero level, with all nodes, edges and tetrahedra examined."""
    inside = sdf.detach() < 0
    numbers, ends = plain_crossing_edges(inside, grid)
    # index_select, because autograd sums the gradient of sdf[ends] in an order that depends on the threads.
    first, second = sdf.index_select(0, ends.reshape(-1)).reshape(-1, 2).unbind(1)
    difference = second - first
    weight = -first / torch.where(difference.abs() < _NEAR_ZERO, difference.detach().sign() * _NEAR_ZERO, difference)
    a, b = positions.index_select(0, ends.reshape(-1)).reshape(-1, 2, 3).unbind(1)
    vertices = a + weight.clamp(0, 1)[:, None] * (b - a)
    return vertices, _faces(inside, numbers, grid)


def plain_crossing_edges(
    inside: Bool[Tensor, " n"], grid: TetrahedralGrid
) -> tuple[Int64[Tensor, " e"], Int64[Tensor, "e 2"]]:
    """Edges with exactly one end inside: their indices (see `TetrahedralGrid.tables`), ascending, and their nodes."""
    side, per_lattice = grid.resolution, grid.nodes // 2
    state = inside.reshape(grid.shape)
    crossing = inside.new_zeros((len(EDGES), side, side, side))
    for kind, (lattice, (change, *steps)) in enumerate(EDGES):
        begin = tuple(slice(0, side - step) for step in steps)
        end = tuple(slice(step, side) for step in steps)
        torch.ne(state[lattice][begin], state[lattice + change][end], out=crossing[kind][begin])
    numbers = crossing.reshape(-1).nonzero()[:, 0]
    kinds, starts = numbers // per_lattice, numbers % per_lattice
    step = torch.tensor([grid.index(step) for _, step in EDGES], device=inside.device)
    lattice = torch.tensor([lattice for lattice, _ in EDGES], device=inside.device)
    nodes = lattice[kinds] * per_lattice + starts
    return numbers, torch.stack([nodes, nodes + step[kinds]], 1)


def _faces(inside: Bool[Tensor, " n"], numbers: Int64[Tensor, " e"], grid: TetrahedralGrid) -> Int64[Tensor, "f 3"]:
    """Triangles between the vertices on the edges `numbers` of `crossing_edges`."""
    vertex_of_edge = torch.empty(len(EDGES) * (grid.nodes // 2), dtype=torch.int64, device=inside.device)
    vertex_of_edge[numbers] = torch.arange(len(numbers), device=inside.device)
    corners, edges = (table.to(inside.device) for table in grid.tables)
    triangles, counts = (table.to(inside.device) for table in _cases())
    bits = torch.tensor([1, 2, 4, 8], device=inside.device)
    faces = []
    for axis, base in enumerate(_crossed_segments(inside, grid)):
        case = (inside[base[:, None, None] + corners[axis]] * bits).sum(-1)
        vertices = base[:, None, None] + edges[axis]
        segment, tetrahedron, place = (counts[case][..., None] > torch.arange(2)).nonzero(as_tuple=True)
        triangle = triangles[case[segment, tetrahedron], place]
        faces.append(vertex_of_edge[vertices[segment, tetrahedron].gather(1, triangle)])
    return torch.cat(faces)


def _crossed_segments(inside: Bool[Tensor, " n"], grid: TetrahedralGrid) -> list[Int64[Tensor, " _"]]:
    """Per axis, the index of (0, x, y, z) of every segment whose tetrahedra have nodes of both signs."""
    corners, centers = inside.reshape(grid.shape).to(torch.uint8)
    low, high, side = slice(0, -1), slice(1, None), grid.resolution
    out = []
    for axis in range(3):
        begin, end = [low, low, low], [low, low, low]
        end[axis] = high
        count = centers[tuple(begin)] + centers[tuple(end)]
        for u in (low, high):
            for v in (low, high):
                place = [high, high, high]
                place[(axis + 1) % 3], place[(axis + 2) % 3] = u, v
                count += corners[tuple(place)]
        x, y, z = ((count > 0) & (count < 6)).nonzero(as_tuple=True)
        out.append((x * side + y) * side + z)
    return out
