"""A learned background: colour as a function of the viewing direction alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .base import RenderOutput
from .cameras import Cameras
from .fields.colour import seeded_network


@dataclass
class EnvironmentConfig:
    """Sizes and rate, as in threestudio's neural environment map."""

    hidden: int = 16
    layers: int = 2
    """Hidden ones."""
    rate: float = 1e-3
    """Adam's learning rate."""


class Environment(nn.Module):
    """What is seen behind the object, infinitely far away: spherical harmonics of the direction and a small network.

    It is asked along the camera's rays, not at what a renderer drew, so that it looks the same behind every
    representation; behind a mesh too, whose empty pixels have no position.
    """

    def __init__(self, config: EnvironmentConfig, generator: torch.Generator) -> None:
        """Raises ValueError for sizes below 1."""
        super().__init__()
        if min(config.hidden, config.layers) < 1:
            raise ValueError(f"hidden and layers must be at least 1, got {config}")
        self.config = config
        self.network = seeded_network([9, *[config.hidden] * config.layers, 3], generator)

    def forward(self, cameras: Cameras) -> Float[Tensor, "b 3 h w"]:
        """The background of every pixel, display sRGB in (0, 1)."""
        directions = F.normalize(cameras.rays(), dim=1).permute(0, 2, 3, 1)
        colours = self.network(spherical_harmonics(directions.reshape(-1, 3))).sigmoid()
        return colours.reshape(directions.shape).permute(0, 3, 1, 2)

    def learning_rates(self, prefix: str) -> dict[str, float]:
        """Rate per parameter, by its name under `prefix` (with the dot)."""
        return {f"{prefix}{name}": self.config.rate for name, _ in self.named_parameters()}


def composite(output_over_black: RenderOutput, picture: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Display sRGB of what was drawn over black, over another background."""
    return output_over_black.rgb + (1 - output_over_black.opacity) * picture


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
