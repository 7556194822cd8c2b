"""Detection of separate mesh parts whose faces point inward."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ...triangle_mesh import TriangleMesh
from ..signed_distance import signed_distance


def inward_faces(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Mask `[f]` of the faces of connected parts that are inside out.

    A part is inside out if it is closed, has negative volume, and is not inside another part, where it would bound a
    cavity. If all parts are, the result is all False, because the intended orientation is unknown.

    Args:
        vertices: `[v, 3]`; vertices at the same position are treated as one.
        faces: `[f, 3]`.
    """
    _, welded = np.unique(vertices, axis=0, return_inverse=True)
    corners = welded.reshape(-1)[faces]
    edges = np.concatenate([corners[:, :2], corners[:, 1:], corners[:, [2, 0]]])
    count = int(corners.max()) + 1
    has_neighbor = np.isin(edges[:, 1] * count + edges[:, 0], edges[:, 0] * count + edges[:, 1])
    links = coo_matrix((np.ones(len(edges), bool), (edges[:, 0], edges[:, 1])), (count, count))
    part_of_face = np.unique(connected_components(links, directed=False)[1][corners[:, 0]], return_inverse=True)[1]
    a, b, c = (vertices[faces[:, corner]] - vertices.mean(0) for corner in range(3))
    volumes = np.bincount(part_of_face, np.einsum("fc,fc->f", a, np.cross(b, c)))
    if (volumes >= 0).all() or (volumes <= 0).all():
        return np.zeros(len(faces), bool)
    is_open = np.bincount(part_of_face, ~has_neighbor.reshape(3, -1).all(0)) > 0
    negative = np.flatnonzero((volumes < 0) & ~is_open)
    if len(negative) == 0:
        return np.zeros(len(faces), bool)
    outer = TriangleMesh(torch.from_numpy(vertices), torch.from_numpy(faces[volumes[part_of_face] > 0]))
    first_face = np.unique(part_of_face, return_index=True)[1][negative]
    is_outside = signed_distance(torch.from_numpy(vertices[faces[first_face]].mean(1)), outer).numpy() > 0
    return np.isin(part_of_face, negative[is_outside])
