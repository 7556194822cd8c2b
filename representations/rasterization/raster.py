"""What every backend of differentiable rasterisation computes, and how it is asked.

Following [Laine et al. 2020]: which triangle a pixel sees is not differentiable; values interpolated on the triangle
are, in the attributes and the vertices; and so is antialiasing, which mixes the two pixels on either side of a
silhouette in proportion to where the silhouette passes between their centres. That gives the outline its gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ..cameras import Cameras
from ..mesh import vertex_normals
from .fragments import snap


class Raster(ABC):
    """Triangles seen by a batch of cameras."""

    screen: Float[Tensor, "b v 3"]
    """Vertices: pixel x and y, z-depth in metres; differentiable."""
    faces: Int64[Tensor, "f 3"]
    size: tuple[int, int]
    """Height and width."""
    pixels: Int64[Tensor, " n"]
    """The covered pixels, as ascending indices into the flattened pictures [b h w]."""
    front: Bool[Tensor, " n"]
    """Whether the covered pixel sees the outer (counter-clockwise) side."""

    @abstractmethod
    def values(self, attributes: Float[Tensor, "v c"]) -> Float[Tensor, "n c+1"]:
        """Vertex attributes at the covered pixels, perspective-correct, and z-depth in metres as the last column.

        Differentiable in the attributes and in `screen`.
        """

    def normals(self, vertices: Float[Tensor, "v 3"]) -> Float[Tensor, "v 3"]:
        """Smooth normals of the faces, for vertices at these world positions; differentiable. See `vertex_normals`."""
        return vertex_normals(vertices, self.faces)

    @abstractmethod
    def antialias(
        self, layers: Float[Tensor, "b h w c"], vertices: Float[Tensor, "v 3"]
    ) -> tuple[Float[Tensor, "b h w c"], Int64[Tensor, " m"]]:
        """The pictures with smooth silhouettes, and which pixels are mixed now; differentiable in `screen` too.

        `vertices` are the world positions: a surface that is only cut there (vertices doubled for the sake of texture
        coordinates) has no silhouette along the cut.
        """


def to_screen(vertices: Float[Tensor, "v 3"], cameras: Cameras) -> Float[Tensor, "b v 3"]:
    """`Cameras.project`: pixel x and y, on the sub-pixel grid, and z-depth. The gradient ignores the rounding.

    Without a matrix product, whose last bits depend on the number of threads.
    """
    pose, intrinsics = cameras.world_to_camera[..., None], cameras.intrinsics[..., None]
    x, y, z = vertices.unbind(1)
    right, down, depth = (pose[:, i, 0] * x + pose[:, i, 1] * y + pose[:, i, 2] * z + pose[:, i, 3] for i in range(3))
    inverse = 1 / torch.where(depth.abs() > 1e-8, depth, 1e-8)
    column = right * inverse * intrinsics[:, 0, 0] + intrinsics[:, 0, 2]
    row = down * inverse * intrinsics[:, 1, 1] + intrinsics[:, 1, 2]
    pixels = torch.stack([column, row], -1)
    return torch.cat([pixels + (snap(pixels) - pixels).detach(), depth[..., None]], -1)
