"""`splat`, and the choice of its backend."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from jaxtyping import Float
from torch import Tensor

from ..cameras import Cameras
from .cpu import splat_cpu
from .gsplat import splat_gsplat
from .semantics import SplatOutput
from .twin import splat_torch

BACKENDS: dict[str, Callable[..., SplatOutput]] = {"cpu": splat_cpu, "torch": splat_torch, "gsplat": splat_gsplat}


def splat(
    means: Float[Tensor, "n 3"],
    quaternions: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colours: Float[Tensor, "n 3"],
    cameras: Cameras,
    *,
    backend: str = "auto",
) -> SplatOutput:
    """Draw Gaussians with every camera; differentiable in all five tensors, not in the cameras.

    Quaternions are w, x, y, z and need not be unit; scales are standard deviations in metres, opacities and colours in
    [0, 1]. The semantics, shared by all backends, are those of `semantics`.

    backend: `cpu` (compiled, CPU tensors), `torch` (slower, any device), `gsplat` (CUDA tensors, optional
    package), or `auto`: `cpu` for CPU tensors; on CUDA `gsplat` if it is installed, else `torch`.

    Raises ValueError for an unknown backend, or one that the tensors' device or the installation does not allow.
    """
    check_backend(backend)
    cameras = cameras.to(means.device)
    if len(means) == 0:
        return _nothing(means, cameras)
    name = _automatic(means) if backend == "auto" else backend
    return BACKENDS[name](means, quaternions, scales, opacities, colours, cameras)


def check_backend(backend: str) -> None:
    """Raises ValueError for a name that is neither `auto` nor a key of `BACKENDS`."""
    if backend != "auto" and backend not in BACKENDS:
        raise ValueError(f"unknown splatting backend {backend!r}; choose one of {['auto', *BACKENDS]}")


def _automatic(tensor: Tensor) -> str:
    # gsplat can be installed, and imports, without a CUDA device: the tensors decide first.
    if not tensor.is_cuda:
        return "cpu"
    return "gsplat" if find_spec("gsplat") else "torch"


def _nothing(means: Float[Tensor, "0 3"], cameras: Cameras) -> SplatOutput:
    b, h, w = len(cameras), cameras.height, cameras.width
    # The (empty) sum keeps the pictures part of the graph.
    rgb, opacity, depth, normal = (means.new_zeros(b, c, h, w) + means.sum() for c in (3, 1, 1, 3))
    screen_means = means.new_zeros(b, 0, 2)
    return SplatOutput(
        rgb, opacity, depth, normal, screen_means, torch.zeros_like(screen_means[..., 0], dtype=torch.bool)
    )
