"""`Raster`: the interface of all backends of differentiable rasterization.

Following [Laine et al. 2020], visibility is not differentiable. Values interpolated on the triangles are differentiable
in the attributes and the vertices, and so is antialiasing, which blends the two pixels on either side of a silhouette
in proportion to its position between their centers. This gives silhouettes a gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ...cameras import Cameras
from ...triangle_mesh import vertex_normals
from .fragments import snap


class Raster(ABC):
    """Triangles rasterized for a batch of cameras."""

    screen: Float[Tensor, "b v 3"]
    """Vertices in screen space: pixel x and y, z-depth in meters; differentiable."""
    faces: Int64[Tensor, "f 3"]
    """Vertex indices."""
    size: tuple[int, int]
    """Image height and width in pixels."""
    pixels: Int64[Tensor, " n"]
    """The covered pixels, as ascending indices into the flattened images [b h w]."""
    front: Bool[Tensor, " n"]
    """Whether the outer (counter-clockwise) side is visible at each covered pixel."""

    @abstractmethod
    def values(self, attributes: Float[Tensor, "v c"]) -> Float[Tensor, "n c+1"]:
        """Vertex attributes at the covered pixels, perspective-correct, and z-depth in meters as the last column.

        Differentiable in the attributes and in `screen`.
        """

    def normals(self, vertices: Float[Tensor, "v 3"]) -> Float[Tensor, "v 3"]:
        """Smooth vertex normals for the given world positions; differentiable. See `vertex_normals`."""
        return vertex_normals(vertices, self.faces)

    @abstractmethod
    def antialias(
        self, layers: Float[Tensor, "b h w c"], vertices: Float[Tensor, "v 3"]
    ) -> tuple[Float[Tensor, "b h w c"], Int64[Tensor, " m"]]:
        """Antialias silhouettes; differentiable in the images and in `screen`.

        Args:
            layers: Images of the covered pixels over a background.
            vertices: World positions; coincident vertices are welded, so that texture seams are not silhouettes.

        Returns:
            The antialiased images, and the flat indices of the changed pixels.
        """


def to_screen(vertices: Float[Tensor, "v 3"], cameras: Cameras) -> Float[Tensor, "b v 3"]:
    """`Cameras.project` with rounding: pixel x and y on the subpixel grid, and z-depth. The gradient ignores rounding.

    It uses no matrix product, whose last bits would depend on the number of threads.
    """
    pose, intrinsics = cameras.world_to_camera[..., None], cameras.intrinsics[..., None]
    x, y, z = vertices.unbind(1)
    right, down, depth = (pose[:, i, 0] * x + pose[:, i, 1] * y + pose[:, i, 2] * z + pose[:, i, 3] for i in range(3))
    inverse = 1 / torch.where(depth.abs() > 1e-8, depth, 1e-8)
    column = right * inverse * intrinsics[:, 0, 0] + intrinsics[:, 0, 2]
    row = down * inverse * intrinsics[:, 1, 1] + intrinsics[:, 1, 2]
    pixels = torch.stack([column, row], -1)
    return torch.cat([pixels + (snap(pixels) - pixels).detach(), depth[..., None]], -1)
