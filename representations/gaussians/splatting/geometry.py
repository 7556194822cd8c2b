"""Quaternions, camera-space positions and normals in torch, for the backends without their own kernels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def rotation_matrices(quaternions: Float[Tensor, "n 4"]) -> Float[Tensor, "n 3 3"]:
    """Rotation matrices of quaternions w, x, y, z of any length."""
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    ]
    return torch.stack(rows, -1).reshape(-1, 3, 3)


def to_camera(means: Float[Tensor, "n 3"], world_to_camera: Float[Tensor, "b 4 4"]) -> Float[Tensor, "b n 3"]:
    """Positions in camera coordinates (x right, y down, z forward)."""
    return means @ world_to_camera[:, :3, :3].transpose(1, 2) + world_to_camera[:, None, :3, 3]


def facing_normals(
    rotations: Float[Tensor, "n 3 3"],
    scales: Float[Tensor, "n 3"],
    local: Float[Tensor, "b n 3"],
    world_to_camera: Float[Tensor, "b 4 4"],
) -> Float[Tensor, "b n 3"]:
    """World-space normals: the shortest axis of each Gaussian, flipped toward the camera."""
    shortest = scales.argmin(-1)[:, None, None].expand(-1, 3, 1)
    axis = rotations.gather(2, shortest)[..., 0]
    along = (axis @ world_to_camera[:, :3, :3].transpose(1, 2) * local).sum(-1, keepdim=True)
    return torch.where(along > 0, -axis, axis)
