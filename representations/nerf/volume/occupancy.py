"""An occupancy grid: a decaying maximum of the density per cell of a box, so that rays can skip empty cells."""

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
    """Occupancy grid of Instant-NGP [Müller et al. 2022, appendix E.2]."""

    resolution: Annotated[int, Interval(ge=1, le=512)] = 64
    """Number of cells per axis."""
    every: Annotated[int, Interval(ge=1, le=1_000_000)] = 16
    """Optimizer steps between updates; the first update follows the first step."""
    decay: Annotated[float, Interval(ge=0, le=1)] = 0.95
    """Factor on the density of a cell per update; a larger newly sampled density replaces it."""
    threshold: Annotated[float, Interval(ge=0, lt=1)] = 0.01
    """A cell is skipped if the opacity of one step through it is below this and its density is below the mean (in a
    faint scene, all cells above the mean are kept)."""


class OccupancyGrid(nn.Module):
    """The occupancy grid of the box [-bound, bound]^3 (meters); all cells are occupied until the first update.

    Raises ValueError for settings out of range.
    """

    density: Tensor
    """Density per meter of each cell; axes x, y, z."""

    def __init__(self, config: OccupancyConfig, bound: float) -> None:
        super().__init__()
        if min(config.resolution, config.every) < 1 or not 0 <= config.decay <= 1 or not 0 <= config.threshold < 1:
            raise ValueError(
                f"need resolution and every >= 1, 0 <= decay <= 1 and 0 <= threshold < 1 for occupancy, got {config}"
            )
        self.config = config
        self.bound = bound
        self.register_buffer("density", torch.full((config.resolution,) * 3, torch.inf))

    def occupied(self, step: float) -> Bool[Tensor, "g g g"]:
        """Whether each cell must be sampled with steps of `step` meters; axes x, y, z."""
        least = -torch.log1p(torch.tensor(-self.config.threshold)).to(self.density) / step
        return self.density >= torch.minimum(self.density.mean(), least)

    @torch.no_grad()
    def update(
        self, density: Callable[[Float[Tensor, "n 3"]], Float[Tensor, " n"]], generator: torch.Generator
    ) -> None:
        """Update every cell with the density at one random point in it.

        Args:
            density: Maps world points to densities per meter.
            generator: Source of the random points.
        """
        resolution, device = self.config.resolution, self.density.device
        index = torch.arange(resolution, device=device)
        corners = torch.stack(torch.meshgrid(index, index, index, indexing="ij"), -1).reshape(-1, 3)
        jitter = torch.rand(corners.shape, generator=generator, device=generator.device).to(device)
        points = ((corners + jitter) / resolution * 2 - 1) * self.bound
        found = torch.cat([density(part) for part in points.split(_POINTS_AT_ONCE)]).reshape(self.density.shape)
        faded = torch.where(self.density.isinf(), found, self.config.decay * self.density)
        self.density.copy_(torch.maximum(found, faded))
