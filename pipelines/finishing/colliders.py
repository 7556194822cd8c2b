"""Colliders: convex hulls that together approximate a mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from manifold3d import Error, Manifold, Mesh, OpType

from steindreamer.representations import SurfaceIndex, TriangleMesh, sample_surface, vertex_normals

from ..meshing.simplify import is_closed_manifold
from .reduce import reduce

_SAMPLES = 4000
_DETAIL = 600
"""Number of triangles to which a mesh is simplified before its decomposition: hulls need no more, and its time grows
with them."""
_INSET, _THIN_INSET = 2e-4, 0.02
"""Distance by which hulls are moved inward, as a fraction of the mesh's diagonal, and at most as a fraction of their
thickness: viewers that draw them show no flicker where they coincide with the mesh or with each other."""


@dataclass(frozen=True)
class Collider:
    """Convex hulls, and how well they fit."""

    hulls: list[TriangleMesh]
    """The hulls, closed and convex."""
    volume_error: float | None
    """Volume of the union of the hulls over that of the mesh, minus 1; None for an open mesh."""
    hausdorff: float
    """Largest distance of the mesh from the hulls, and of what they cover outside it from the mesh, as a fraction of
    its diagonal."""


def build_collider(mesh: TriangleMesh, hulls: int, vertices: int, concavity: float) -> Collider:
    """Decompose a mesh into convex hulls with CoACD [Wei et al. 2022].

    Args:
        mesh: the mesh, one vertex per position.
        hulls: maximum number of hulls.
        vertices: maximum number of vertices of a hull.
        concavity: concavity up to which a part is one hull, see CoACD.
    """
    points = mesh.vertices.double().numpy()
    import coacd  # takes a second, and most runs end before it is needed

    coacd.set_log_level("error")
    simple = reduce(mesh, _DETAIL, 0.0)
    parts = coacd.run_coacd(
        coacd.Mesh(simple.vertices.double().numpy(), simple.faces.numpy().astype(np.int32)),
        threshold=concavity,
        max_convex_hull=hulls,
        decimate=True,
        max_ch_vertex=vertices,
        # A fifth of the default effort in the search for cuts, for a collider in seconds.
        mcts_iterations=20,
        mcts_nodes=10,
        mcts_max_depth=2,
        resolution=1000,
        preprocess_mode="off" if is_closed_manifold(simple.faces.numpy()) else "on",
        preprocess_resolution=30,
        seed=0,
    )
    clouds = [np.asarray(part[0]) for part in parts]
    solids = [solid for cloud in clouds if (solid := _hull(cloud, vertices)).volume() > 0]
    if not solids:  # a flat mesh
        solids = [_hull(_thickened(points), vertices)]
    inset = _INSET * float(np.linalg.norm(np.ptp(points, axis=0)))
    solids = [_moved_inward(solid, inset) for solid in solids]
    union = Manifold.batch_boolean(solids, OpType.Add)
    solid = _solid(mesh)
    return Collider(
        [_mesh(solid) for solid in solids],
        None if solid is None else union.volume() / solid.volume() - 1,
        _hausdorff(mesh, solid, union),
    )


def _hull(points: np.ndarray, vertices: int) -> Manifold:
    """The convex hull of at most `vertices` of the points, those that are farthest out."""
    solid = Manifold.hull_points(points.astype(np.float64))
    corners = np.asarray(solid.to_mesh().vert_properties[:, :3], np.float64)
    if len(corners) > vertices:
        solid = Manifold.hull_points(corners[_farthest(corners, vertices)])
    return solid


def _farthest(points: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` points, each as far as possible from those before it."""
    chosen = [int(np.linalg.norm(points - points.mean(0), axis=1).argmax())]
    distance = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.array(chosen)


def _moved_inward(solid: Manifold, distance: float) -> Manifold:
    """A hull whose vertices are moved against their normals."""
    hull, thickness = _mesh(solid), 2 * solid.volume() / solid.surface_area()
    step = min(distance, _THIN_INSET * thickness)
    return Manifold.hull_points((hull.vertices - step * vertex_normals(hull.vertices, hull.faces)).double().numpy())


def _thickened(points: np.ndarray) -> np.ndarray:
    """The points, moved apart along the axis of the smallest extent by a hundredth of the size."""
    step = 0.005 * float(np.linalg.norm(np.ptp(points, axis=0))) * np.linalg.svd(points - points.mean(0))[2][2]
    return np.concatenate([points - step, points + step])


def _solid(mesh: TriangleMesh) -> Manifold | None:
    solid = Manifold(Mesh(mesh.vertices.numpy().astype(np.float32), mesh.faces.numpy().astype(np.uint32)))
    return solid if solid.status() == Error.NoError and solid.volume() > 0 else None


def _hausdorff(mesh: TriangleMesh, solid: Manifold | None, union: Manifold) -> float:
    """The largest distance of the mesh from the hulls, and of what they cover outside the mesh from the mesh.

    Walls where hulls meet inside a closed mesh do not count.
    """
    diagonal = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
    outside = union if solid is None else union - solid
    largest = 0.0
    for one, two in ((mesh, _mesh(union)), (_mesh(outside), mesh)):
        if len(one.faces):
            points = sample_surface(one, _SAMPLES, torch.Generator().manual_seed(0)).points
            largest = max(largest, float(SurfaceIndex(two).closest(torch.cat([points, one.vertices])).distance.max()))
    return largest / diagonal


def _mesh(solid: Manifold) -> TriangleMesh:
    mesh = solid.to_mesh()
    return TriangleMesh(
        torch.from_numpy(np.array(mesh.vert_properties[:, :3], np.float32)),
        torch.from_numpy(mesh.tri_verts.astype(np.int64)),
    )
