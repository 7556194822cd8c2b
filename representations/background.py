"""A learned background: color as a function of the viewing direction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .base import RenderOutput
from .cameras import Cameras
from .fields.color import seeded_network


@dataclass
class EnvironmentConfig:
    """Settings of `Environment`; the defaults are those of threestudio's neural environment map."""

    hidden: int = 16
    """Width of the hidden layers, at least 1."""
    layers: int = 2
    """Number of hidden layers, at least 1."""
    rate: float = 1e-3
    """Adam learning rate."""


class Environment(nn.Module):
    """A background at infinite distance: a small network on spherical harmonics of the viewing direction.

    It is evaluated along the camera rays, not at rendered positions, so that it is the same behind every
    representation, including meshes, whose empty pixels have no position.
    """

    def __init__(self, config: EnvironmentConfig, generator: torch.Generator) -> None:
        """Initialize the network from `generator`. Raises ValueError for sizes below 1."""
        super().__init__()
        if min(config.hidden, config.layers) < 1:
            raise ValueError(f"hidden and layers must be at least 1, got {config}")
        self.config = config
        self.network = seeded_network([9, *[config.hidden] * config.layers, 3], generator)

    def forward(self, cameras: Cameras) -> Float[Tensor, "b 3 h w"]:
        """The background of every pixel, display sRGB in (0, 1)."""
        directions = F.normalize(cameras.rays(), dim=1).permute(0, 2, 3, 1)
        colors = self.network(spherical_harmonics(directions.reshape(-1, 3))).sigmoid()
        return colors.reshape(directions.shape).permute(0, 3, 1, 2)

    def learning_rates(self, prefix: str) -> dict[str, float]:
        """Adam learning rate of every parameter, by parameter name with `prefix` (including the dot) in front."""
        return {f"{prefix}{name}": self.config.rate for name, _ in self.named_parameters()}


def composite(output_over_black: RenderOutput, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Composite a render over black onto a background image; display sRGB."""
    return output_over_black.rgb + (1 - output_over_black.opacity) * image


def spherical_harmonics(directions: Float[Tensor, "n 3"]) -> Float[Tensor, "n 9"]:
    """The real spherical harmonics of bands 0 to 2, orthonormal over the sphere, at unit vectors [Sloan 2008]."""
    x, y, z = directions.unbind(1)
    linear, quadratic = math.sqrt(3 / (4 * math.pi)), math.sqrt(15 / (4 * math.pi))
    return torch.stack(
        [
            torch.full_like(x, 0.5 / math.sqrt(math.pi)),
            linear * y,
            linear * z,
            linear * x,
            quadratic * x * y,
            quadratic * y * z,
            quadratic / math.sqrt(12) * (3 * z * z - 1),
            quadratic * x * z,
            quadratic / 2 * (x * x - y * y),
        ],
        1,
    )
