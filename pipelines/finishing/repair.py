"""Repair of a surface: welded, oriented, its holes filled, or wrapped by a closed surface."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from manifold3d import Error, Manifold, Mesh, triangulate
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import breadth_first_order, connected_components

from steindreamer.representations import TriangleMesh
from steindreamer.representations.mesh.formats.orientation import inward_faces

from ..meshing.simplify import is_closed_manifold
from .config import FinishConfig
from .wrap import wrap

_WELD = 2e-6
"""Distance, as a fraction of the bounding box's diagonal, below which vertices are joined."""
_WHOLE = 0.99
"""Fraction of the area that closed parts must have to stand for all faces of a file."""

Vertices = Float[np.ndarray, "_ 3"]
Faces = Int[np.ndarray, "_ 3"]


@dataclass(frozen=True)
class Repaired:
    """A repaired surface, and what was done."""

    mesh: TriangleMesh
    """The surface with one vertex per position."""
    closed: bool
    """Whether it is a closed manifold."""
    method: Literal["welded", "filled", "wrapped"]
    """The last step that was needed."""
    open_edges: int
    """Number of edges with one face after welding."""
    crowded_edges: int
    """Number of edges with more than two faces after welding."""
    holes_filled: int
    """Number of holes that were filled."""
    faces_flipped: int
    """Number of faces whose orientation was reversed."""


def repair(mesh: TriangleMesh, config: FinishConfig) -> Repaired:
    """Weld, orient and close a surface, see `FinishConfig.repair`. Raises ValueError if no surface is left."""
    vertices, faces = mesh.vertices.numpy().astype(np.float64), mesh.faces.numpy()
    vertices, faces = weld(vertices, faces)
    if len(faces) == 0:
        raise ValueError("all its triangles are smaller than the precision of the file; scale the mesh up")
    uses = _edge_uses(faces)
    faces, flipped = orient(vertices, faces)
    filled = 0
    if config.repair == "auto":
        vertices, faces, filled = fill_holes(vertices, faces, config.holes)
    closed = is_closed_manifold(faces)
    method: Literal["welded", "filled", "wrapped"] = "filled" if filled else "welded"
    if not closed and config.repair != "never" and (solid := _merged(mesh, _area(vertices, faces))) is not None:
        # Closed parts that touch: their vertices must stay apart.
        vertices, faces = solid
        method, filled, closed = "welded", 0, True
    out = _mesh(vertices, faces)
    if config.repair == "wrap" or (config.repair == "auto" and not closed):
        out, method, closed = wrap(out, config.wrap_resolution), "wrapped", True
    return Repaired(out, closed, method, int((uses == 1).sum()), int((uses > 2).sum()), filled, flipped)


def weld(vertices: Vertices, faces: Faces) -> tuple[Vertices, Faces]:
    """Join vertices at the same position, and drop collapsed and duplicate faces."""
    low, extent = vertices.min(0), float(np.linalg.norm(np.ptp(vertices, axis=0)))
    places = np.round((vertices - low) / max(_WELD * extent, np.finfo(np.float64).tiny)).astype(np.int64)
    _, first, joined = np.unique(places, axis=0, return_index=True, return_inverse=True)
    faces = joined.reshape(-1)[faces]
    faces = faces[(faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])]
    # A sheet that is stored once per side is one sheet.
    _, kept = np.unique(np.sort(faces, 1), axis=0, return_index=True)
    faces = faces[np.sort(kept)]
    used, faces = np.unique(faces, return_inverse=True)
    return vertices[first][used], faces.reshape(-1, 3)


def orient(vertices: Vertices, faces: Faces) -> tuple[Faces, int]:
    """Orient neighboring faces alike, closed parts outward. Returns the faces and the number of flipped ones.

    Open parts keep the orientation of most of their area.
    """
    links, same = _neighbors(faces)
    count = len(faces)
    graph = coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), (count, count)).tocsr()
    parts, part = connected_components(graph, directed=False)
    against = np.zeros(count, bool)
    if not same.all():
        table = dict(zip(map(tuple, np.sort(links, 1).tolist()), same.tolist(), strict=True))
        for start in np.unique(part, return_index=True)[1]:
            order, before = breadth_first_order(graph, start, directed=False)
            for face in order[1:]:
                parent = before[face]
                against[face] = against[parent] ^ (not table[min(face, parent), max(face, parent)])
        a, b, c = (vertices[faces[:, corner]] for corner in range(3))
        area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        most = np.bincount(part, np.where(against, area, -area), parts) > 0
        against ^= most[part]
    out = np.where(against[:, None], faces[:, ::-1], faces)
    inside = inward_faces(vertices, out)
    a, b, c = (vertices[out[:, corner]] - vertices.mean(0) for corner in range(3))
    volumes = np.bincount(part, np.einsum("fc,fc->f", a, np.cross(b, c)), parts)
    if is_closed_manifold(out) and (volumes <= 0).all():
        inside = np.ones(count, bool)
    out = np.where(inside[:, None], out[:, ::-1], out)
    return out, int((against ^ inside).sum())


def fill_holes(vertices: Vertices, faces: Faces, largest: float) -> tuple[Vertices, Faces, int]:
    """Triangulate the holes up to a diameter. Returns vertices, faces and the number of filled holes.

    Args:
        vertices: vertices, one per position.
        faces: oriented faces.
        largest: largest diameter of a hole as a fraction of the bounding box's diagonal.
    """
    limit = largest * float(np.linalg.norm(np.ptp(vertices, axis=0)))
    added = []
    for loop in _boundary_loops(faces):
        points = vertices[loop]
        if float(np.linalg.norm(np.ptp(points, axis=0))) <= limit:
            added.append(loop[_triangulated(points)])
    if not added:
        return vertices, faces, 0
    return vertices, np.concatenate([faces, *added]), len(added)


def _boundary_loops(faces: Faces) -> list[Int[np.ndarray, " n"]]:
    """The loops of open edges, in the direction of the faces that fill them; loops that touch are left out."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    count = int(faces.max()) + 1
    is_open = ~np.isin(edges[:, 1] * count + edges[:, 0], edges[:, 0] * count + edges[:, 1])
    ends = edges[is_open][:, ::-1]
    starts, uses = np.unique(ends[:, 0], return_counts=True)
    crossing = set(starts[uses > 1].tolist())
    after = {start: end for start, end in ends.tolist() if start not in crossing}
    loops = []
    while after:
        start, place = after.popitem()
        loop = [start]
        while place != start and place in after:
            loop.append(place)
            place = after.pop(place)
        if place == start and len(loop) >= 3:
            loops.append(np.array(loop))
    return loops


def _triangulated(points: Float[np.ndarray, "n 3"]) -> Int[np.ndarray, "f 3"]:
    """Triangles of a loop, in its direction, from its projection on the plane of largest area."""
    center = points.mean(0)
    across = np.cross(points - center, np.roll(points, -1, 0) - center).sum(0)
    _, _, axes = np.linalg.svd(points - center)
    normal = axes[2] if np.linalg.norm(across) < 1e-12 else across / np.linalg.norm(across)
    first = np.cross(normal, np.eye(3)[np.abs(normal).argmin()])
    first /= np.linalg.norm(first)
    flat = np.stack([points @ first, points @ np.cross(normal, first)], 1)
    return np.asarray(triangulate([flat]), np.int64).reshape(-1, 3)


def _merged(mesh: TriangleMesh, area: float) -> tuple[Vertices, Faces] | None:
    """The faces of the file if they form closed parts once the vertices along open edges are joined, else None.

    Args:
        mesh: the file.
        area: area that the parts have at least; sheets that are stored once per side cancel, and would be lost.
    """
    raw = Mesh(mesh.vertices.numpy().astype(np.float32), mesh.faces.numpy().astype(np.uint32))
    raw.merge()
    solid = Manifold(raw)
    if solid.status() != Error.NoError or solid.is_empty() or solid.volume() <= 0:
        return None
    out = solid.as_original().to_mesh()
    vertices, faces = np.asarray(out.vert_properties[:, :3], np.float64), out.tri_verts.astype(np.int64)
    whole = _area(vertices, faces) >= _WHOLE * area
    return (vertices, faces) if whole and is_closed_manifold(faces) else None


def _area(vertices: Vertices, faces: Faces) -> float:
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum()) / 2


def _edge_uses(faces: Faces) -> Int[np.ndarray, " e"]:
    """The number of faces of each edge."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), 1)
    return np.unique(edges, axis=0, return_counts=True)[1]


def _neighbors(faces: Faces) -> tuple[Int[np.ndarray, "n 2"], np.ndarray]:
    """Pairs of faces that share an edge with no third face, and whether both are oriented alike."""
    count, number = len(faces), int(faces.max()) + 1
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    owner = np.tile(np.arange(count), 3)
    low, high = edges.min(1), edges.max(1)
    key = low * number + high
    order = np.argsort(key, kind="stable")
    _, starts, uses = np.unique(key[order], return_index=True, return_counts=True)
    first = starts[uses == 2]
    one, other = order[first], order[first + 1]
    forward = edges[:, 0] == low
    return np.stack([owner[one], owner[other]], 1), forward[one] != forward[other]


def _mesh(vertices: Vertices, faces: Faces) -> TriangleMesh:
    return TriangleMesh(torch.from_numpy(vertices.astype(np.float32)), torch.from_numpy(faces.astype(np.int64)))
