"""Triangle meshes as plain data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class TriangleMesh:
    """Triangles with counter-clockwise outward winding, in world space (metres, +Y up)."""

    vertices: Float[Tensor, "v 3"]
    faces: Int64[Tensor, "f 3"]
    normals: Float[Tensor, "v 3"] | None = None
    """Unit vertex normals; None: computed from the faces when needed."""
    colours: Float[Tensor, "v 3"] | None = None
    """Display sRGB in [0, 1] per vertex."""
    uvs: Float[Tensor, "v 2"] | None = None
    """Texture coordinates with v growing downwards (glTF): (0, 0) is the texture's first row and column."""
    texture: Float[Tensor, "3 th tw"] | None = None
    """Display sRGB in [0, 1]."""


def face_normals(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Float[Tensor, "f 3"]:
    """Unit outward normals of counter-clockwise faces; 0 for a face without area."""
    return F.normalize(_area_normals(vertices, faces), dim=1)


def vertex_normals(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Float[Tensor, "v 3"]:
    """Unit vertex normals, the area-weighted mean of the adjacent faces; 0 for a vertex without area around it."""
    weighted = _area_normals(vertices, faces)
    total = torch.zeros_like(vertices).index_add(0, faces.T.reshape(-1), weighted.repeat(3, 1))
    return F.normalize(total, dim=1)


def _area_normals(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Float[Tensor, "f 3"]:
    """Normals whose length is twice the face's area."""
    # Not vertices[faces]: the order in which autograd sums the gradient of that is left to the threads.
    a, b, c = vertices.index_select(0, faces.reshape(-1)).reshape(-1, 3, 3).unbind(1)
    return torch.linalg.cross(b - a, c - a)
