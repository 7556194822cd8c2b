"""Regularizers on the shape of a closed triangle mesh, and on a texture.

In a closed mesh, every edge is a side of two triangles, once in each direction, so that sums over the sides of all
triangles are sums over edges, and no edge table is needed. In CPU memory, compiled kernels compute float32; they can be
differentiated once.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import _regularizer_kernels as kernels
from .compiled import face_array, is_compiled

CREASE = 20.0
"""Angle in degrees between the normals at the ends of an edge at which `robust_normal_consistency` is half of its
maximum."""


def laplacian(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], unit: float) -> Float[Tensor, ""]:
    """Uniform Laplacian: mean squared distance of a vertex from the mean of its neighbors; 0 without faces.

    Args:
        vertices: Positions in meters.
        faces: Vertex indices.
        unit: Unit of length of the result, in meters.
    """
    if len(faces) == 0:
        return vertices[:0].sum()
    begin, end = _sides(faces)
    total = torch.zeros_like(vertices).index_add(0, begin, vertices.index_select(0, end))
    count = torch.bincount(begin, minlength=len(vertices)).clamp(min=1)[:, None]
    return ((total / count - vertices) / unit).square().sum(1).mean()


def edge_normal_consistency(normals: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Float[Tensor, ""]:
    """Mean of 1 - cosine between the vertex normals at the two ends of an edge, in [0, 2]; 0 without faces.

    This is `normal_consistency` of threestudio.
    """
    return _consistency(normals, faces, 0.0)


def robust_normal_consistency(normals: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Float[Tensor, ""]:
    """Mean of d / (d + s) over the edges with d = 1 - cosine between the vertex normals at the two ends, in [0, 1].

    For angles well below `CREASE` this is `edge_normal_consistency` divided by s = 1 - cos(`CREASE`). Above, it is
    constant, so that dents are flattened while creases and the rims of thin parts are kept. It is the robust function
    of Geman and McClure [1985]. It is 0 without faces.
    """
    return _consistency(normals, faces, 1 - math.cos(math.radians(CREASE)))


def texture_variation(
    texture: Float[Tensor, "3 h w"], charts: Int32[Tensor, "h w"]
) -> tuple[Float[Tensor, ""], Int64[Tensor, ""]]:
    """Sum of the absolute differences of neighboring texels of the same chart (total variation), and their number.

    Every channel counts by itself.

    Args:
        texture: The image.
        charts: Index from 1 of the chart at every texel; 0: none.
    """
    if is_compiled(texture):
        return _Variation.apply(texture.contiguous(), charts)
    total, count = texture[:, :0].sum(), torch.zeros((), dtype=torch.int64, device=texture.device)
    for axis in (0, 1):
        size = charts.shape[axis] - 1
        one, other = (charts.narrow(axis, start, size) for start in (0, 1))
        same = (one == other) & (one > 0)
        first, second = (texture.narrow(axis + 1, start, size) for start in (0, 1))
        total = total + ((first - second).abs() * same).sum()
        count = count + len(texture) * same.sum()
    return total, count


def _consistency(normals: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"], scale: float) -> Float[Tensor, ""]:
    """Mean over the edges of d / (d + scale), or of d for a scale of 0, with d = 1 - cosine; 0 without faces."""
    if len(faces) == 0:
        return normals[:0].sum()
    if is_compiled(normals):
        return _Consistency.apply(normals.contiguous(), faces, scale)
    begin, end = _sides(faces)
    difference = 1 - (normals.index_select(0, begin) * normals.index_select(0, end)).sum(1)
    return (difference / (difference + scale) if scale else difference).mean()


class _Consistency(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, normals: Tensor, faces: Tensor, scale: float) -> Tensor:
        gradient = torch.empty_like(normals)
        total = kernels.consistency_kernel(normals.detach().numpy(), face_array(faces), scale, gradient.numpy())
        ctx.gradient = gradient / faces.numel()
        return normals.new_tensor(total / faces.numel())

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, g_out: Tensor
    ) -> tuple[Tensor | None, ...]:
        return g_out * ctx.gradient, None, None


class _Variation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, texture: Tensor, charts: Tensor) -> tuple[Tensor, Tensor]:
        ctx.gradient = torch.empty_like(texture)
        inputs = texture.detach().numpy(), charts.contiguous().numpy()
        total, count = kernels.variation_kernel(*inputs, ctx.gradient.numpy())
        pairs = torch.tensor(count)
        ctx.mark_non_differentiable(pairs)
        return texture.new_tensor(total), pairs

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, g_total: Tensor, _: Tensor
    ) -> tuple[Tensor | None, ...]:
        return g_total * ctx.gradient, None


def _sides(faces: Int64[Tensor, "f 3"]) -> tuple[Int64[Tensor, " s"], Int64[Tensor, " s"]]:
    return faces.T.reshape(-1), faces.roll(-1, 1).T.reshape(-1)
