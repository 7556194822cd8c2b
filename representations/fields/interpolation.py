"""Trilinear interpolation in multiresolution feature grids, dense or hashed [Müller et al. 2022], and its derivative.

A level with `cells` cells per axis has (cells + 1)^3 corners. If the table has at least that many entries, each corner
has its own entry (x fastest); otherwise corners share entries by the spatial hash `x ^ 2654435761 y ^ 805459861 z`
modulo the size of the table, which then must be a power of two.

float32 tensors on the CPU use compiled kernels, all other tensors `grid_reference`. The kernels give the same bits for
any number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import _cpu_grid as kernels
from .grid_reference import interpolate_torch, point_gradient_torch


def interpolate(
    points: Float[Tensor, "n 3"], table: Float[Tensor, "levels size features"], resolutions: Sequence[int]
) -> Float[Tensor, "n width"]:
    """Features at points in the unit cube, concatenated over the levels.

    Differentiable in the points and the table (once, on the CPU).

    Args:
        points: Points in [0, 1]^3; outside, weights are extrapolated.
        table: Table entries of all levels.
        resolutions: Number of cells per axis of each level; further levels of the table are ignored.
    """
    if _compiled(points, table):
        return _Interpolate.apply(points, table, tuple(resolutions))
    return interpolate_torch(points, table, resolutions)


def point_gradient(
    points: Float[Tensor, "n 3"],
    table: Float[Tensor, "levels size features"],
    cotangent: Float[Tensor, "n width"],
    resolutions: Sequence[int],
) -> Float[Tensor, "n 3"]:
    """Derivative of `sum(cotangent * interpolate(points))` with respect to the points: J^T cotangent.

    Differentiable in the table and the cotangent, not in the points: the interpolant is piecewise linear per axis, and
    its second derivative is treated as zero.
    """
    if _compiled(points, table):
        return _PointGradient.apply(points.detach(), table, cotangent, tuple(resolutions))
    return point_gradient_torch(points, table, cotangent, resolutions)


def _compiled(points: Tensor, table: Tensor) -> bool:
    return points.device.type == table.device.type == "cpu" and points.dtype == table.dtype == torch.float32


def _layout(table: Tensor, resolutions: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """The arguments common to all kernels: cells per level, whether each level is dense, one entry per feature."""
    dense = np.array([(cells + 1) ** 3 <= table.shape[1] for cells in resolutions])
    return np.array(resolutions, np.uint32), dense, (0,) * table.shape[2]


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()


def _gather(points: Tensor, direction: Tensor | None, table: Tensor, resolutions: tuple[int, ...]) -> Tensor:
    out = torch.empty(len(points), len(resolutions) * table.shape[2])
    along = None if direction is None else _array(direction)
    kernels.gather(_array(points), along, _array(table), *_layout(table, resolutions), out.numpy())
    return out


def _scatter(
    points: Tensor, direction: Tensor | None, table: Tensor, cotangent: Tensor, resolutions: tuple[int, ...]
) -> Tensor:
    out = torch.zeros_like(table)
    along = None if direction is None else _array(direction)
    kernels.scatter(_array(points), along, _array(cotangent), *_layout(table, resolutions), out.numpy())
    return out


def _pull_back(points: Tensor, table: Tensor, cotangent: Tensor, resolutions: tuple[int, ...]) -> Tensor:
    out = torch.empty(len(points), 3)
    kernels.point_gradient(_array(points), _array(table), _array(cotangent), *_layout(table, resolutions), out.numpy())
    return out


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, resolutions: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(points, table)
        ctx.resolutions = resolutions
        return _gather(points, None, table, resolutions)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *g_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        points, table = ctx.saved_tensors
        needs_points, needs_table, _ = ctx.needs_input_grad
        g_points = _pull_back(points, table, g_outputs[0], ctx.resolutions) if needs_points else None
        g_table = _scatter(points, None, table, g_outputs[0], ctx.resolutions) if needs_table else None
        return g_points, g_table, None


class _PointGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, cotangent: Tensor, resolutions: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(points, table, cotangent)
        ctx.resolutions = resolutions
        return _pull_back(points, table, cotangent, resolutions)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, *g_outputs: Tensor
    ) -> tuple[Tensor | None, ...]:
        points, table, cotangent = ctx.saved_tensors
        _, needs_table, needs_cotangent, _ = ctx.needs_input_grad
        direction = g_outputs[0]
        g_table = _scatter(points, direction, table, cotangent, ctx.resolutions) if needs_table else None
        g_cotangent = _gather(points, direction, table, ctx.resolutions) if needs_cotangent else None
        return None, g_table, g_cotangent, None
