"""Gaussian splatting with gsplat's CUDA kernels [Ye et al. 2025]; an optional package, imported only when used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...cameras import Cameras
from .geometry import facing_normals, rotation_matrices, to_camera
from .semantics import BLUR, NEAR, SplatOutput

INSTALL = "pip install 'gsplat>=1.5.3' ninja"


def splat_gsplat(
    means: Float[Tensor, "n 3"],
    quaternions: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colors: Float[Tensor, "n 3"],
    cameras: Cameras,
) -> SplatOutput:
    """The gsplat backend of `splat`.

    Raises ValueError if gsplat or its kernels are missing, or for tensors that are not on a CUDA device.
    """
    if not means.is_cuda:
        raise ValueError(f"the gsplat backend needs tensors on a CUDA device, got {means.device}; use backend 'auto'")
    return splat_with(load_rasterization(), means, quaternions, scales, opacities, colors, cameras)


def splat_with(
    rasterization: Callable[..., Any],
    means: Float[Tensor, "n 3"],
    quaternions: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colors: Float[Tensor, "n 3"],
    cameras: Cameras,
) -> SplatOutput:
    """`splat` with gsplat's `rasterization`, or a function with its signature; in float32."""
    # gsplat's kernels support only float32.
    inputs = (means, quaternions, scales, opacities, colors)
    means, quaternions, scales, opacities, colors = (tensor.float() for tensor in inputs)
    world_to_camera = cameras.world_to_camera
    local = to_camera(means, world_to_camera)
    normals = facing_normals(rotation_matrices(quaternions), scales, local, world_to_camera)
    # Depth and normal are rendered as additional colors: one pass, pre-multiplied like the colors. The kernels are
    # compiled for certain numbers of channels only; every version includes 8, but not 7.
    depth_normal_nothing = [local[..., 2:], normals, torch.zeros_like(local[..., 2:])]
    features = torch.cat([colors.expand(len(cameras), -1, -1), *depth_normal_nothing], 2)
    image, opacity, details = rasterization(
        means,
        quaternions,
        scales,
        opacities,
        features,
        world_to_camera,
        cameras.intrinsics,
        cameras.width,
        cameras.height,
        near_plane=NEAR,
        eps2d=BLUR,
        packed=False,
    )
    rgb, depth, normal, _ = image.permute(0, 3, 1, 2).split([3, 1, 3, 1], 1)
    visible = (details["radii"] > 0).all(-1)
    return SplatOutput(rgb, opacity.permute(0, 3, 1, 2), depth, normal, details["means2d"], visible)


def load_rasterization() -> Callable[..., Any]:
    """Import gsplat's `rasterization`; the first call compiles its kernels.

    Raises:
        ValueError: gsplat is not installed (the message has the command that installs it), it has no CUDA kernels, or
            their compilation failed (the message has the reason).
    """
    try:
        rasterization = importlib.import_module("gsplat").rasterization
        kernels = importlib.import_module("gsplat.cuda._backend")._C
    except Exception as error:  # a failed compilation may raise any type
        if isinstance(error, ModuleNotFoundError) and error.name == "gsplat":
            raise ValueError(f"the gsplat backend needs the gsplat package: {INSTALL}") from error
        raise ValueError(
            f"gsplat is installed, but its CUDA kernels could not be compiled or loaded ({_reason(error)}); "
            "fix this, or use backend 'torch'"
        ) from error
    if kernels is None:
        raise ValueError(
            "gsplat has no CUDA kernels: it found no CUDA toolkit (nvcc) to compile them with; "
            "install one, or use backend 'torch'"
        )
    return rasterization


def _reason(error: Exception) -> str:
    """Summarize an exception in one line: the first line of its message, and the first that contains "error:"."""
    first, *lines = str(error).strip().splitlines() or [""]
    relevant = [first, *[line for line in lines if "error:" in line.lower()][:1]]
    return f"{type(error).__name__}: {' '.join(' '.join(relevant).split())[:400]}"
