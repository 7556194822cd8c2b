"""`splat`: rasterization of Gaussians with a choice of backends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ...backends import check_known, chosen
from ...cameras import Cameras
from .cpu import splat_cpu
from .gsplat import splat_gsplat
from .reference import splat_torch
from .semantics import SplatOutput

Backend = Literal["auto", "cpu", "torch", "gsplat"]
"""See `splat`."""

BACKENDS: dict[str, Callable[..., SplatOutput]] = {"cpu": splat_cpu, "torch": splat_torch, "gsplat": splat_gsplat}


def splat(
    means: Float[Tensor, "n 3"],
    quaternions: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colors: Float[Tensor, "n 3"],
    cameras: Cameras,
    *,
    backend: str = "auto",
) -> SplatOutput:
    """Rasterize Gaussians for every camera; differentiable in all five tensors, not in the cameras.

    All backends compute the model defined in `semantics`.

    Args:
        means: Centers in meters.
        quaternions: Rotations w, x, y, z of any length.
        scales: Standard deviations along the principal axes, meters.
        opacities: Opacities in [0, 1].
        colors: Colors in [0, 1].
        cameras: The cameras, on any device.
        backend: `cpu` (compiled, CPU tensors), `torch` (slower, any device), `gsplat` (CUDA tensors, optional package),
            or `auto`: `cpu` for CPU tensors; on CUDA `gsplat` if it is installed, else `torch`.

    Raises:
        ValueError: The backend is unknown, not installed, or does not support the device of the tensors.

    Example:
        >>> output = splat(means, quaternions, scales, opacities, colors, Cameras.orbit([0.0], [15.0]))
        >>> rgb_over_white = output.rgb + (1 - output.opacity)
    """
    check_backend(backend)
    cameras = cameras.to(means.device)
    if len(means) == 0:
        return _nothing(means, cameras)
    name = chosen(backend, means, "gsplat")
    return BACKENDS[name](means, quaternions, scales, opacities, colors, cameras)


def check_backend(backend: str) -> None:
    """Check the name of a backend. Raises ValueError if it is neither `auto` nor a key of `BACKENDS`."""
    check_known("splatting", backend, BACKENDS)


def _nothing(means: Float[Tensor, "0 3"], cameras: Cameras) -> SplatOutput:
    b, h, w = len(cameras), cameras.height, cameras.width
    # The empty sum connects the images to the autograd graph.
    rgb, opacity, depth, normal = (means.new_zeros(b, c, h, w) + means.sum() for c in (3, 1, 1, 3))
    screen_means = means.new_zeros(b, 0, 2)
    return SplatOutput(
        rgb, opacity, depth, normal, screen_means, torch.zeros_like(screen_means[..., 0], dtype=torch.bool)
    )
