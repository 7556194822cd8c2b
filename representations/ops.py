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
