"""Which cells of a box may hold something: a moving maximum of the density, so that rays can skip the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from jaxtyping import Bool, Float
from torch import Tensor, nn

_POINTS_AT_ONCE = 2**17


@dataclass
class OccupancyConfig:
    """The grid of Instant-NGP [Müller et al. 2022, appendix E.2]."""

    resolution: Annotated[int, Interval(ge=1, le=512)] = 64
    """Cells per axis."""
    every: Annotated[int, Interval(ge=1, le=1_000_000)] = 16
    """Steps between updates; the first follows the first step."""
    decay: Annotated[float, Interval(ge=0, le=1)] = 0.95
    """What a cell keeps of its density per update, unless it is found denser."""
    threshold: Annotated[float, Interval(ge=0, lt=1)] = 0.01
    """A cell is skipped if a step through it stops less than this share of the light (and it is no denser than the
    mean: in a faint scene everything above the mean is kept)."""


class OccupancyGrid(nn.Module):
    """Everything is occupied until the first update. Raises ValueError for settings outside their range."""

    density: Tensor

    def __init__(self, config: OccupancyConfig, bound: float) -> None:
        """Covers [-bound, bound]^3."""
        super().__init__()
        if min(config.resolution, config.every) < 1 or not 0 <= config.decay <= 1 or not 0 <= config.threshold < 1:
            raise ValueError(
                f"need resolution and every >= 1, 0 <= decay <= 1 and 0 <= threshold < 1 for occupancy, got {config}"
            )
        self.config = config
        self.bound = bound
        self.register_buffer("density", torch.full((config.resolution,) * 3, torch.inf))

    def occupied(self, step: float) -> Bool[Tensor, "g g g"]:
        """Cells to sample when marching `step` metres at a time; axes x, y, z."""
        least = -torch.log1p(torch.tensor(-self.config.threshold)).to(self.density) / step
        return self.density >= torch.minimum(self.density.mean(), least)

    @torch.no_grad()
    def update(
        self, density: Callable[[Float[Tensor, "n 3"]], Float[Tensor, " n"]], generator: torch.Generator
    ) -> None:
        """Look at one random point in every cell."""
        resolution, device = self.config.resolution, self.density.device
        index = torch.arange(resolution, device=device)
        corners = torch.stack(torch.meshgrid(index, index, index, indexing="ij"), -1).reshape(-1, 3)
        jitter = torch.rand(corners.shape, generator=generator, device=generator.device).to(device)
        points = ((corners + jitter) / resolution * 2 - 1) * self.bound
        found = torch.cat([density(part) for part in points.split(_POINTS_AT_ONCE)]).reshape(self.density.shape)
        faded = torch.where(self.density.isinf(), found, self.config.decay * self.density)
        self.density.copy_(torch.maximum(found, faded))
