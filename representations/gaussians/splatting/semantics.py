"""Definition of the model that all splatting backends compute, with its constants.

A Gaussian is projected by the local affine (EWA) approximation of the pinhole camera [Zwicker et al. 2001], widened by
`BLUR` square pixels, and composited front to back by z-depth:

    alpha_i = min(opacity_i exp(-d^T Sigma_i^-1 d / 2), MAX_ALPHA), dropped below MIN_ALPHA
    T_i     = prod_{j<i} (1 - alpha_j)
    image = sum_i T_i alpha_i feature_i,      opacity = 1 - prod_i (1 - alpha_i)

These are the constants of gsplat 1.5; gsplat 1.6 has 0.99 for `MAX_ALPHA`. The backends differ in the early stop at
opaque pixels, which saves time. gsplat ends a pixel before the first Gaussian that would reduce the transmittance to
`GSPLAT_STOP` or less: that Gaussian and all behind it are dropped. Their total weight is at most
GSPLAT_STOP / (1 - max alpha): 0.1 in gsplat 1.5, 0.01 in gsplat 1.6, and 0.005 in both if no opacity exceeds 0.98.
`torch` drops nothing. `cpu` drops Gaussians once the transmittance is below 1e-5 in every pixel of a tile.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

BLUR = 0.3
"""Variance added to the projected Gaussian, in square pixels, so that it is not thinner than a pixel."""
MIN_ALPHA = 1.0 / 255.0
"""Contributions with a smaller alpha are dropped."""
MAX_ALPHA = 0.999
"""Upper bound on alpha."""
GSPLAT_STOP = 1e-4
"""Lower bound on the transmittance in gsplat (see above); a constant in its kernels."""
NEAR = 0.01
"""Near plane in meters; Gaussians whose center is nearer are culled."""
JACOBIAN_MARGIN = 0.15
"""The affine approximation is evaluated at most this fraction of the image beyond its border."""


@dataclass(frozen=True)
class SplatOutput:
    """Images pre-multiplied by opacity, that is, composited over black."""

    rgb: Float[Tensor, "b 3 h w"]
    """Color, composited over black."""
    opacity: Float[Tensor, "b 1 h w"]
    """Opacity in [0, 1]."""
    depth: Float[Tensor, "b 1 h w"]
    """Depth along z in meters, times opacity."""
    normal: Float[Tensor, "b 3 h w"]
    """World-space normal facing the camera, times opacity."""
    screen_means: Float[Tensor, "b n 2"]
    """Projected centers in pixels; densification uses their gradient. Undefined where not `visible`."""
    visible: Bool[Tensor, "b n"]
    """Whether a Gaussian is in front of the camera, not transparent, and overlaps the image."""
