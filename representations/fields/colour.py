"""Colour as a function of position."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Annotated

import torch
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor, nn

from .hash_grid import HashGrid, HashGridConfig


@dataclass
class ColourFieldConfig:
    """A hash grid and a small network on top."""

    grid: HashGridConfig = field(default_factory=HashGridConfig)
    hidden: Annotated[int, Interval(ge=1, le=1024)] = 32
    grid_rate: Annotated[float, Interval(ge=0, le=100)] = 1e-2
    """Adam's learning rate of the hash table,"""
    network_rate: Annotated[float, Interval(ge=0, le=100)] = 5e-3
    """and of the network."""


class ColourField(nn.Module):
    """World points to display sRGB; starts grey."""

    def __init__(self, config: ColourFieldConfig, extent: float, generator: torch.Generator) -> None:
        """`extent`: half the side of the cube, around the origin, that the grid covers (metres)."""
        super().__init__()
        self.config = config
        self.extent = extent
        self.grid = HashGrid(config.grid, generator)
        self.network = seeded_network([self.grid.width, config.hidden, 3], generator)

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        return self.network(self.grid(points / (2 * self.extent) + 0.5)).sigmoid()

    def learning_rates(self, prefix: str) -> dict[str, float]:
        """Rate per parameter, by its name under `prefix` (with the dot)."""
        return {
            f"{prefix}{name}": self.config.grid_rate if name.startswith("grid.") else self.config.network_rate
            for name, _ in self.named_parameters()
        }


def seeded_network(widths: list[int], generator: torch.Generator) -> nn.Sequential:
    """A fully connected network with ReLUs between, drawn from the generator (Kaiming), the last bias 0."""
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layer = nn.Linear(fan_in, fan_out)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
            layer.bias.zero_()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
