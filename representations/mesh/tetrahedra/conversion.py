"""Conversion of a triangle mesh to node values of a tetrahedral grid, and fitting of a color field."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ...fields import ColorField
from ...triangle_mesh import TriangleMesh
from ..sampling import sample_surface
from ..signed_distance import SignedDistance, signed_distance
from .grid import TetrahedralGrid, interpolate_lattice
from .marching_tetrahedra import marching_tetrahedra

DEPTHS = (1 / 2, 1 / 4, 1 / 8, 1 / 16)
"""Depths below the surface, in cells, of points that the new surface must contain; the largest that fits is used."""
ROUNDS = 3
FIT_STEPS, FIT_BATCH, FIT_POINTS = 300, 4096, 65536
CHECK_POINTS = 4096
EXACT = 2
"""Distance from the surface, in cells, up to which `node_distances` are exact."""
SPACING = 4
"""Spacing of the coarse lattice of `node_distances`, in cells."""
_NEAR_DISPLACED = 3
"""Number of cells beyond which a displaced node is not in the same tetrahedron as a point. Both the tetrahedron and the
displacements of two of its corners add up to two cells per axis, and the corner's own displacement to another half."""
GRAY = 0.5
"""Gray value (sRGB) of a mesh without colors."""


def nodes_on_surface(
    mesh: TriangleMesh, grid: TetrahedralGrid, reach: float, generator: torch.Generator
) -> tuple[Float[Tensor, "n 3"], Float[Tensor, " n"]]:
    """Node positions and their signed distances to a closed mesh, on the CPU.

    Nodes are displaced only where the mesh is too thin for the grid: into parts that would vanish between the nodes,
    then into gaps that would be closed.

    Args:
        mesh: A closed mesh with outward winding.
        grid: The grid.
        reach: Maximum displacement along every axis in meters.
        generator: Source of random surface samples.

    Raises:
        ValueError: No node is inside the mesh.
    """
    mesh = TriangleMesh(mesh.vertices.detach().cpu(), mesh.faces.cpu())
    distance = SignedDistance(mesh)
    positions = grid.positions
    sdf = node_distances(distance, grid)
    moved = grid.border
    for side in (1.0, -1.0):
        must_contain = _points_beside(mesh, distance, positions, sdf, grid, side, generator)
        for _ in range(ROUNDS):
            missed = must_contain[_is_missed(must_contain, positions, sdf, grid, side)]
            nodes, places = _nearest_nodes(missed, grid, ~moved & (side * sdf >= 0))
            if len(nodes) == 0:
                break
            offsets = (places - positions[nodes]).clamp(-reach, reach)
            positions[nodes] += offsets
            sdf[nodes] = distance(positions[nodes])
            moved[nodes] = True
    if not bool((sdf < 0).any()):
        raise ValueError("the mesh has no inside: its faces must point outward and leave no large holes")
    return positions, sdf


def node_distances(distance: SignedDistance, grid: TetrahedralGrid) -> Float[Tensor, " n"]:
    """Signed distances of the nodes to a mesh: exact up to `EXACT` cells from the surface, and estimated farther away.

    Distances on a coarse lattice are interpolated. A signed distance changes by at most the distance of two points, so
    that the error of a node is at most the weighted mean of its distances to the points of the coarse lattice. Nodes
    that may be close to the surface by this bound are computed. The estimates have the right sign.
    """
    side = grid.resolution
    knots = torch.arange(-(-side // SPACING) + 1) * SPACING * grid.cell - grid.extent
    at_knots = distance(torch.cartesian_prod(knots, knots, knots)).reshape([len(knots)] * 3)
    where = (torch.arange(side) + torch.tensor([[0.0], [0.5]])) / SPACING
    weights = (1 - (where[:, :, None] - torch.arange(len(knots))).abs()).clamp_min(0)
    sdf, size = interpolate_lattice(weights, at_knots), interpolate_lattice(weights, at_knots.abs())
    # The root mean square of the distances to the points of the coarse lattice, in cells, which exceeds their mean.
    squared = SPACING**2 * where.frac() * (1 - where.frac())
    error = (squared[:, :, None, None] + squared[:, None, :, None] + squared[:, None, None, :]).sqrt()
    # Holes end the bound: the sign changes there far away from all triangles.
    both_signs = sdf.abs() < size - 1e-3 * grid.cell
    near = (both_signs | (size <= (EXACT + error) * grid.cell)).reshape(-1)
    sdf = sdf.reshape(-1)
    sdf[near] = distance(grid.positions[near])
    return sdf


def _points_beside(
    mesh: TriangleMesh,
    exact: SignedDistance,
    positions: Float[Tensor, "n 3"],
    sdf: Float[Tensor, " n"],
    grid: TetrahedralGrid,
    side: float,
    generator: torch.Generator,
) -> Float[Tensor, "m 3"]:
    """Points inside (side 1) or outside (side -1), up to half a cell from the surface, less where it is thin.

    Points that are at their depth also by the interpolation of the nodes' distances are left out, which are nearly all:
    the surface defined by the nodes contains them, and only the others need an exact distance.
    """
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    area = float(0.5 * torch.linalg.cross(b - a, c - a).norm(dim=1).sum())
    samples = sample_surface(mesh, 1 + int(area / (0.3 * grid.cell) ** 2), generator)
    near_displaced = _near_displaced(positions, grid)
    points, left = [], torch.arange(len(samples.points))
    for depth_in_cells in DEPTHS:
        depth = depth_in_cells * grid.cell
        candidates = samples.points[left] - side * depth * samples.normals[left]
        distance, unknown = _interpolated(candidates, sdf, near_displaced, grid)
        unsettled = unknown | (-side * distance <= 0.9 * depth)
        left, candidates = left[unsettled], candidates[unsettled]
        fits = -side * exact(candidates) > 0.9 * depth
        points.append(candidates[fits])
        left = left[~fits]
    return torch.cat(points)


def _is_missed(
    points: Float[Tensor, "m 3"],
    positions: Float[Tensor, "n 3"],
    sdf: Float[Tensor, " n"],
    grid: TetrahedralGrid,
    side: float,
) -> Bool[Tensor, " m"]:
    """Whether points are on the wrong side of the surface defined by the nodes."""
    distance, unknown = _interpolated(points, sdf, _near_displaced(positions, grid), grid)
    missed = side * distance > 0
    if unknown.any():
        vertices, faces = marching_tetrahedra(positions, sdf, grid)
        if len(faces) == 0:
            missed[unknown] = side > 0
        else:
            missed[unknown] = side * signed_distance(points[unknown], TriangleMesh(vertices, faces)) > 0
    return missed


def _interpolated(
    points: Float[Tensor, "m 3"], sdf: Float[Tensor, " n"], near_displaced: Bool[Tensor, " n"], grid: TetrahedralGrid
) -> tuple[Float[Tensor, " m"], Bool[Tensor, " m"]]:
    """Distances of the nodes interpolated in the tetrahedra of points, and whether that is unreliable.

    Among displaced nodes, the tetrahedron that contains a point is unknown.
    """
    corners, weights = grid.locate(points)
    return (sdf[corners] * weights).sum(1), near_displaced[corners].any(1)


def _near_displaced(positions: Float[Tensor, "n 3"], grid: TetrahedralGrid) -> Bool[Tensor, " n"]:
    """Nodes within `_NEAR_DISPLACED` cells per axis of a displaced one."""
    near = (positions != grid.positions).any(1).reshape(grid.shape).float()
    for axis in range(3):
        reach = [_NEAR_DISPLACED if axis == other else 0 for other in range(3)]
        near = F.max_pool3d(near, [2 * cells + 1 for cells in reach], stride=1, padding=reach)
    return near.reshape(-1) > 0


def _nearest_nodes(
    points: Float[Tensor, "m 3"], grid: TetrahedralGrid, free: Bool[Tensor, " n"]
) -> tuple[Int64[Tensor, " k"], Float[Tensor, "k 3"]]:
    """The free nodes that are the nearest node of some point, and for each of them the closest such point."""
    if len(points) == 0:
        return torch.empty(0, dtype=torch.int64), points
    candidates = grid.nearest(points)
    distances = (grid.positions[candidates].double() - points[:, None].double()).norm(dim=2)
    distance, lattice = distances.min(1)
    nearest = candidates.gather(1, lattice[:, None])[:, 0]
    order = distance.argsort(descending=True, stable=True)
    chosen = torch.full((grid.nodes,), -1)
    # In sequence, so that the closest point, which is written last, is kept.
    for node, point in zip(nearest[order].tolist(), order.tolist(), strict=True):
        chosen[node] = point
    nodes = ((chosen >= 0) & free).nonzero()[:, 0]
    return nodes, points[chosen[nodes]]


def fit_colors(
    field: ColorField,
    mesh: TriangleMesh,
    color: Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n 3"]] | None,
    spread: float,
    generator: torch.Generator,
) -> float:
    """Fit a color field to the colors of a mesh, on and near its surface; also works under `torch.no_grad()`.

    Args:
        field: The field, which is trained in place.
        mesh: The mesh.
        color: Maps points on the surface to sRGB; None: the colors of the mesh, or gray.
        spread: Standard deviation in meters of the distances of the training points from the surface.
        generator: Source of the training points.

    Returns:
        Root mean square error at held-out points, in sRGB.
    """
    count = FIT_POINTS + CHECK_POINTS
    samples = sample_surface(mesh, count, generator)
    with torch.no_grad():
        target = samples.colors if color is None else color(samples.points)
    if target is None:
        target = torch.full_like(samples.points, GRAY)
    offsets = spread * torch.randn(count, 1, generator=generator, device=generator.device).to(samples.points)
    device = next(field.parameters()).device
    points, target = ((samples.points + offsets * samples.normals).to(device), target.to(device))
    rates = field.learning_rates("")
    groups = [{"params": [parameter], "lr": rates[name]} for name, parameter in field.named_parameters()]
    # Fused: one pass over the table per step, which takes a third of the time for 2^19 entries.
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
