"""Gaussian splatting on the CPU: autograd functions over compiled kernels (`_cpu_projection`, `_cpu_tiles`).

It computes in float32, is differentiable once, and gives the same bits for any number of threads. The kernels run in
numba's thread pool: start worker processes with "spawn", and on a busy machine set OMP_WAIT_POLICY=PASSIVE.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from ...cameras import Cameras
from . import _cpu_projection as projection
from . import _cpu_tiles as tiles
from .semantics import SplatOutput


def splat_cpu(
    means: Float[Tensor, "n 3"],
    quaternions: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colors: Float[Tensor, "n 3"],
    cameras: Cameras,
) -> SplatOutput:
    """The compiled CPU backend of `splat`. Raises ValueError for tensors that are not in CPU memory."""
    if means.device.type != "cpu":
        raise ValueError(f"the cpu backend needs CPU tensors, got {means.device}; use backend 'auto'")
    inputs = (means, quaternions, scales, opacities)
    means, quaternions, scales, opacities = (tensor.float().contiguous() for tensor in inputs)
    view = cameras.world_to_camera.float().contiguous()
    intrinsics = cameras.intrinsics.float().contiguous()
    size = (cameras.height, cameras.width)
    center, shape, reach, depth_normal = _Project.apply(means, quaternions, scales, opacities, view, intrinsics, size)
    image = _Composite.apply(center, shape, reach, depth_normal, colors.float(), size)
    rgb, depth, normal, opacity = image.permute(0, 3, 1, 2).split([3, 1, 3, 1], 1)
    return SplatOutput(rgb, opacity, depth, normal, center, reach[..., 0] > 0)


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,
        quaternions: Tensor,
        scales: Tensor,
        opacities: Tensor,
        view: Tensor,
        intrinsics: Tensor,
        size: tuple[int, int],
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        outputs = tuple(torch.empty(len(view), len(means), columns) for columns in (2, 4, 2, 4))
        center, shape, reach, depth_normal = outputs
        extent = np.array([size[1], size[0]], np.float32)
        for camera in range(len(view)):
            inputs = _arrays(means, quaternions, scales, opacities, view[camera], intrinsics[camera])
            arguments = [*inputs, extent, *_arrays(*(output[camera] for output in outputs))]
            projection.project(*arguments)
        ctx.extent = extent
        ctx.save_for_backward(means, quaternions, scales, view, intrinsics, shape, reach, depth_normal)
        ctx.mark_non_differentiable(reach)
        return center, shape, reach, depth_normal

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *g_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        means, quaternions, scales, view, intrinsics, shape, reach, depth_normal = ctx.saved_tensors
        inputs = (means, quaternions, scales)
        g_inputs = (*(torch.zeros_like(tensor) for tensor in inputs), torch.zeros(len(means)))
        g_center, g_shape, _, g_depth_normal = (gradient.contiguous() for gradient in g_outputs)
        per_camera = (shape, reach, depth_normal, g_center, g_shape, g_depth_normal)
        for camera in range(len(view)):
            arguments = [
                *_arrays(*inputs, view[camera], intrinsics[camera]),
                ctx.extent,
                *_arrays(*(tensor[camera] for tensor in per_camera), *g_inputs),
            ]
            projection.project_backward(*arguments)
        return *g_inputs, None, None, None


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        center: Tensor,
        shape: Tensor,
        reach: Tensor,
        depth_normal: Tensor,
        colors: Tensor,
        size: tuple[int, int],
    ) -> Tensor:
        features = torch.cat([colors.expand(len(center), -1, -1), depth_normal], 2)
        image = torch.empty(len(center), *size, tiles.FEATURES + 1)
        # By z-depth, ties by index. The tile lists inherit this order, so nothing else is sorted.
        order = np.argsort(depth_normal[..., 0].numpy(), axis=1, kind="stable")
        ctx.bins = []
        for camera in range(len(center)):
            where, extent = _arrays(center[camera], reach[camera])
            bins = tiles.bin_tiles(where, extent, order[camera], size[1], size[0])
            inputs = _arrays(*(tensor[camera] for tensor in (center, shape, reach, features, image)))
            arguments = [*bins, *inputs, numba.get_num_threads()]
            tiles.composite(*arguments)
            ctx.bins.append(bins)
        ctx.save_for_backward(center, shape, reach, features, image)
        return image

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *g_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        saved = (*ctx.saved_tensors, g_outputs[0].contiguous())
        rows = torch.zeros(*saved[0].shape[:2], 2 + 4 + tiles.FEATURES)
        for camera, bins in enumerate(ctx.bins):
            ids = bins[1]
            pairs = np.empty((len(ids), rows.shape[2]), np.float32)
            arguments = [*bins, *_arrays(*(tensor[camera] for tensor in saved)), pairs, numba.get_num_threads()]
            tiles.composite_backward(*arguments)
            tiles.add_pairs(ids, pairs, rows[camera].numpy())
        g_center, g_shape, g_colors, g_depth_normal = rows.split([2, 4, 3, 4], 2)
        return g_center, g_shape, None, g_depth_normal, g_colors.sum(0), None


def _arrays(*tensors: Tensor) -> tuple[np.ndarray, ...]:
    return tuple(tensor.detach().numpy() for tensor in tensors)
