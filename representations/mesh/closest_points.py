"""Closest points on a triangle mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..triangle_mesh import TriangleMesh
from .triangle_tree import build_tree, nearest_triangles


@dataclass(frozen=True)
class ClosestPoints:
    """The point of a mesh that is closest to each query point."""

    distance: Float[Tensor, " n"]
    """Distance in meters."""
    face: Int64[Tensor, " n"]
    weights: Float[Tensor, "n 3"]
    """Barycentric weights in that face."""

    def interpolate(self, attribute: Float[Tensor, "v c"], mesh: TriangleMesh) -> Float[Tensor, "n c"]:
        """A vertex attribute of the mesh at the closest points."""
        return (attribute[mesh.faces[self.face]] * self.weights[:, :, None]).sum(1)


class SurfaceIndex:
    """A mesh prepared for closest-point queries, on the CPU and without gradient.

    Raises:
        ValueError: The mesh has no faces.

    Example:
        >>> from steindreamer.representations import SurfaceIndex, TriangleMesh
        >>> corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> surface = SurfaceIndex(TriangleMesh(corners, torch.tensor([[0, 1, 2]])))
        >>> surface.closest(torch.tensor([[0.5, -0.5, 0.0]])).distance
        tensor([0.5000])
    """

    def __init__(self, mesh: TriangleMesh) -> None:
        if len(mesh.faces) == 0:
            raise ValueError("a mesh without faces has no closest point")
        self._triangles = mesh.vertices.detach()[mesh.faces].double().cpu().contiguous().numpy()
        self._tree = build_tree(self._triangles)
        corners = self._triangles.reshape(-1, 3)
        self._reach = 0.02 * float(np.linalg.norm(np.ptp(corners, axis=0)))

    def closest(self, points: Float[Tensor, "n 3"], normals: Float[Tensor, "n 3"] | None = None) -> ClosestPoints:
        """Find the closest points of the surface.

        Args:
            points: The query points.
            normals: Normals of the query points. Faces with an opposite normal are skipped, such as the other side of
                a thin wall, unless no other is within twice the smallest distance plus a fiftieth of the diagonal.
        """
        where = points.detach().double().cpu().contiguous().numpy()
        directions = np.zeros_like(where) if normals is None else normals.detach().double().cpu().contiguous().numpy()
        face = np.empty(len(where), np.int64)
        nearest_triangles(self._tree, where, directions, self._reach, face)
        weights = _closest_weights(where, self._triangles[face])
        offset = where - (weights[:, :, None] * self._triangles[face]).sum(1)
        distance = torch.from_numpy(np.linalg.norm(offset, axis=1)).to(points)
        return ClosestPoints(distance, torch.from_numpy(face).to(points.device), torch.from_numpy(weights).to(points))


def _closest_weights(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Barycentric weights [n 3] of the closest point of each triangle [n 3 3], also of a degenerate one: the foot point
    on the plane if it is inside, else the closest point of the three edges."""
    weights = np.zeros((len(points), 3))
    smallest = np.full(len(points), np.inf)
    for start, end in ((0, 1), (1, 2), (2, 0)):
        along, to_point = triangles[:, end] - triangles[:, start], points - triangles[:, start]
        squared = (along**2).sum(1)
        t = np.clip((to_point * along).sum(1) / np.where(squared > 0, squared, 1), 0, 1)
        distance = ((to_point - t[:, None] * along) ** 2).sum(1)
        nearer = distance < smallest
        smallest[nearer] = distance[nearer]
        weights[nearer] = 0
        weights[nearer, start], weights[nearer, end] = 1 - t[nearer], t[nearer]
    first, second = triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]
    normal, to_point = np.cross(first, second), points - triangles[:, 0]
    area = (normal**2).sum(1)
    safe = np.where(area > 0, area, 1)
    s = (np.cross(to_point, second) * normal).sum(1) / safe
    t = (np.cross(first, to_point) * normal).sum(1) / safe
    inside = (area > 0) & (s >= 0) & (t >= 0) & (s + t <= 1)
    weights[inside] = np.stack([1 - s - t, s, t], 1)[inside]
    return weights
