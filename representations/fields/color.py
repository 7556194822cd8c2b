"""A color field: color as a function of position."""

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
class ColorFieldConfig:
    """Color field: a hash grid followed by a small network."""

    grid: HashGridConfig = field(default_factory=HashGridConfig)
    """Settings of the hash grid."""
    hidden: Annotated[int, Interval(ge=1, le=1024)] = 32
    """Width of the network's hidden layer."""
    grid_rate: Annotated[float, Interval(ge=0, le=100)] = 1e-2
    """Adam learning rate of the hash table."""
    network_rate: Annotated[float, Interval(ge=0, le=100)] = 5e-3
    """Adam learning rate of the network."""


class ColorField(nn.Module):
    """A function from world points to display sRGB, initially gray.

    Args:
        config: Sizes and learning rates.
        extent: Half the side of the cube around the origin that the grid covers, in meters.
        generator: Source of the initial parameters.
    """

    def __init__(self, config: ColorFieldConfig, extent: float, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.extent = extent
        self.grid = HashGrid(config.grid, generator)
        self.network = seeded_network([self.grid.width, config.hidden, 3], generator)

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        return self.network(self.grid(points / (2 * self.extent) + 0.5)).sigmoid()

    def learning_rates(self, prefix: str) -> dict[str, float]:
        """Adam learning rate of every parameter, by parameter name with `prefix` (including the dot) in front."""
        return {
            f"{prefix}{name}": self.config.grid_rate if name.startswith("grid.") else self.config.network_rate
            for name, _ in self.named_parameters()
        }


def seeded_network(widths: list[int], generator: torch.Generator) -> nn.Sequential:
    """A fully connected ReLU network with Kaiming-initialized weights from `generator` and zero biases.

    Args:
        widths: Numbers of features: input, hidden layers, output.
        generator: Source of the weights.
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(widths):
        layer = nn.Linear(fan_in, fan_out)
        with torch.no_grad():
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
            layer.bias.zero_()
        layers += [layer, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
