"""Triangle meshes as plain data."""

from __future__ import annotations

from dataclasses import dataclass

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
