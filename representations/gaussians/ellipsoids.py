"""Positions, scales and rotations of Gaussians in the units of a file, and their transform into the unit ball."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from ..placement import RADIUS, Placement
from .splatting.geometry import rotation_matrices

REACH = 3.0
"""Extent of a Gaussian in standard deviations; at an opacity of 1, it is rendered up to 3.3."""
_BULK = 0.95
_LARGEST_GAP = 10.0
"""Maximum ratio of the radius of all Gaussians to that of the `_BULK` of them; beyond it, the object would be a dot in
its images."""


@dataclass(frozen=True)
class Ellipsoids:
    """Shapes of Gaussians in float64, since a scan may be far from the origin of its map."""

    means: Float64[Tensor, "n 3"]
    """Centers, in the units of the file."""
    log_scales: Float64[Tensor, "n 3"]
    """Logarithms of the standard deviations along the principal axes."""
    quaternions: Float64[Tensor, "n 4"]
    """Unit quaternions w, x, y, z."""

    def fit(self, yaw: float = 0.0) -> Placement:
        """The transform that fits every Gaussian, up to `REACH`, into a ball of `placement.RADIUS` meters.

        The center of the bounding box maps to the origin.

        Args:
            yaw: Rotation in degrees about +Y, see `Placement.yaw`.

        Raises:
            ValueError: The Gaussians have no extent or no finite one, or a few outliers are so far away that the rest
                would be a dot in the images.
        """
        scales = REACH * self.log_scales.exp()
        half = (rotation_matrices(self.quaternions) * scales[:, None, :]).norm(dim=2)
        low, high = (self.means - half).amin(0), (self.means + half).amax(0)
        center = low + (high - low) / 2
        radii = scales.amax(1)
        reach = float(((self.means - center).norm(dim=1) + radii).max())
        if not 0 < reach < math.inf:
            raise ValueError("all its Gaussians coincide" if reach == 0 else "its Gaussians have no finite extent")
        around = (self.means - self.means.median(0).values).norm(dim=1) + radii
        bulk = float(around.kthvalue(math.ceil(_BULK * len(around))).values)
        if reach > _LARGEST_GAP * bulk:
            raise ValueError(
                f"its Gaussians extend {reach:.3g} units from their center, {_BULK:.0%} of them only {bulk:.3g}: "
                "remove outliers, such as floaters and background, in a splat editor"
            )
        x, y, z = center.tolist()
        return Placement(reach / RADIUS, (x, y, z), yaw)

    def apply(self, placement: Placement) -> Ellipsoids:
        """Transform from the file into the ball."""
        return Ellipsoids(
            placement.apply(self.means),
            self.log_scales - math.log(placement.scale),
            _product(self._turn(placement), self.quaternions),
        )

    def undo(self, placement: Placement) -> Ellipsoids:
        """Transform from the ball into the file: the inverse of `apply`."""
        turn = self._turn(placement)
        return Ellipsoids(
            placement.undo(self.means),
            self.log_scales + math.log(placement.scale),
            _product(torch.cat([turn[:1], -turn[1:]]), self.quaternions),
        )

    def _turn(self, placement: Placement) -> Float64[Tensor, " 4"]:
        return torch.tensor(placement.quaternion).to(self.quaternions)


def _product(first: Float64[Tensor, " 4"], second: Float64[Tensor, "n 4"]) -> Float64[Tensor, "n 4"]:
    """Quaternion product: the rotation by `second`, followed by that of `first`."""
    w, v = second[:, :1], second[:, 1:]
    real = first[0] * w - (v * first[1:]).sum(1, keepdim=True)
    return torch.cat([real, first[0] * v + w * first[1:] + torch.linalg.cross(first[1:].expand_as(v), v)], 1)
