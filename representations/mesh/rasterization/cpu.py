"""Differentiable rasterization on the CPU with compiled kernels.

It computes in float32, is differentiable once, and gives the same bits for any number of threads. The kernels run in
numba's thread pool: start worker processes with "spawn", and on a busy machine set OMP_WAIT_POLICY=PASSIVE.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..compiled import face_array
from ..smooth_normals import smooth_normals
from . import _silhouette_kernels as silhouettes
from . import _values_kernels as kernels
from .fragments import Fragments, rasterize_screen
from .raster import Raster
from .silhouettes import Crossings, mix, outermost
from .topology import outline_edges


class CpuRaster(Raster):
    """The compiled CPU backend of `Raster`. Raises ValueError for tensors that are not in CPU memory."""

    def __init__(self, screen: Float[Tensor, "b v 3"], faces: Int64[Tensor, "f 3"], size: tuple[int, int]) -> None:
        if screen.device.type != "cpu":
            raise ValueError(f"the cpu backend needs CPU tensors, got {screen.device}; use backend 'auto'")
        self.screen, self.faces, self.size = screen.float().contiguous(), faces, size
        self._fragments = rasterize_screen(self.screen, faces, *size)
        self.pixels = (self._fragments.triangle.flatten() >= 0).nonzero()[:, 0]
        self.front = self._fragments.front.flatten()[self.pixels]

    def values(self, attributes: Float[Tensor, "v c"]) -> Float[Tensor, "n c+1"]:
        return _Values.apply(self.screen, attributes.float().contiguous(), self.pixels, self._fragments, self.faces)

    def normals(self, vertices: Float[Tensor, "v 3"]) -> Float[Tensor, "v 3"]:
        return smooth_normals(vertices.float(), self.faces)

    def antialias(
        self, layers: Float[Tensor, "b h w c"], vertices: Float[Tensor, "v 3"]
    ) -> tuple[Float[Tensor, "b h w c"], Int64[Tensor, " m"]]:
        edges = outline_edges(vertices, self.faces).numpy()
        screen = self.screen.detach().numpy()
        lines = np.empty((len(screen), len(edges)), np.int32)
        silhouettes.count_lines_kernel(screen, edges, *self.size, lines)
        which = np.flatnonzero(lines)
        after = np.cumsum(lines.ravel()[which], dtype=np.int64)
        total = int(after[-1]) if len(after) else 0
        found, table = np.empty(total, np.bool_), np.empty((total, 8), np.int64)
        offset = after - lines.ravel()[which]
        silhouettes.walk_kernel(screen, edges, self._fragments.depth.numpy(), which, offset, found, table)
        camera, in_row, line, first, inner_first, start, end, across = torch.from_numpy(table[found]).unbind(1)
        crossings = Crossings(camera, in_row.bool(), line, first, inner_first.bool(), start, end, across.bool())
        return mix(layers, self.screen, outermost(self.screen, crossings, self.size))


class _Values(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, screen: Tensor, attributes: Tensor, pixels: Tensor, fragments: Fragments, faces: Tensor
    ) -> Tensor:
        out = torch.empty(len(pixels), attributes.shape[1] + 1)
        ctx.constants = (
            pixels.numpy(),
            fragments.triangle.numpy().reshape(-1),
            fragments.barycentrics.numpy().reshape(-1, 3),
            face_array(faces),
            fragments.triangle[0].numel(),
        )
        ctx.save_for_backward(screen, attributes)
        kernels.values_kernel(*ctx.constants, screen.detach().numpy(), attributes.detach().numpy(), out.numpy())
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, g_out: Tensor
    ) -> tuple[Tensor | None, ...]:
        screen, attributes = ctx.saved_tensors
        g_screen, g_attributes = (torch.zeros(kernels.PARTS, *tensor.shape) for tensor in (screen, attributes))
        inputs = [tensor.detach().numpy() for tensor in (screen, attributes, g_out.contiguous())]
        arguments = [*ctx.constants, *inputs, g_screen.numpy(), g_attributes.numpy()]
        kernels.values_backward_kernel(*arguments)
        return g_screen.sum(0), g_attributes.sum(0), None, None, None
