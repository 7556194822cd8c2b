"""Gaussian splatting in readable torch: every Gaussian against every pixel.

The oracle of the fast backends (any dtype, any device), and the CUDA path when gsplat is missing. Memory is bounded by
working on `PAIRS` (pixel, Gaussian) pairs at a time and recomputing them in the backward pass.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..cameras import Cameras
from .geometry import facing_normals, rotation_matrices, to_camera
from .semantics import BLUR, JACOBIAN_MARGIN, MAX_ALPHA, MIN_ALPHA, NEAR, SplatOutput

PAIRS = 2**24


def splat_torch(
    means: Float[Tensor, "n 3"],
    quaternions: Float[Tensor, "n 4"],
    scales: Float[Tensor, "n 3"],
    opacities: Float[Tensor, " n"],
    colours: Float[Tensor, "n 3"],
    cameras: Cameras,
) -> SplatOutput:
    """See `splat`."""
    world_to_camera = cameras.world_to_camera.to(means)
    rotations = rotation_matrices(quaternions)
    local = to_camera(means, world_to_camera)
    normals = facing_normals(rotations, scales, local, world_to_camera)

    in_front = (local[..., 2] >= NEAR) & (opacities >= MIN_ALPHA)
    # Whatever is dropped gets harmless coordinates, so that no infinity reaches the gradient.
    local = torch.where(in_front[..., None], local, local.new_tensor([0.0, 0.0, 1.0]))
    screen_means, covariances = _project(local, rotations * scales[:, None], world_to_camera, cameras)
    reach = (2 * (opacities / MIN_ALPHA).clamp_min(1).log())[:, None] * covariances.diagonal(dim1=2, dim2=3)
    reach = reach.detach().sqrt()
    size = screen_means.new_tensor([cameras.width, cameras.height])
    inside = ((screen_means + reach > 0) & (screen_means - reach < size)).all(-1)
    visible = in_front & inside

    pictures = [
        _composite(
            screen_means[camera],
            torch.linalg.inv(covariances[camera]),
            torch.where(visible[camera], opacities, torch.zeros_like(opacities)),
            torch.cat([colours, local[camera, :, 2:], normals[camera]], 1),
            (cameras.height, cameras.width),
        )
        for camera in range(len(cameras))
    ]
    rgb, depth, normal, opacity = torch.stack(pictures).split([3, 1, 3, 1], 1)
    return SplatOutput(rgb, opacity, depth, normal, screen_means, visible)


def _project(
    local: Float[Tensor, "b n 3"],
    axes: Float[Tensor, "n 3 3"],
    world_to_camera: Float[Tensor, "b 4 4"],
    cameras: Cameras,
) -> tuple[Float[Tensor, "b n 2"], Float[Tensor, "b n 2 2"]]:
    """Pixel centres and covariances; `axes` holds a Gaussian's scaled principal axes as columns."""
    intrinsics = cameras.intrinsics.to(local)[:, None]
    focal, centre = intrinsics[..., (0, 1), (0, 1)], intrinsics[..., :2, 2]
    slope = local[..., :2] / local[..., 2:]
    size = local.new_tensor([cameras.width, cameras.height])
    margin = JACOBIAN_MARGIN * size / focal
    near_slope = torch.minimum(torch.maximum(slope, -centre / focal - margin), (size - centre) / focal + margin)
    # d(pixel)/d(local) = focal / z * [I | -slope]
    jacobian = torch.cat([torch.eye(2).to(local).expand(*slope.shape, 2), -near_slope[..., None]], -1)
    jacobian = (focal / local[..., 2:])[..., None] * jacobian
    footprint = jacobian @ (world_to_camera[:, None, :3, :3] @ axes)
    covariances = footprint @ footprint.transpose(2, 3) + BLUR * torch.eye(2).to(local)
    return slope * focal + centre, covariances


def _composite(
    screen_means: Float[Tensor, "n 2"],
    inverse_covariances: Float[Tensor, "n 2 2"],
    opacities: Float[Tensor, " n"],
    features: Float[Tensor, "n f"],
    size: tuple[int, int],
) -> Float[Tensor, "f+1 h w"]:
    """Front to back; the fourth feature is the depth; the last picture is the opacity."""
    height, width = size
    order = torch.argsort(features[:, 3].detach(), stable=True)
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = (torch.stack([x, y], -1).reshape(-1, 2) + 0.5).to(screen_means)
    inputs = (screen_means[order], inverse_covariances[order], opacities[order], features[order])
    chunks = pixels.split(max(1, PAIRS // max(1, len(opacities))))
    if len(chunks) == 1:
        rows = _composite_pixels(pixels, *inputs)
    else:
        rows = torch.cat([checkpoint(_composite_pixels, chunk, *inputs, use_reentrant=False) for chunk in chunks])
    return rows.T.reshape(-1, height, width)


def _composite_pixels(
    pixels: Float[Tensor, "p 2"],
    screen_means: Float[Tensor, "n 2"],
    inverse_covariances: Float[Tensor, "n 2 2"],
    opacities: Float[Tensor, " n"],
    features: Float[Tensor, "n f"],
) -> Float[Tensor, "p f+1"]:
    x, y = (pixels[:, None] - screen_means).unbind(-1)
    (a, b), (_, c) = inverse_covariances.permute(1, 2, 0)
    distance = a * x * x + 2 * b * x * y + c * y * y
    alpha = (opacities * torch.exp(-0.5 * distance)).clamp_max(MAX_ALPHA)
    alpha = torch.where(alpha >= MIN_ALPHA, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, 1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], 1)
    return torch.cat([(before * alpha) @ features, 1 - after[:, -1:]], 1)
