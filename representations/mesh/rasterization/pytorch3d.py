"""Rasterization by pytorch3d [Ravi et al. 2020], an optional package that is imported only when used.

It determines the visible faces; everything else is computed by the reference implementation.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from steindreamer.optional import PYTORCH3D_INSTALL, load

from .reference import TorchRaster, drawable


class Pytorch3dRaster(TorchRaster):
    """See `Raster`. Raises ValueError without pytorch3d."""

    def __init__(self, screen: Float[Tensor, "b v 3"], faces: Int64[Tensor, "f 3"], size: tuple[int, int]) -> None:
        self._meshes = load("pytorch3d.structures", PYTORCH3D_INSTALL).Meshes
        self._rasterize = load("pytorch3d.renderer.mesh.rasterize_meshes", PYTORCH3D_INSTALL).rasterize_meshes
        super().__init__(screen, faces, size)

    def _visible(self, points: Float[Tensor, "v 3"]) -> Int64[Tensor, "h w"]:
        drawn = drawable(points, self.faces)
        if len(drawn) == 0:
            return torch.full(self.size, -1, device=points.device)
        meshes = self._meshes([device_coordinates(points, self.size).float()], [self.faces[drawn]])
        index, *_ = self._rasterize(meshes, self.size, blur_radius=0.0, faces_per_pixel=1, perspective_correct=True)
        index = index[0, :, :, 0]
        return torch.where(index >= 0, drawn[index.clamp(min=0)], -1)


def device_coordinates(points: Float[Tensor, "v 3"], size: tuple[int, int]) -> Float[Tensor, "v 3"]:
    """Convert to device coordinates: x left and y up, -1 to 1 over the shorter image side; z is the depth."""
    height, width = size
    x, y, z = points.unbind(1)
    short = min(size)
    return torch.stack([(width - 2 * x) / short, (height - 2 * y) / short, z], 1)
