"""An initial blob of density, so that the first images show an object to optimize."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import torch
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor, nn

Shape = Literal["magic3d", "dreamfusion", "none"]
SHAPES: tuple[Shape, ...] = get_args(Shape)


@dataclass
class BlobConfig:
    """Initial blob: a function of the distance r to the origin, added to the density before its activation."""

    shape: Shape = "magic3d"
    """Shape of the blob: magic3d: bias (1 - r / width) [Magic3D]; dreamfusion: bias exp(-r^2 / (2 width^2))
    [DreamFusion]; none: 0."""
    bias: Annotated[float, Interval(ge=-1000, le=1000)] = 10.0
    """Value at the origin. A negative value makes the space around the origin empty, for cameras inside a scene."""
    width: Annotated[float, Interval(gt=0, le=1000)] = 0.5
    """Width of the blob in meters."""


class Blob(nn.Module):
    """A fixed function of position, added to the density. Raises ValueError for an unknown shape or a width <= 0."""

    def __init__(self, config: BlobConfig) -> None:
        super().__init__()
        if config.shape not in SHAPES:
            raise ValueError(f"unknown blob shape {config.shape!r}; choose one of {list(SHAPES)}")
        if config.width <= 0 or not math.isfinite(config.bias):
            raise ValueError(f"a blob needs width > 0 and a finite bias, got {config.width} and {config.bias}")
        self.config = config

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        bias, width = self.config.bias, self.config.width
        if self.config.shape == "magic3d":
            return bias * (1 - points.norm(dim=1) / width)
        if self.config.shape == "dreamfusion":
            return bias * torch.exp(-0.5 * points.square().sum(1) / width**2)
        return torch.zeros_like(points[:, 0])

    def gradient(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Gradient with respect to the points; 0 at the tip of the cone."""
        bias, width = self.config.bias, self.config.width
        if self.config.shape == "magic3d":
            return -bias / width * points / points.norm(dim=1, keepdim=True).clamp_min(1e-12)
        if self.config.shape == "dreamfusion":
            return -points / width**2 * self(points)[:, None]
        return torch.zeros_like(points)
