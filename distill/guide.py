"""What the renderer tells the baseline functions."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Guide:
    """What the renderer knows about the picture, detached; baseline functions compare their estimates with it."""

    opacity: Float[Tensor, "b 1 h w"]
    depth: Float[Tensor, "b 1 h w"]
    """z-depth in metres, 0 where empty."""
    normal: Float[Tensor, "b 3 h w"]
    """World-space unit vectors, 0 where empty."""
    camera_to_world: Float[Tensor, "b 4 4"]
    """OpenCV axes: rotates estimated (camera-space) normals."""
