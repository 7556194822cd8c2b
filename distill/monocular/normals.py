"""Normals from a monocular disparity whose scale and shift nobody knows.

Seen by a pinhole camera, the inverse depth D of a plane is affine in the picture's coordinates x = X / Z, y = Y / Z,
and the plane's normal is (D_x, D_y, D - x D_x - y D_y) up to length and sign: no division, no depth. Relative
estimators answer with s D + t, s and t unknown; so the disparity is standardised per picture and given a nominal
relief. Every s > 0 and every t lead to the same normals, and planes stay planes; how steep they are is a convention.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

RELIEF = 0.3
"""Standard deviation over mean of the inverse depth of a picture: what objects of about the unit ball's size have that
stand before something, seen from three to four radii away."""
NEAREST_TO_ZERO = 0.05
"""Least inverse depth, in means, and least share of the normal that points at the camera."""


def normals_from_disparity(
    disparity: Float[Tensor, "b 1 h w"], field_of_view: float = 40.0, relief: float = RELIEF
) -> Float[Tensor, "b 3 h w"]:
    """Unit normals in camera space, OpenCV axes, z < 0, of a disparity known up to scale (positive) and shift.

    Differentiable. `field_of_view` is the vertical angle in degrees. Pictures are at least two pixels wide and high.
    """
    centred = disparity - disparity.mean((1, 2, 3), keepdim=True)
    variance = centred.square().mean((1, 2, 3), keepdim=True)
    # Above the rounding of a constant, and so that the square root's gradient stays finite at one.
    floor = 1e-10 * disparity.square().mean((1, 2, 3), keepdim=True) + 1e-20
    inverse_depth = 1 + relief * centred * torch.rsqrt(variance + floor)
    return normals_from_inverse_depth(inverse_depth.clamp(min=NEAREST_TO_ZERO), field_of_view)


def normals_from_inverse_depth(
    inverse_depth: Float[Tensor, "b 1 h w"], field_of_view: float
) -> Float[Tensor, "b 3 h w"]:
    """The same of 1 / z, in any unit: exact for planes, by central differences (one-sided at the border)."""
    height, width = inverse_depth.shape[-2:]
    focal = height / (2 * math.tan(math.radians(field_of_view) / 2))
    rows, columns = (
        (torch.arange(size, device=inverse_depth.device, dtype=inverse_depth.dtype) + 0.5 - size / 2) / focal
        for size in (height, width)
    )
    down, right = (focal * slope for slope in torch.gradient(inverse_depth, dim=(2, 3)))
    forward = inverse_depth - columns * right - rows[:, None] * down
    return F.normalize(-torch.cat([right, down, forward.clamp(min=NEAREST_TO_ZERO)], 1), dim=1)
