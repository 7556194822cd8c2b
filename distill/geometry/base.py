"""The protocol of a monocular geometry estimator, which the depth and normal baselines apply to a noisy image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class GeometryEstimate:
    """Disparity and normals estimated from an image."""

    disparity: Float[Tensor, "b 1 h w"]
    """Disparity; larger is nearer, scale and shift are arbitrary."""
    normal: Float[Tensor, "b 3 h w"]
    """Unit normals in camera space, OpenCV axes (x right, y down, z forward), facing the camera: z < 0."""


@runtime_checkable
class GeometryEstimator(Protocol):
    """An estimator of geometry from an image that may be noisy, differentiable with respect to `image`.

    Stein's identity requires that each image of the batch is processed separately and deterministically.
    """

    def __call__(self, image: Float[Tensor, "b 3 h w"], noise_level: Float[Tensor, " b"]) -> GeometryEstimate:
        """Estimate disparity and normals.

        Args:
            image: the prior's noisy input on the sRGB scale, `decode(alpha * encode(clean) + sigma * noise)`. In pixel
                space this is 0.5 + 0.5 * (alpha * (2 * clean - 1) + sigma * noise), which exceeds [0, 1].
            noise_level: sigma of each image.
        """
        ...
