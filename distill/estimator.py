"""The contract of a monocular geometry estimator: what the depth and normal baselines ask about a noisy picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class GeometryEstimate:
    """What a picture looks like it shows."""

    disparity: Float[Tensor, "b 1 h w"]
    """Larger is nearer; any scale and shift."""
    normal: Float[Tensor, "b 3 h w"]
    """Unit vectors in camera space, OpenCV axes (x right, y down, z forward), facing the camera: z < 0."""


@runtime_checkable
class GeometryEstimator(Protocol):
    """Estimates geometry from a picture that may be noisy. Differentiable with respect to `image`.

    Each picture of the batch must be treated on its own, and deterministically: Stein's identity needs both.
    """

    def __call__(self, image: Float[Tensor, "b 3 h w"], noise_level: Float[Tensor, " b"]) -> GeometryEstimate:
        """`image` is the prior's noisy input on the sRGB scale, `decode(alpha * encode(clean) + sigma * noise)`.

        In pixel space: 0.5 + 0.5 * (alpha * (2 * clean - 1) + sigma * noise); it leaves [0, 1]. `noise_level` is sigma.
        """
        ...
