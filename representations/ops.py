"""Small functions of tensors and numbers that several representations share."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from .cameras import Cameras


def logit(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The inverse of the sigmoid for values in [0, 1], whose ends are moved in by a tenth of an 8-bit step."""
    margin = 0.1 / 255
    return values.clamp(margin, 1 - margin).logit()


def exponential_decay(start: float, end: float, progress: float) -> float:
    """A learning rate that goes from `start` to `end` by equal factors; `progress` in [0, 1]."""
    return start ** (1 - progress) * end**progress


def normals_from_depth(depth: Float[Tensor, "b 1 h w"], cameras: Cameras) -> Float[Tensor, "b 3 h2 w2"]:
    """World-space unit normals of a z-depth by central differences, toward the camera; two pixels smaller than it."""
    points = cameras.unproject(depth)
    across = points[..., 1:-1, 2:] - points[..., 1:-1, :-2]
    down = points[..., 2:, 1:-1] - points[..., :-2, 1:-1]
    # x right, y down: y cross x points back to the camera.
    return F.normalize(torch.linalg.cross(down, across, dim=1), dim=1, eps=1e-12)


def surface_normals(
    depth: Float[Tensor, "b 1 h w"], opacity: Float[Tensor, "b 1 h w"], cameras: Cameras
) -> Float[Tensor, "b 3 h w"]:
    """World-space unit normals of a rendered z-depth at all its pixels, toward the camera; 0 where it is empty.

    They are the cross product of finite differences of the surface points, as in 2D Gaussian Splatting [Huang et al.
    2024, eq. 15]. The differences to both neighbors are averaged with their opacities as weights, so that they are
    central inside and one-sided at outlines, and the background has no influence. Differentiable in depth and opacity.

    Args:
        depth: z-depth in meters, not multiplied by the opacity.
        opacity: opacity in [0, 1]; pixels of opacity 0 are empty.
    """
    cameras = cameras.to(depth.device)
    # Relative to the camera, for precision.
    points, axes = cameras.rays() * depth, cameras.camera_to_world[:, :3, :2, None, None]
    across = _slope(points, depth, opacity, axes[:, :, 0], cameras.intrinsics[:, 0, 0])
    down = _slope(points.mT, depth.mT, opacity.mT, axes[:, :, 1], cameras.intrinsics[:, 1, 1]).mT
    # x right, y down: y cross x points back to the camera.
    normal = unit_or_zero(torch.linalg.cross(down, across, dim=1))
    return torch.where(opacity > 0, normal, 0.0)


def _slope(
    points: Float[Tensor, "b 3 h w"],
    depth: Float[Tensor, "b 1 h w"],
    opacity: Float[Tensor, "b 1 h w"],
    axis: Float[Tensor, "b 3 1 1"],
    focal: Float[Tensor, " b"],
) -> Float[Tensor, "b 3 h w"]:
    """Change of the points from pixel to pixel along the last axis, in units of a pixel's size on the surface.

    Pixels without neighbors get `axis`, the change at constant depth.
    """
    weight = opacity[..., 1:] * opacity[..., :-1]
    covered = weight > 0
    # Empty pixels get no gradient.
    weight = torch.where(covered, weight, 0.0)
    size = (depth[..., 1:] + depth[..., :-1]) / (2 * focal[:, None, None, None])
    step = (points[..., 1:] - points[..., :-1]) / torch.where(covered, size, 1.0)
    # Each pixel lies between two steps.
    weight, step = F.pad(weight, (1, 1)), F.pad(weight * step, (1, 1))
    total = weight[..., 1:] + weight[..., :-1]
    return torch.where(total > 0, (step[..., 1:] + step[..., :-1]) / torch.where(total > 0, total, 1.0), axis)


def unit_or_zero(vectors: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Normalized vectors; 0, with zero gradient, where the length is 0."""
    squared = vectors.square().sum(1, keepdim=True)
    known = squared > 1e-10
    return torch.where(known, vectors, 0.0) / torch.where(known, squared, 1.0).sqrt()
