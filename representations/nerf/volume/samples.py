"""Packed samples: the points of all rays, which have different numbers of points, in one tensor."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class Samples:
    """Points along rays, concatenated ray by ray, front to back."""

    points: Float[Tensor, "m 3"]
    """World positions in meters."""
    distances: Float[Tensor, " m"]
    """Distances from the ray origins in meters."""
    rays: Int64[Tensor, " m"]
    """Index of the ray of each sample."""
    starts: Int64[Tensor, " r1"]
    """Ray r has the samples starts[r] to starts[r + 1]; one entry more than rays."""

    def __len__(self) -> int:
        return len(self.distances)

    def where(self, keep: Bool[Tensor, " m"]) -> Samples:
        """The samples selected by a mask, with the same rays."""
        index = keep.nonzero()[:, 0]
        return Samples(
            self.points[index], self.distances[index], self.rays[index], torch.searchsorted(index, self.starts)
        )
