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

    @abstractmethod
    def antialias(self, layers: Float[Tensor, "b h w c"], vertices: Float[Tensor, "v 3"]) -> Float[Tensor, "b h w c"]:
        """Pictures of the covered pixels, 0 elsewhere, with smooth silhouettes; differentiable in `screen` too.

        `vertices` are the world positions: a surface that is only cut there (vertices doubled for the sake of texture
        coordinates) has no silhouette along the cut.
        """


def to_screen(vertices: Float[Tensor, "v 3"], cameras: Cameras) -> Float[Tensor, "b v 3"]:
    """Pixel x and y on the sub-pixel grid, and z-depth; the gradient ignores the rounding."""
    pixels, depth = cameras.project(vertices)
    return torch.cat([pixels + (snap(pixels) - pixels).detach(), depth[..., None]], -1)
