"""The place of a finished asset in its file: scale, pivot and the axes of the engine."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from steindreamer.representations import Placement, TriangleMesh

from .config import FinishConfig


@dataclass(frozen=True)
class Frame:
    """Scale and offset from the unit ball to the file, in meters, +Y up and front +Z."""

    scale: float
    offset: tuple[float, float, float]

    def points(self, vertices: Float[Tensor, "v 3"]) -> Float[np.ndarray, "v 3"]:
        """Positions in the file."""
        return (vertices.double().numpy() * self.scale + np.array(self.offset)).astype(np.float32)

    def size(self, mesh: TriangleMesh) -> tuple[float, ...]:
        """Width, height and depth of a mesh in meters."""
        return tuple(float(f"{extent:.4g}") for extent in np.ptp(mesh.vertices.double().numpy(), axis=0) * self.scale)


def frame_of(mesh: TriangleMesh, placement: Placement, config: FinishConfig) -> Frame:
    """The frame of the finished mesh, see `FinishConfig.height_meters` and `pivot`.

    Args:
        mesh: level 0 in the unit ball.
        placement: transform from the source to the ball.
        config: the settings.
    """
    low, high = mesh.vertices.double().numpy().min(0), mesh.vertices.double().numpy().max(0)
    scale = placement.scale
    if config.height_meters is not None:
        scale = config.height_meters / max(float(high[1] - low[1]), 1e-9)
    center = (low + high) / 2
    if config.pivot == "keep":
        yaw = np.radians(placement.yaw)
        x, y, z = np.array(placement.center) * (scale / placement.scale)
        # The rotation of the placement stays.
        offset = np.array([np.cos(yaw) * x + np.sin(yaw) * z, y, np.cos(yaw) * z - np.sin(yaw) * x])
    else:
        offset = -scale * np.array([center[0], low[1] if config.pivot == "bottom" else center[1], center[2]])
    x, y, z = offset.tolist()
    return Frame(scale, (x, y, z))
