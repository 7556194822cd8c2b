"""Triangle meshes as plain data, and their normals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class TriangleMesh:
    """Triangles with counter-clockwise outward winding, in world space (meters, +Y up)."""

    vertices: Float[Tensor, "v 3"]
    """Positions in meters."""
    faces: Int64[Tensor, "f 3"]
    """Vertex indices of the triangles."""
    normals: Float[Tensor, "v 3"] | None = None
    """Unit vertex normals; None: computed from the faces when needed."""
    colors: Float[Tensor, "v 3"] | None = None
    """Vertex colors, display sRGB in [0, 1]."""
    uvs: Float[Tensor, "v 2"] | None = None
    """Texture coordinates with v pointing down (glTF): (0, 0) is the corner of the first row and column."""
    texture: Float[Tensor, "3 th tw"] | None = None
    """Texture image, display sRGB in [0, 1]."""


def face_normals(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Float[Tensor, "f 3"]:
    """Unit outward normals of counter-clockwise faces; 0 for a degenerate face.

    Example:
        >>> from steindreamer.representations import face_normals
        >>> corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> face_normals(corners, torch.tensor([[0, 1, 2]]))
        tensor([[0., 0., 1.]])
    """
    return F.normalize(_area_normals(vertices, faces), dim=1)


def vertex_normals(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Float[Tensor, "v 3"]:
    """Unit vertex normals: the area-weighted mean over the adjacent faces; 0 for a vertex without adjacent area.

    Example:
        >>> from steindreamer.representations import vertex_normals
        >>> corners = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0]])
        >>> vertex_normals(corners, torch.tensor([[0, 1, 2]]))[0]
        tensor([0., 0., 1.])
    """
    weighted = _area_normals(vertices, faces)
    total = torch.zeros_like(vertices).index_add(0, faces.T.reshape(-1), weighted.repeat(3, 1))
    return F.normalize(total, dim=1)


def _area_normals(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Float[Tensor, "f 3"]:
    """Face normals whose length is twice the area of the face."""
    # Not vertices[faces]: autograd sums the gradient of that in an order that depends on the threads.
    a, b, c = vertices.index_select(0, faces.reshape(-1)).reshape(-1, 3, 3).unbind(1)
    return torch.linalg.cross(b - a, c - a)
