"""Visibility by pytorch3d [Ravi et al. 2020]; an optional package, imported only when used. All else is the twin's."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .twin import TorchRaster, drawable

INSTALL = "pip install --no-build-isolation git+https://github.com/facebookresearch/pytorch3d"


class Pytorch3dRaster(TorchRaster):
    """See `Raster`. Raises ValueError without pytorch3d."""

    def __init__(self, screen: Float[Tensor, "b v 3"], faces: Int64[Tensor, "f 3"], size: tuple[int, int]) -> None:
        self._meshes, self._rasterize = load_pytorch3d()
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
    """x to the left and y up, from -1 to 1 over the picture's shorter side; z stays the depth."""
    height, width = size
    x, y, z = points.unbind(1)
    short = min(size)
    return torch.stack([(width - 2 * x) / short, (height - 2 * y) / short, z], 1)


def load_pytorch3d() -> tuple[Any, Any]:
    """`Meshes` and `rasterize_meshes`. Raises ValueError without pytorch3d, naming the command that installs it."""
    try:
        structures = importlib.import_module("pytorch3d.structures")
        rasterizer = importlib.import_module("pytorch3d.renderer.mesh.rasterize_meshes")
    except ImportError as error:
        raise ValueError(f"the pytorch3d backend needs the pytorch3d package: {INSTALL}") from error
    return structures.Meshes, rasterizer.rasterize_meshes
