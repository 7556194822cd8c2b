"""What every splatting backend computes, and the constants they share.

A Gaussian is projected by the local affine (EWA) approximation of the pinhole camera [Zwicker et al. 2001], widened by
`BLUR` square pixels, and composited front to back by z-depth:

    alpha_i = min(opacity_i exp(-d^T Sigma_i^-1 d / 2), MAX_ALPHA), dropped below MIN_ALPHA
    T_i     = prod_{j<i} (1 - alpha_j)
    picture = sum_i T_i alpha_i feature_i,      opacity = 1 - prod_i (1 - alpha_i)

These are the constants of gsplat 1.5; gsplat 1.6 has 0.99 for `MAX_ALPHA`. The backends differ in what they leave out
behind what hides it, to save time. gsplat ends a pixel before the first Gaussian that would leave it `GSPLAT_STOP` of
the light or less: that one and all behind it are dropped. What is dropped so had at most GSPLAT_STOP / (1 - max alpha)
of the light: 0.1 in gsplat 1.5, 0.01 in gsplat 1.6, and in both 0.005 where no opacity exceeds 0.98. `torch` drops
nothing. `cpu` drops what is behind less than 1e-5 of the light in every pixel of a tile.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

BLUR = 0.3
"""Variance added to the projected Gaussian, in square pixels: nothing gets thinner than a pixel."""
MIN_ALPHA = 1.0 / 255.0
MAX_ALPHA = 0.999
GSPLAT_STOP = 1e-4
"""What gsplat always leaves of the light (see above); its kernels' own constant."""
NEAR = 0.01
"""Metres; Gaussians whose centre is nearer are not drawn."""
JACOBIAN_MARGIN = 0.15
"""The affine approximation is evaluated at most this fraction of the picture beyond its border."""


@dataclass(frozen=True)
class SplatOutput:
    """Pictures pre-multiplied by opacity, as they come out of compositing over black."""

    rgb: Float[Tensor, "b 3 h w"]
    opacity: Float[Tensor, "b 1 h w"]
    depth: Float[Tensor, "b 1 h w"]
    """z-depth in metres, times opacity."""
    normal: Float[Tensor, "b 3 h w"]
    """World space, facing the camera, times opacity."""
    screen_means: Float[Tensor, "b n 2"]
    """Projected centres in pixels; its gradient is what densification looks at. Arbitrary where not `visible`."""
    visible: Bool[Tensor, "b n"]
    """In front of the camera, not transparent, and overlapping the picture."""
