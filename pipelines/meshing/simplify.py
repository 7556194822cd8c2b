"""Cleanup of a raw iso-surface: no floaters, smooth, within a face budget, closed and oriented."""

from __future__ import annotations

import fast_simplification
import numpy as np
import torch
from jaxtyping import Float
from manifold3d import Error, Manifold, Mesh
from scipy.sparse import coo_matrix, diags
from torch import Tensor

from steindreamer.representations import SurfaceIndex, TriangleMesh, sample_surface, vertex_normals

_SHORTEST_EDGE = 1e-4
"""Fraction of the diagonal below which edges and slivers are collapsed."""
_FEWEST = 12
"""Number of faces below which no mesh is simplified: those of a box."""
_STEPS = (0.5, 0.75, 0.9)
"""Ratios of face counts that are tried in turn, to simplify a mesh further within the tolerance."""
_SAMPLES = 4000
"""Number of points on each surface at which the deviation is measured."""
_PERCENTILE = 0.99
"""Fraction of the points whose distance the deviation bounds: extraction leaves single spikes and hidden sheets."""


def clean_mesh(
    mesh: TriangleMesh,
    face_budget: int | None,
    *,
    tolerance: float = 0.0,
    smoothing: int = 8,
    smallest_part: float = 0.01,
) -> TriangleMesh:
    """A closed, oriented 2-manifold of at most `face_budget` faces (None: no limit).

    With a tolerance, it has as few faces as the surface allows: a flat side needs less than a curved one.

    Parts with less than `smallest_part` of the surface's area, and the walls of cavities, are dropped. Raises
    ValueError if no closed part remains.

    Args:
        mesh: the raw surface.
        face_budget: maximum number of triangles.
        tolerance: largest `deviation` from the surface before its triangles are reduced, if the budget allows it; 0:
            the whole budget is used.
        smoothing: number of Taubin steps, which remove voxel steps.
        smallest_part: fraction of the surface's area.
    """
    solid = _main_parts(_manifold(mesh.vertices.numpy(), mesh.faces.numpy()), smallest_part)
    vertices, faces = _arrays(solid)
    vertices = _taubin(vertices, faces, smoothing)
    if face_budget is not None and len(faces) > face_budget:
        solid = _decimated(vertices, faces, face_budget, smallest_part)
    else:
        solid = _manifold(vertices, faces)
    if tolerance > 0:
        solid = _smallest(
            solid, TriangleMesh(torch.from_numpy(vertices), torch.from_numpy(faces)), tolerance, smallest_part
        )
    return _mesh(solid)


class DeviationFrom:
    """The distance of simplified meshes from a surface."""

    def __init__(self, surface: TriangleMesh) -> None:
        self._index = SurfaceIndex(surface)
        self._points = _samples(surface)
        self._diagonal = float((surface.vertices.amax(0) - surface.vertices.amin(0)).norm())

    def __call__(self, mesh: TriangleMesh) -> float:
        """The distance, as a fraction of the surface's diagonal, that 99 % of the points of either surface keep from
        the other.
        """
        there = SurfaceIndex(mesh).closest(self._points).distance
        back = self._index.closest(_samples(mesh)).distance
        return max(float(torch.quantile(distance, _PERCENTILE)) for distance in (there, back)) / self._diagonal


def _samples(mesh: TriangleMesh) -> Float[Tensor, "n 3"]:
    return sample_surface(mesh, _SAMPLES, torch.Generator().manual_seed(0)).points


def is_closed_manifold(faces: np.ndarray) -> bool:
    """Whether every edge is used exactly once in each direction, and by no third face."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]).astype(np.int64)
    count = int(faces.max()) + 1 if len(faces) else 0
    forward = np.sort(edges[:, 0] * count + edges[:, 1])
    backward = np.sort(edges[:, 1] * count + edges[:, 0])
    return len(np.unique(forward)) == len(forward) and bool((forward == backward).all())


def welded_faces(mesh: TriangleMesh) -> tuple[np.ndarray, np.ndarray]:
    """The faces after joining vertices that were split along chart borders, and one original vertex per position.

    The faces index the second array.
    """
    _, first, joined = np.unique(mesh.vertices.numpy(), axis=0, return_index=True, return_inverse=True)
    return joined.reshape(-1)[mesh.faces.numpy()], first


def _mesh(solid: Manifold) -> TriangleMesh:
    vertices, faces = _arrays(solid)
    return TriangleMesh(torch.from_numpy(vertices), torch.from_numpy(faces))


def _manifold(vertices: np.ndarray, faces: np.ndarray) -> Manifold:
    solid = Manifold(Mesh(vertices.astype(np.float32), faces.astype(np.uint32)))
    if solid.status() != Error.NoError:
        raise ValueError(f"the surface is not a closed manifold ({solid.status().name}): extract it again")
    return solid


def _arrays(solid: Manifold) -> tuple[np.ndarray, np.ndarray]:
    mesh = solid.to_mesh()
    vertices, faces = np.array(mesh.vert_properties[:, :3]), mesh.tri_verts.astype(np.int64)
    return _pull_apart(vertices, faces), faces


def _pull_apart(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Move vertices with the same position slightly inward.

    Where sheets touch, manifold3d keeps one vertex per sheet; a program that welds by position would join them again.
    """
    diagonal = _diagonal(vertices)
    places = np.round(vertices / (4e-6 * diagonal)).astype(np.int64)
    _, inverse, count = np.unique(places, axis=0, return_inverse=True, return_counts=True)
    shared = count[inverse.reshape(-1)] > 1
    normals = vertex_normals(torch.from_numpy(vertices), torch.from_numpy(faces)).numpy()
    return np.where(shared[:, None], vertices - 2e-4 * diagonal * normals, vertices)


def _main_parts(solid: Manifold, smallest_part: float) -> Manifold:
    """Drop floaters and the inner walls of cavities (which enclose negative volume)."""
    parts = solid.decompose()
    total = sum(part.surface_area() for part in parts)
    kept = [part for part in parts if part.volume() > 0 and part.surface_area() >= smallest_part * total]
    if not kept:
        raise ValueError(f"no closed part with outward faces among the {len(parts)} parts of the surface")
    return Manifold.compose(kept)


def _taubin(vertices: np.ndarray, faces: np.ndarray, steps: int) -> np.ndarray:
    """Alternate shrinking and inflating: a low-pass filter that preserves the size of thin parts (Taubin, SIGGRAPH
    1995).
    """
    count = len(vertices)
    start, end = faces.ravel(), np.roll(faces, -1, axis=1).ravel()
    links = coo_matrix((np.ones(len(start)), (start, end)), shape=(count, count)).tocsr()
    average = diags(1 / np.maximum(np.asarray(links.sum(1)).ravel(), 1)) @ links
    moved = vertices.astype(np.float64)
    for _ in range(steps):
        for factor in (0.5, -0.53):
            moved = moved + factor * (average @ moved - moved)
    return moved.astype(np.float32)


def _smallest(solid: Manifold, surface: TriangleMesh, tolerance: float, smallest_part: float) -> Manifold:
    """Simplify a solid step by step as far as its deviation from the surface stays within the tolerance.

    Each step starts from the last one: planes of larger triangles are less noisy than those of the surface. If a step
    goes too far, a smaller one is tried. The result is the solid itself if it has no room for any.
    """
    deviation = DeviationFrom(surface)
    vertices, faces = _arrays(solid)
    steps = iter(_STEPS)
    while (step := next(steps, None)) is not None and len(faces) > _FEWEST:
        target = max(_FEWEST, round(step * len(faces)))
        smaller = _quadric(vertices, faces, target, smallest_part)
        if smaller is not None and smaller.num_tri() < len(faces) and deviation(_mesh(smaller)) <= tolerance:
            solid, steps = smaller, iter(_STEPS)
            vertices, faces = _arrays(solid)
    return solid


def _decimated(vertices: np.ndarray, faces: np.ndarray, budget: int, smallest_part: float) -> Manifold:
    """Quadric decimation to the largest size that is both within the budget and a manifold."""
    target = float(budget)
    for _ in range(12):
        solid = _quadric(vertices, faces, int(target), smallest_part)
        if solid is not None and solid.num_tri() <= budget:
            return solid
        target *= 0.96
    # Slower but closed by construction: the tolerance that meets the budget, found by doubling.
    diagonal = _diagonal(vertices)
    tolerance = _SHORTEST_EDGE * diagonal
    solid = _manifold(vertices, faces)
    while solid.num_tri() > budget and tolerance < diagonal:
        solid, tolerance = solid.simplify(tolerance), 1.5 * tolerance
    return _main_parts(solid, smallest_part)


def _quadric(vertices: np.ndarray, faces: np.ndarray, target: int, smallest_part: float) -> Manifold | None:
    """Quadric decimation to about `target` faces; None if the result is not a closed manifold."""
    # manifold3d pairs up the edges that plain collapses pinched, and merges slivers.
    points, triangles, *_ = fast_simplification.simplify(
        vertices.astype(np.float64), faces.astype(np.int32), target_count=target, agg=4.0
    )
    solid = Manifold(Mesh(points.astype(np.float32), triangles.astype(np.uint32)))
    if solid.status() != Error.NoError or solid.is_empty():
        return None
    try:
        solid = _main_parts(solid.simplify(_SHORTEST_EDGE * _diagonal(vertices)), smallest_part)
    except ValueError:
        return None
    return solid if is_closed_manifold(_arrays(solid)[1]) else None


def _diagonal(vertices: np.ndarray) -> float:
    return float(np.linalg.norm(np.ptp(vertices, axis=0)))
