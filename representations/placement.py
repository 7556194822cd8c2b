"""Where a given shape was and how large: the way into the unit ball, where scenes are trained, and back.

A representation that starts from a file carries the file's `Placement` as `Representation.placement`: a buffer, so that
checkpoints hold it. Whoever makes another representation of a scene hands it on, and the export undoes it. A scene that
comes from no file has None.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

RADIUS = 0.9
"""Metres from the center to the farthest point of a shape that was fitted into the unit ball."""


@dataclass(frozen=True)
class Placement:
    """A similarity: what is at `p` in the file is at turn(p - center) / scale in the ball.

    Both spaces are right-handed with +Y up. Points and directions keep their type and device.
    """

    scale: float
    """Units of the file (metres) per metre of the ball, above 0."""
    center: tuple[float, float, float]
    """The point of the file that is the middle of the ball."""
    yaw: float = 0.0
    """Degrees by which the file is turned about +Y on the way into the ball, from +Z towards +X: a model whose front
    faces -X has it at +Z after 90."""

    def __post_init__(self) -> None:
        """Raises ValueError unless everything is finite and `scale` above 0."""
        if not all(map(math.isfinite, (self.scale, *self.center, self.yaw))) or self.scale <= 0:
            raise ValueError(f"a placement is finite and its scale above 0; got {self}")

    @classmethod
    def fit(cls, points: Float[Tensor, "n 3"], *, yaw: float = 0.0, radius: float = RADIUS) -> Placement:
        """Brings the middle of the points' bounding box to the origin and the farthest point to `radius` metres.

        Raises ValueError if a point is not finite, if there are no two different ones, or for a `yaw` or `radius` out
        of range.
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
            raise ValueError("all its points lie at one place" if reach == 0 else "it is too large to be measured")
        x, y, z = center.tolist()
        return cls(reach / radius, (x, y, z), yaw)

    def apply(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """From the file into the ball."""
        moved = (points.double() - self._center(points)) / self.scale
        return (moved @ self._rotation(points).T).to(points)

    def undo(self, points: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """From the ball to where it was in the file."""
        turned = points.double() @ self._rotation(points)
        return (turned * self.scale + self._center(points)).to(points)

    def turn(self, directions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """Directions, such as normals, from the file into the ball; lengths stay."""
        return (directions.double() @ self._rotation(directions).T).to(directions)

    def turn_back(self, directions: Float[Tensor, "*n 3"]) -> Float[Tensor, "*n 3"]:
        """The inverse of `turn`."""
        return (directions.double() @ self._rotation(directions)).to(directions)

    @property
    def quaternion(self) -> tuple[float, float, float, float]:
        """The rotation of `turn` as w, x, y, z. An orientation q of the file is this times q in the ball."""
        half = math.radians(self.yaw) / 2
        return (math.cos(half), 0.0, math.sin(half), 0.0)

    def tensor(self) -> Float64[Tensor, " 5"]:
        """scale, center, yaw."""
        return torch.tensor([self.scale, *self.center, self.yaw], dtype=torch.float64)

    @classmethod
    def from_tensor(cls, values: Float64[Tensor, " 5"]) -> Placement:
        """The inverse of `tensor`. Raises ValueError for values that are no placement."""
        scale, x, y, z, yaw = values.tolist()
        return cls(scale, (x, y, z), yaw)

    def _center(self, like: Tensor) -> Float64[Tensor, " 3"]:
        return torch.tensor(self.center, dtype=torch.float64, device=like.device)

    def _rotation(self, like: Tensor) -> Float64[Tensor, "3 3"]:
        cosine, sine = math.cos(math.radians(self.yaw)), math.sin(math.radians(self.yaw))
        rows = [[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]]
        return torch.tensor(rows, dtype=torch.float64, device=like.device)
