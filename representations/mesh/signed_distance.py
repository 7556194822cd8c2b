"""Signed distance to a triangle mesh, negative inside."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..triangle_mesh import TriangleMesh
from .triangle_tree import build_tree, signed_distances


def signed_distance(points: Float[Tensor, "n 3"], mesh: TriangleMesh) -> Float[Tensor, " n"]:
    """Exact signed distance (meters) to the nearest triangle; negative where the winding number exceeds 1/2.

    The mesh may have overlapping parts and small holes, but must be wound outward. It is computed on the CPU for any
    device of `points`, without gradient.

    Sources: winding numbers [Jacobson et al. 2013], their fast evaluation [Barill et al. 2018].

    Raises:
        ValueError: The mesh has no faces.

    Example:
        >>> from steindreamer.representations import TriangleMesh, signed_distance
        >>> corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
        >>> tetrahedron = TriangleMesh(corners, torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]))
        >>> signed_distance(torch.tensor([[0.1, 0.2, 0.2], [-1.0, 0.2, 0.2]]), tetrahedron)
        tensor([-0.1000,  1.0000])
    """
    return SignedDistance(mesh)(points)


class SignedDistance:
    """`signed_distance` to one mesh, whose search tree is built once. Raises ValueError if the mesh has no faces."""

    def __init__(self, mesh: TriangleMesh) -> None:
        if len(mesh.faces) == 0:
            raise ValueError("the signed distance to a mesh without faces is undefined")
        self._tree = build_tree(mesh.vertices.detach()[mesh.faces].double().cpu().contiguous().numpy())

    def __call__(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Signed distances of the points in meters, on their device."""
        out = np.empty(len(points))
        signed_distances(self._tree, points.detach().double().cpu().contiguous().numpy(), out)
        return torch.from_numpy(out).to(points)
