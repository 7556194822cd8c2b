"""Differentiable rasterization with nvdiffrast's CUDA kernels [Laine et al. 2020].

An optional package, imported only when used. Its license permits research and evaluation, not commercial use.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from steindreamer.optional import load

from .fragments import NEAR
from .raster import Raster
from .topology import weld

INSTALL = "pip install --no-build-isolation git+https://github.com/NVlabs/nvdiffrast (non-commercial license)"
FAR = 1000.0
"""Far plane in meters."""


class NvdiffrastRaster(Raster):
    """The nvdiffrast backend of `Raster`, licensed for non-commercial use only.

    Triangles are clipped at the near plane instead of dropped. Raises ValueError if nvdiffrast is not installed, or for
    tensors that are not on a CUDA device.
    """

    def __init__(self, screen: Float[Tensor, "b v 3"], faces: Int64[Tensor, "f 3"], size: tuple[int, int]) -> None:
        if not screen.is_cuda:
            raise ValueError(
                f"the nvdiffrast backend needs tensors on a CUDA device, got {screen.device}; use backend 'auto'"
            )
        self._library = load("nvdiffrast.torch", INSTALL)
        # The kernels support only float32 and int32.
        self.screen, self.faces, self.size = screen.float(), faces, size
        self._triangles = faces.int().contiguous()
        self._clip = clip_positions(self.screen, size).contiguous()
        self._raster, _ = self._library.rasterize(
            _context(screen.device), self._clip, self._triangles, resolution=list(size), grad_db=False
        )
        triangle = self._raster[..., 3].flatten()
        self.pixels = (triangle > 0).nonzero()[:, 0]
        camera = self.pixels // (size[0] * size[1])
        corners = faces[triangle[self.pixels].long() - 1]
        self.front = shows_outer_side(self.screen.detach()[camera[:, None], corners])

    def values(self, attributes: Float[Tensor, "v c"]) -> Float[Tensor, "n c+1"]:
        everywhere = attributes.float().expand(len(self.screen), -1, -1)
        per_vertex = torch.cat([everywhere, self.screen[..., 2:]], 2).contiguous()
        images, _ = self._library.interpolate(per_vertex, self._raster, self._triangles)
        return images.flatten(0, 2).index_select(0, self.pixels)

    def antialias(
        self, layers: Float[Tensor, "b h w c"], vertices: Float[Tensor, "v 3"]
    ) -> tuple[Float[Tensor, "b h w c"], Int64[Tensor, " m"]]:
        triangles = weld(vertices, self.faces).int().contiguous()
        mixed = self._library.antialias(layers.contiguous(), self._raster, self._clip, triangles)
        return mixed, (mixed != layers).any(3).flatten().nonzero()[:, 0]


def shows_outer_side(corners: Float[Tensor, "n 3 3"]) -> Bool[Tensor, " n"]:
    """Whether the outer (counter-clockwise) side of triangles is visible, given points of `Raster.screen`.

    Also correct for corners behind the camera, whose projection is mirrored.
    """
    (ax, ay, az), (bx, by, bz), (cx, cy, cz) = (corner.unbind(1) for corner in corners.unbind(1))
    # With pixel y pointing down, counter-clockwise winding has negative area; each corner behind the camera flips it.
    area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    return area * az.sign() * bz.sign() * cz.sign() < 0


def clip_positions(screen: Float[Tensor, "b v 3"], size: tuple[int, int]) -> Float[Tensor, "b v 4"]:
    """Positions in OpenGL clip space, upside down: nvdiffrast's first image row is at y = -1, ours is at the top.

    nvdiffrast does not cull by winding, so mirroring the scene is harmless.
    """
    x, y, z = screen.unbind(-1)
    depth = ((FAR + NEAR) * z - 2 * FAR * NEAR) / (FAR - NEAR)
    return torch.stack([(2 * x / size[1] - 1) * z, (2 * y / size[0] - 1) * z, depth, z], -1)


@cache
def _context(device: torch.device) -> Any:
    """The rasterizer context of a device; cached, since its buffers grow with use."""
    return load("nvdiffrast.torch", INSTALL).RasterizeCudaContext(device=device)
