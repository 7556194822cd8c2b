"""Gaussian splatting by gsplat's CUDA kernels [Ye et al. 2025]; an optional package, imported only when used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras import Cameras
from .geometry import facing_normals, rotation_matrices, to_camera
from .semantics import BLUR, NEAR, SplatOutput

INSTALL = "pip install 'gsplat>=1.5.3' ninja"


def splat_gsplat(
    means: Float[Tensor, "n 3"],
    quaternions: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colours: Float[Tensor, "n 3"],
    cameras: Cameras,
) -> SplatOutput:
    """See `splat`. Raises ValueError without gsplat or its kernels, or for tensors that are not on a CUDA device."""
    if not means.is_cuda:
        raise ValueError(f"the gsplat backend needs tensors on a CUDA device, got {means.device}; use backend 'auto'")
    return splat_with(load_rasterization(), means, quaternions, scales, opacities, colours, cameras)


def splat_with(
    rasterization: Callable[..., Any],
    means: Float[Tensor, "n 3"],
    quaternions: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colours: Float[Tensor, "n 3"],
    cameras: Cameras,
) -> SplatOutput:
    """`splat` by gsplat's `rasterization`, or by something with its signature; in float32."""
    # Its kernels know no other type.
    inputs = (means, quaternions, scales, opacities, colours)
    means, quaternions, scales, opacities, colours = (tensor.float() for tensor in inputs)
    world_to_camera = cameras.world_to_camera
    local = to_camera(means, world_to_camera)
    normals = facing_normals(rotation_matrices(quaternions), scales, local, world_to_camera)
    # Depth and normal are drawn as further colours: one pass, pre-multiplied like the rest. Kernels are compiled for
    # some numbers of channels only: 8 is one of them in every version, 7 is not.
    depth_normal_nothing = [local[..., 2:], normals, torch.zeros_like(local[..., 2:])]
    features = torch.cat([colours.expand(len(cameras), -1, -1), *depth_normal_nothing], 2)
    picture, opacity, details = rasterization(
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
    rgb, depth, normal, _ = picture.permute(0, 3, 1, 2).split([3, 1, 3, 1], 1)
    visible = (details["radii"] > 0).all(-1)
    return SplatOutput(rgb, opacity.permute(0, 3, 1, 2), depth, normal, details["means2d"], visible)


def load_rasterization() -> Callable[..., Any]:
    """gsplat's `rasterization`; compiles its kernels at the first call.

    Raises ValueError without gsplat, naming the command that installs it, and with one that has no kernels or whose
    compilation failed, naming the reason.
    """
    try:
        rasterization = importlib.import_module("gsplat").rasterization
        kernels = importlib.import_module("gsplat.cuda._backend")._C
    except Exception as error:  # a compilation ends in whatever it stumbles over
        if isinstance(error, ModuleNotFoundError) and error.name == "gsplat":
            raise ValueError(f"the gsplat backend needs the gsplat package: {INSTALL}") from error
        raise ValueError(
            f"gsplat is installed, but its CUDA kernels could not be compiled or loaded ({_reason(error)}); "
            "mend that, or use backend 'torch'"
        ) from error
    if kernels is None:
        raise ValueError(
            "gsplat has no CUDA kernels: it found no CUDA toolkit (nvcc) to compile them with; "
            "install one, or use backend 'torch'"
        )
    return rasterization


def _reason(error: Exception) -> str:
    """In a line: of a compiler's pages the first line and the first that names an error."""
    first, *lines = str(error).strip().splitlines() or [""]
    said = [first, *[line for line in lines if "error:" in line.lower()][:1]]
    return f"{type(error).__name__}: {' '.join(' '.join(said).split())[:400]}"
