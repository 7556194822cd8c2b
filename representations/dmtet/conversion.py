"""From a given triangle mesh to node values of a tetrahedral grid."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from scipy.spatial import KDTree
from torch import Tensor

from ..fields import ColourField
from ..mesh import TriangleMesh
from ..signed_distance import signed_distance
from ..surface_samples import sample_surface
from .grid import TetrahedralGrid
from .marching_tetrahedra import marching_tetrahedra

DEPTHS = (1 / 2, 1 / 4, 1 / 8, 1 / 16)
"""How far below the surface, in cells, the points lie the new surface must contain: the deepest possible."""
ROUNDS = 3
FIT_STEPS, FIT_BATCH, FIT_POINTS = 300, 4096, 65536
CHECK_POINTS = 4096
GREY = 0.5
"""sRGB of a mesh without colours."""


def nodes_on_surface(
    mesh: TriangleMesh, grid: TetrahedralGrid, reach: float, generator: torch.Generator
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, " n"]]:
    """Node positions and their signed distances to a closed mesh, on the CPU.

    Nodes are moved, by at most `reach` metres along every axis, only where the mesh is too thin for the grid: into
    parts that would be lost between the nodes, then into gaps that would be closed. Raises ValueError if nothing is
    inside.
    """
    mesh = TriangleMesh(mesh.vertices.detach().cpu(), mesh.faces.cpu())
    positions = grid.positions
    sdf = signed_distance(positions, mesh)
    moved = grid.border
    for side in (1.0, -1.0):
        must_contain = _points_beside(mesh, grid, side, generator)
        for _ in range(ROUNDS):
            missed = must_contain[_is_missed(must_contain, positions, sdf, grid, side)]
            nodes, places = _nearest_nodes(missed, grid, ~moved & (side * sdf >= 0))
            if len(nodes) == 0:
                break
            offsets = (places - positions[nodes]).clamp(-reach, reach)
            positions[nodes] += offsets
            sdf[nodes] = signed_distance(positions[nodes], mesh)
            moved[nodes] = True
    if not bool((sdf < 0).any()):
        raise ValueError("the mesh has no inside: its faces must point outwards and leave no large holes")
    return positions, sdf


def _points_beside(
    mesh: TriangleMesh, grid: TetrahedralGrid, side: float, generator: torch.Generator
) -> Float[Tensor, "m 3"]:
    """Points inside (side 1) or outside (-1), as far from the surface as it is thick there, at most half a cell."""
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    area = float(0.5 * torch.linalg.cross(b - a, c - a).norm(dim=1).sum())
    samples = sample_surface(mesh, 1 + int(area / (0.3 * grid.cell) ** 2), generator)
    points, left = [], torch.ones(len(samples.points), dtype=torch.bool)
    for share in DEPTHS:
        depth = share * grid.cell
        candidates = samples.points[left] - side * depth * samples.normals[left]
        fits = -side * signed_distance(candidates, mesh) > 0.9 * depth
        points.append(candidates[fits])
        left[left.nonzero()[fits, 0]] = False
    return torch.cat(points)


def _is_missed(
    points: Float[Tensor, "m 3"],
    positions: Float[Tensor, "n 3"],
    sdf: Float[Tensor, " n"],
    grid: TetrahedralGrid,
    side: float,
) -> Bool[Tensor, " m"]:
    """Which points are on the wrong side of the surface that the nodes make."""
    vertices, faces = marching_tetrahedra(positions, sdf, grid)
    if len(faces) == 0:
        return torch.full((len(points),), side > 0)
    return side * signed_distance(points, TriangleMesh(vertices, faces)) > 0


def _nearest_nodes(
    points: Float[Tensor, "m 3"], grid: TetrahedralGrid, free: Bool[Tensor, " n"]
) -> tuple[Int64[Tensor, " k"], Float[Tensor, "k 3"]]:
    """The nodes that lie nearest to some point, where they are free to move, and the nearest such point of each."""
    if len(points) == 0:
        return torch.empty(0, dtype=torch.int64), points
    distance, nearest = KDTree(grid.positions.numpy()).query(points.numpy())
    distance, nearest = torch.from_numpy(distance), torch.from_numpy(nearest)
    order = distance.argsort(descending=True, stable=True)
    chosen = torch.full((grid.nodes,), -1)
    # One after the other, so the nearest point, written last, remains.
    for node, point in zip(nearest[order].tolist(), order.tolist(), strict=True):
        chosen[node] = point
    nodes = ((chosen >= 0) & free).nonzero()[:, 0]
    return nodes, points[chosen[nodes]]


def fit_colours(
    field: ColourField,
    mesh: TriangleMesh,
    colour: Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n 3"]] | None,
    spread: float,
    generator: torch.Generator,
) -> float:
    """Train the field to the mesh's colours on and around the surface.

    Returns the root mean square error at other such points. Trains under `torch.no_grad()` too.

    `colour` gives sRGB at points on the surface; without it the mesh's own, else grey. `spread`: standard deviation, in
    metres, of the points' distances from the surface, where the field is wanted too.
    """
    count = FIT_POINTS + CHECK_POINTS
    samples = sample_surface(mesh, count, generator)
    with torch.no_grad():
        target = samples.colours if colour is None else colour(samples.points)
    if target is None:
        target = torch.full_like(samples.points, GREY)
    offsets = spread * torch.randn(count, 1, generator=generator, device=generator.device).to(samples.points)
    device = next(field.parameters()).device
    points, target = ((samples.points + offsets * samples.normals).to(device), target.to(device))
    rates = field.learning_rates("")
    groups = [{"params": [parameter], "lr": rates[name]} for name, parameter in field.named_parameters()]
    # One pass over the table per step: a third of the time for 2^19 entries.
    optimizer = torch.optim.Adam(groups, fused=True)
    for _ in range(FIT_STEPS):
        chosen = torch.randint(FIT_POINTS, (FIT_BATCH,), generator=generator, device=generator.device).to(device)
        optimizer.zero_grad()
        with torch.enable_grad():
            (field(points[chosen]) - target[chosen]).square().mean().backward()
        optimizer.step()
    optimizer.zero_grad()
    with torch.no_grad():
        return float((field(points[FIT_POINTS:]) - target[FIT_POINTS:]).square().mean().sqrt())
