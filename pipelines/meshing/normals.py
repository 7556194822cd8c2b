"""Vertex normals with sharp edges: corners of a vertex are averaged only over faces at a small angle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from steindreamer.representations import TriangleMesh, face_normals

from .simplify import welded_faces

_SHARPEST = 75.0
"""Angle in degrees up to which an edge inside a chart can be shown by a normal map on smooth normals."""


def corner_normals(mesh: TriangleMesh, crease_angle: float) -> Float[Tensor, "f 3 3"]:
    """Unit normals per corner of each face, smooth except across edges that are sharper than an angle in degrees.

    Vertices at the same position count as one. The faces around a vertex are averaged by area within each group that is
    connected by smooth edges.
    """
    return _averaged(mesh, *_groups(mesh, crease_angle, seams_only=False))


def _averaged(mesh: TriangleMesh, smoothed: int, group: Int64[np.ndarray, " c"]) -> Float[Tensor, "f 3 3"]:
    """The area-weighted mean of the face normals of each group of corners, at each corner."""
    corners = mesh.vertices[mesh.faces].double()
    weighted = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    total = np.zeros((smoothed, 3))
    for axis in range(3):
        total[:, axis] = np.bincount(group, np.repeat(weighted[:, axis].numpy(), 3), smoothed)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    # Faces that cancel each other: the normal of one of them.
    any_face = np.zeros((smoothed, 3))
    any_face[group] = np.repeat(weighted.numpy(), 3, axis=0)
    total = np.where(length > 1e-9 * np.linalg.norm(any_face, axis=1, keepdims=True), total, any_face)
    length = np.linalg.norm(total, axis=1, keepdims=True)
    normals = np.where(length > 0, total / np.maximum(length, 1e-300), [0.0, 1.0, 0.0])[group].reshape(-1, 3, 3)
    return torch.from_numpy(normals.astype(np.float32))


@dataclass(frozen=True)
class Split:
    """Vertices that are split at sharp edges."""

    rows: Int64[Tensor, " v"]
    """The original vertex of each."""
    faces: Int64[Tensor, "f 3"]
    normals: Float[Tensor, "v 3"]
    """Unit normals."""


def split_vertices(mesh: TriangleMesh, crease_angle: float, *, everywhere: bool = True) -> Split:
    """Split the vertices of a mesh at sharp edges.

    Args:
        mesh: the mesh.
        crease_angle: angle in degrees above which an edge is sharp.
        everywhere: whether all edges inside a chart may be sharp; if not, only those of more than 75 degrees, and a
            normal map has to show the others.
    """
    smoothed, group = _groups(mesh, crease_angle, seams_only=not everywhere)
    normals = _averaged(mesh, smoothed, group).reshape(-1, 3)
    vertex = mesh.faces.reshape(-1).numpy()
    _, first, faces = np.unique(np.stack([vertex, group], 1), axis=0, return_index=True, return_inverse=True)
    return Split(
        torch.from_numpy(vertex[first]), torch.from_numpy(faces.reshape(-1, 3)), normals[torch.from_numpy(first)]
    )


def split_at_creases(mesh: TriangleMesh, crease_angle: float, *, everywhere: bool = True) -> TriangleMesh:
    """The unwrapped mesh with normals, its vertices split at sharp edges; see `split_vertices`."""
    split = split_vertices(mesh, crease_angle, everywhere=everywhere)
    assert mesh.uvs is not None
    return TriangleMesh(mesh.vertices[split.rows], split.faces, split.normals, uvs=mesh.uvs[split.rows])


def _groups(mesh: TriangleMesh, crease_angle: float, *, seams_only: bool) -> tuple[int, Int64[np.ndarray, " c"]]:
    """The number of smoothing groups of corners, and the group of every corner (face by face).

    With `seams_only`, edges of up to `_SHARPEST` whose vertices are not split in the mesh are smooth.
    """
    faces = welded_faces(mesh)[0]
    count, number = len(faces), int(faces.max()) + 1
    normals = face_normals(mesh.vertices, mesh.faces).numpy()
    start, end = faces.reshape(-1), np.roll(faces, -1, 1).reshape(-1)
    corner = np.arange(3 * count)
    after = corner // 3 * 3 + (corner + 1) % 3
    low, high = np.minimum(start, end), np.maximum(start, end)
    order = np.argsort(low * number + high, kind="stable")
    key = (low * number + high)[order]
    pair = np.flatnonzero(key[1:] == key[:-1])
    one, other = order[pair], order[pair + 1]
    cosine = (normals[one // 3] * normals[other // 3]).sum(1)
    smooth = cosine >= np.cos(np.radians(crease_angle)) - 1e-6
    if seams_only:
        vertex = mesh.faces.reshape(-1).numpy()
        same = np.where(start[one] == start[other], vertex[other], vertex[after[other]]) == vertex[one]
        same &= np.where(start[one] == start[other], vertex[after[other]], vertex[other]) == vertex[after[one]]
        smooth |= same & (cosine >= np.cos(np.radians(max(crease_angle, _SHARPEST))) - 1e-6)
    one, other = one[smooth], other[smooth]
    alike = start[one] == start[other]
    # The corners of both faces at either end of a smooth edge are one group.
    links = np.concatenate(
        [
            np.stack([one, np.where(alike, other, after[other])], 1),
            np.stack([after[one], np.where(alike, after[other], other)], 1),
        ]
    )
    graph = coo_matrix((np.ones(len(links), bool), (links[:, 0], links[:, 1])), (3 * count, 3 * count))
    groups, group = connected_components(graph, directed=False)
    return groups, group.astype(np.int64)
