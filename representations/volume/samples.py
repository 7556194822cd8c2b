"""Packed samples: rays through a scene need different numbers of points, so the points stand end to end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """Points along rays, ray after ray and front to back."""

    points: Float[Tensor, "m 3"]
    """World space, metres."""
    distances: Float[Tensor, " m"]
    """From the ray's origin, metres."""
    rays: Int64[Tensor, " m"]
    """Number of the ray."""
    starts: Int64[Tensor, " r1"]
    """Ray r owns the samples starts[r] to starts[r + 1]; one entry more than there are rays."""

    def __len__(self) -> int:
        return len(self.distances)

    def where(self, keep: Bool[Tensor, " m"]) -> Samples:
        """Only the chosen samples, of the same rays."""
        index = keep.nonzero()[:, 0]
        return Samples(
            self.points[index], self.distances[index], self.rays[index], torch.searchsorted(index, self.starts)
        )
