"""The geometry of Gaussians in the units of a file, and the way into the unit ball and back."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from .placement import RADIUS, Placement
from .splatting.geometry import rotation_matrices

REACH = 3.0
"""Standard deviations that count as a Gaussian's extent; at an opacity of 1, it is drawn up to 3.3."""
_BULK = 0.95
_LARGEST_GAP = 10.0
"""The whole may be so much larger than the `_BULK` of its Gaussians; else the object would be a dot in its pictures."""


@dataclass(frozen=True)
class Ellipsoids:
    """Float64: a scan may stand far from the origin of its map."""

    means: Float64[Tensor, "n 3"]
    log_scales: Float64[Tensor, "n 3"]
    """Logarithms of the standard deviations along the principal axes."""
    quaternions: Float64[Tensor, "n 4"]
    """w, x, y, z; of length 1."""

    def fit(self, yaw: float = 0.0) -> Placement:
        """The placement that brings every Gaussian, as far as `REACH`, into `placement.RADIUS` metres.

        The middle of the bounding box comes to the origin. Raises ValueError if there is nothing to measure, or if a
        few Gaussians lie so far outside that the rest would hardly be seen.
        """
        scales = REACH * self.log_scales.exp()
        half = (rotation_matrices(self.quaternions) * scales[:, None, :]).norm(dim=2)
        low, high = (self.means - half).amin(0), (self.means + half).amax(0)
        center = low + (high - low) / 2
        radii = scales.amax(1)
        reach = float(((self.means - center).norm(dim=1) + radii).max())
        if not 0 < reach < math.inf:
            raise ValueError("all its Gaussians are one point" if reach == 0 else "its Gaussians have no finite extent")
        around = (self.means - self.means.median(0).values).norm(dim=1) + radii
        bulk = float(around.kthvalue(math.ceil(_BULK * len(around))).values)
        if reach > _LARGEST_GAP * bulk:
            raise ValueError(
                f"its Gaussians reach {reach:.3g} units from their middle, {_BULK:.0%} of them stay within {bulk:.3g}: "
                "cut off what lies far outside, such as floaters and background, in a splat editor"
            )
        x, y, z = center.tolist()
        return Placement(reach / RADIUS, (x, y, z), yaw)

    def apply(self, placement: Placement) -> Ellipsoids:
        """From the file into the ball."""
        return Ellipsoids(
            placement.apply(self.means),
            self.log_scales - math.log(placement.scale),
            _product(self._turn(placement), self.quaternions),
        )

    def undo(self, placement: Placement) -> Ellipsoids:
        """From the ball to where they were in the file."""
        turn = self._turn(placement)
        return Ellipsoids(
            placement.undo(self.means),
            self.log_scales + math.log(placement.scale),
            _product(torch.cat([turn[:1], -turn[1:]]), self.quaternions),
        )

    def _turn(self, placement: Placement) -> Float64[Tensor, " 4"]:
        return torch.tensor(placement.quaternion).to(self.quaternions)


def _product(first: Float64[Tensor, " 4"], second: Float64[Tensor, "n 4"]) -> Float64[Tensor, "n 4"]:
    """Of quaternions: the rotation of `second`, then that of `first`."""
    w, v = second[:, :1], second[:, 1:]
    real = first[0] * w - (v * first[1:]).sum(1, keepdim=True)
    return torch.cat([real, first[0] * v + w * first[1:] + torch.linalg.cross(first[1:].expand_as(v), v)], 1)
