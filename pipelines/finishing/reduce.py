"""Reduction of triangles: as few as the tolerance allows, and at most the budget."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import fast_simplification
import numpy as np
import torch
from manifold3d import Manifold, Mesh

from steindreamer.representations import TriangleMesh

from ..meshing.flips import flip_slivers
from ..meshing.simplify import DeviationFrom, clean_mesh, is_closed_manifold

_STEPS = (0.5, 0.7, 0.85)
"""Ratios of face counts that are tried in turn."""
_FEWEST = 12


def reduce(mesh: TriangleMesh, budget: int, tolerance: float, smallest_part: float = 0.0) -> TriangleMesh:
    """The surface with at most `budget` triangles, unless it has too many parts for it; closed if it was and the budget
    allows it.

    Args:
        mesh: the surface, one vertex per position.
        budget: maximum number of triangles.
        tolerance: deviation, as a fraction of the diagonal, up to which it is simplified below the budget; 0: the whole
            budget is used.
        smallest_part: fraction of the area below which parts of a closed surface are dropped.
    """
    if is_closed_manifold(mesh.faces.numpy()):
        # A small budget may leave no closed part, or be missed, because many parts stay closed.
        with suppress(ValueError):
            clean = clean_mesh(mesh, budget, tolerance=tolerance, smoothing=0, smallest_part=smallest_part)
            if len(clean.faces) <= budget:
                return _flipped(_without_slivers(clean, tolerance))
    reduced = mesh if len(mesh.faces) <= budget else _decimated(mesh, budget)
    if tolerance == 0:
        return reduced
    deviation, steps = DeviationFrom(mesh), iter(_STEPS)
    while (step := next(steps, None)) is not None and len(reduced.faces) > _FEWEST:
        smaller = _decimated(reduced, max(_FEWEST, round(step * len(reduced.faces))))
        if 0 < len(smaller.faces) < len(reduced.faces) and deviation(smaller) <= tolerance:
            reduced, steps = smaller, iter(_STEPS)
    return reduced


def _without_slivers(mesh: TriangleMesh, tolerance: float) -> TriangleMesh:
    """The closed mesh after short edges are collapsed and flat areas joined, as unions of parts leave many slivers."""
    size = float((mesh.vertices.amax(0) - mesh.vertices.amin(0)).norm())
    solid = Manifold(Mesh(mesh.vertices.numpy(), mesh.faces.numpy().astype(np.uint32))).simplify(tolerance * size)
    if tolerance == 0 or solid.is_empty():
        return mesh
    out = solid.to_mesh()
    faces = out.tri_verts.astype(np.int64)
    if not is_closed_manifold(faces):
        return mesh
    return TriangleMesh(torch.from_numpy(np.array(out.vert_properties[:, :3], np.float32)), torch.from_numpy(faces))


def _flipped(mesh: TriangleMesh) -> TriangleMesh:
    """The closed mesh with fewer slivers in its flat regions."""
    faces = flip_slivers(mesh.vertices.numpy(), mesh.faces.numpy())
    # A vertex where parts touch may get the same edge in both.
    return replace(mesh, faces=torch.from_numpy(faces)) if is_closed_manifold(faces) else mesh


def _decimated(mesh: TriangleMesh, target: int) -> TriangleMesh:
    points, triangles, *_ = fast_simplification.simplify(
        mesh.vertices.numpy().astype(np.float64), mesh.faces.numpy().astype(np.int32), target_count=target, agg=4.0
    )
    used, faces = np.unique(triangles, return_inverse=True)
    return TriangleMesh(
        torch.from_numpy(points[used].astype(np.float32)), torch.from_numpy(faces.reshape(-1, 3).astype(np.int64))
    )
