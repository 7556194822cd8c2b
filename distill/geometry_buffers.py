"""Geometry buffers that the renderer provides to the baseline functions."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class GeometryBuffers:
    """The renderer's detached geometry buffers and cameras, with which baseline functions compare their estimates."""

    opacity: Float[Tensor, "b 1 h w"]
    """Rendered opacity in [0, 1]."""
    depth: Float[Tensor, "b 1 h w"]
    """Depth along the camera's z axis in meters, 0 where empty."""
    normal: Float[Tensor, "b 3 h w"]
    """World-space unit normals, 0 where empty."""
    camera_to_world: Float[Tensor, "b 4 4"]
    """Camera-to-world matrices with OpenCV axes; they rotate estimated (camera-space) normals."""
    intrinsics: Float[Tensor, "b 3 3"] | None = None
    """Camera intrinsics in pixels of these buffers, for noise that is fixed to the surface; None: unknown."""
