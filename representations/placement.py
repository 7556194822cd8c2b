"""The similarity transform between a file's coordinates and the unit ball, in which scenes are trained.

A representation that is initialized from a file keeps the transform as `Representation.placement`: a buffer, so that
checkpoints contain it. A conversion to another representation copies it, and the export applies its inverse. It is None
for a scene that was not initialized from a file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

RADIUS = 0.9
"""Distance in meters from the center to the farthest point of a shape that is fitted into the unit ball."""


@dataclass(frozen=True)
class Placement:
    """A similarity transform: the point `p` of the file is at turn(p - center) / scale in the unit ball.

    Both spaces are right-handed with +Y up. Points and directions keep their type and device.

    Example:
        >>> points = torch.tensor([[0.0, 0.0, 0.0], [100.0, 200.0, 100.0]])
        >>> placement = Placement.fit(points, yaw=90.0)
        >>> fitted = placement.apply(points)
    """

    scale: float
    """Units of the file per meter in the ball, above 0."""
    center: tuple[float, float, float]
    """The point of the file that maps to the center of the ball."""
    yaw: float = 0.0
    """Rotation in degrees about +Y from the file to the ball, from +Z toward +X: after 90, the front of a model that
    faces -X faces +Z."""

    def __post_init__(self) -> None:
        """Check the values. Raises ValueError unless all are finite and `scale` is above 0."""
        if not all(map(math.isfinite, (self.scale, *self.center, self.yaw))) or self.scale <= 0:
            raise ValueError(f"a placement needs finite values and scale > 0; got {self}")

    @classmethod
    def fit(cls, points: Float[Tensor, "n 3"], *, yaw: float = 0.0, radius: float = RADIUS) -> Placement:
        """The transform that fits points into the unit ball.

        The center of their bounding box maps to the origin, and the farthest point to `radius` meters from it.

        Args:
            points: Points of the file.
            yaw: Rotation in degrees about +Y, see `yaw`.
            radius: Distance in meters of the farthest point from the origin.

        Raises:
            ValueError: A point is not finite, all points coincide, or `yaw` or `radius` is out of range.
        """
        if not math.isfinite(yaw) or not 0 < radius < math.inf:
            raise ValueError(f"need a finite yaw and a radius above 0, got {yaw} and {radius}")
        points = points.detach().double()
        if not bool(points.isfinite().all()):
            raise ValueError("it has points that are not finite")
        if len(points) == 0:
            raise ValueError("it has no points")
        low, high = points.amin(0), points.amax(0)
        center = low + (high - low) / 2
        reach = float((points - center).norm(dim=1).max())
        if not 0 < reach / radius < math.inf:
            raise ValueError("all its points coincide" if reach == 0 else "its size overflows")
        x, y, z = center.tolist()
        return cls(reach / radius, (x, y, z), yaw)

    def apply(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Transform points from the file into the ball."""
        moved = (points.double() - self._center(points)) / self.scale
        return (moved @ self._rotation(points).T).to(points)

    def undo(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Transform points from the ball into the file."""
        turned = points.double() @ self._rotation(points)
        return (turned * self.scale + self._center(points)).to(points)

    def turn(self, directions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Rotate directions, such as normals, from the file into the ball; lengths are kept."""
        return (directions.double() @ self._rotation(directions).T).to(directions)

    def turn_back(self, directions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Rotate directions from the ball into the file: the inverse of `turn`."""
        return (directions.double() @ self._rotation(directions)).to(directions)

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """The rotation of `turn` as a quaternion w, x, y, z; an orientation q of the file becomes this times q."""
        half = math.radians(self.yaw) / 2
        return (math.cos(half), 0.0, math.sin(half), 0.0)

    def tensor(self) -> Float64[Tensor, " 5"]:
        """The transform as one tensor: scale, center x, y, z, yaw."""
        return torch.tensor([self.scale, *self.center, self.yaw], dtype=torch.float64)

    @classmethod
    def from_tensor(cls, values: Float64[Tensor, " 5"]) -> Placement:
        """The transform from a tensor as `tensor` returns it. Raises ValueError for invalid values."""
        scale, x, y, z, yaw = values.tolist()
        return cls(scale, (x, y, z), yaw)

    def _center(self, like: Tensor) -> Float64[Tensor, " 3"]:
        return torch.tensor(self.center, dtype=torch.float64, device=like.device)

    def _rotation(self, like: Tensor) -> Float64[Tensor, "3 3"]:
        cosine, sine = math.cos(math.radians(self.yaw)), math.sin(math.radians(self.yaw))
        rows = [[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]]
        return torch.tensor(rows, dtype=torch.float64, device=like.device)
