"""`smooth_normals`: vertex normals, compiled on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..triangle_mesh import vertex_normals
from . import _normal_kernels as kernels
from .compiled import face_array, is_compiled


def smooth_normals(vertices: Float[Tensor, "v 3"], faces: Int64[Tensor, "f 3"]) -> Float[Tensor, "v 3"]:
    """`vertex_normals`; for float32 in CPU memory by a compiled kernel, which can be differentiated once.

    Args:
        vertices: Positions in meters.
        faces: Vertex indices.
    """
    return _Normals.apply(vertices.contiguous(), faces) if is_compiled(vertices) else vertex_normals(vertices, faces)


class _Normals(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, vertices: Tensor, faces: Tensor) -> Tensor:
        out, length = torch.empty_like(vertices), np.empty(len(vertices), np.float32)
        ctx.constants = (face_array(faces), length)
        kernels.normals_kernel(vertices.detach().numpy(), ctx.constants[0], out.numpy(), length)
        ctx.save_for_backward(vertices, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, g_out: Tensor
    ) -> tuple[Tensor | None, ...]:
        vertices, out = (tensor.detach().numpy() for tensor in ctx.saved_tensors)
        faces, length = ctx.constants
        g_sums, g_vertices = np.empty_like(vertices), np.empty_like(vertices)
        arguments = [vertices, faces, out, length, g_out.contiguous().numpy(), g_sums, g_vertices]
        kernels.normals_backward_kernel(*arguments)
        return torch.from_numpy(g_vertices), None
