"""Normals from a monocular disparity of unknown scale and shift.

For a pinhole camera, the inverse depth D of a plane is affine in the image coordinates x = X / Z, y = Y / Z, and the
plane's normal is (D_x, D_y, D - x D_x - y D_y) up to length and sign; neither a division nor the depth is needed.
Relative estimators predict s D + t with unknown s and t. The disparity is therefore standardized per image and given a
nominal relief. The normals do not depend on s > 0 and t, and planes stay planes; their steepness is a convention.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

RELIEF = 0.3
"""Nominal standard deviation over mean of an image's inverse depth, typical of an object of about the unit ball's size
in front of a background, seen from three to four radii away."""
NEAREST_TO_ZERO = 0.05
"""Lower bound of the inverse depth, relative to its mean, and of the normal's component toward the camera."""


def normals_from_disparity(
    disparity: Float[Tensor, "b 1 h w"], field_of_view: float = 40.0, relief: float = RELIEF
) -> Float[Tensor, "b 3 h w"]:
    """Unit normals in camera space, OpenCV axes, z < 0, from a disparity known up to scale (positive) and shift.

    The result is differentiable. Images must be at least two pixels wide and high.

    Args:
        field_of_view: vertical angle in degrees.
    """
    centered = disparity - disparity.mean((1, 2, 3), keepdim=True)
    variance = centered.square().mean((1, 2, 3), keepdim=True)
    # Larger than the rounding error of a constant image; keeps the square root's gradient finite for one.
    floor = 1e-10 * disparity.square().mean((1, 2, 3), keepdim=True) + 1e-20
    inverse_depth = 1 + relief * centered * torch.rsqrt(variance + floor)
    return normals_from_inverse_depth(inverse_depth.clamp(min=NEAREST_TO_ZERO), field_of_view)


def normals_from_inverse_depth(
    inverse_depth: Float[Tensor, "b 1 h w"], field_of_view: float
) -> Float[Tensor, "b 3 h w"]:
    """Unit normals in camera space, OpenCV axes, z < 0, from 1 / z in any unit.

    They are exact for planes. Derivatives are central differences, one-sided at the border.
    """
    height, width = inverse_depth.shape[-2:]
    focal = height / (2 * math.tan(math.radians(field_of_view) / 2))
    rows, columns = (
        (torch.arange(size, device=inverse_depth.device, dtype=inverse_depth.dtype) + 0.5 - size / 2) / focal
        for size in (height, width)
    )
    down, right = (focal * slope for slope in torch.gradient(inverse_depth, dim=(2, 3)))
    forward = inverse_depth - columns * right - rows[:, None] * down
    return F.normalize(-torch.cat([right, down, forward.clamp(min=NEAREST_TO_ZERO)], 1), dim=1)
