"""Trainable position encodings: multiresolution hash grids [Müller et al. 2022] and dense voxel grids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor, nn

from .interpolation import interpolate, point_gradient


@dataclass
class HashGridConfig:
    """Multiresolution hash grid."""

    levels: Annotated[int, Interval(ge=1, le=32)] = 8
    """Number of levels; their resolutions are a geometric sequence from `coarsest` to `finest`."""
    features: Annotated[int, Interval(ge=1, le=32)] = 2
    """Number of features per level."""
    log2_size: Annotated[int, Interval(ge=1, le=24)] = 15
    """Base-2 logarithm of the number of table entries per level; a level that needs fewer is stored densely."""
    coarsest: Annotated[int, Interval(ge=1, le=4096)] = 16
    """Number of cells per axis of the first level."""
    finest: Annotated[int, Interval(ge=1, le=65_536)] = 256
    """Number of cells per axis of the last level."""


@dataclass
class DenseGridConfig:
    """Dense voxel grid."""

    resolution: Annotated[int, Interval(ge=1, le=512)] = 64
    """Number of cells per axis."""
    features: Annotated[int, Interval(ge=1, le=32)] = 4
    """Number of features per corner."""


class FeatureGrid(nn.Module):
    """A function from points in the unit cube to features, by trilinear interpolation in one or more grids.

    Args:
        shape: Shape of the table: levels, entries, features.
        resolutions: Number of cells per axis of each level.
        amplitude: The table is initialized uniformly in [-amplitude, amplitude].
        generator: Source of the initial table.
    """

    active_levels: Tensor
    """Number of active levels, see `activate`."""

    def __init__(
        self, shape: tuple[int, int, int], resolutions: Sequence[int], amplitude: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.resolutions = tuple(resolutions)
        self.table = nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * amplitude)
        self.register_buffer("active_levels", torch.tensor(len(self.resolutions)))

    @property
    def width(self) -> int:
        """Number of output features."""
        return len(self.resolutions) * self.table.shape[2]

    def activate(self, levels: int) -> None:
        """Enable only the first (coarsest) levels, for coarse-to-fine training; the features of the others are 0.

        Raises ValueError unless 1 <= levels <= number of levels.
        """
        if not 1 <= levels <= len(self.resolutions):
            raise ValueError(f"cannot activate {levels} levels of a grid that has {len(self.resolutions)}")
        self.active_levels.fill_(levels)

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        """Trilinear features at points in [0, 1]^3 (clamped); differentiable in the table and the points."""
        active = self._active()
        features = interpolate(points.clamp(0, 1), self.table, active)
        return F.pad(features, (0, self.width - features.shape[1])) if len(active) < len(self.resolutions) else features

    def gradient(self, points: Float[Tensor, "n 3"], cotangent: Float[Tensor, "n width"]) -> Float[Tensor, "n 3"]:
        """Derivative of `sum(cotangent * self(points))` with respect to the points.

        It is differentiable in the table and the cotangent. At the faces of the cube it is the derivative from the
        inside.
        """
        active = self._active()
        used = cotangent[:, : len(active) * self.table.shape[2]]
        return point_gradient(points.clamp(0, 1), self.table, used, active)

    def _active(self) -> tuple[int, ...]:
        return self.resolutions[: int(self.active_levels)]


class HashGrid(FeatureGrid):
    """A multiresolution grid whose fine levels share table entries by hashing. Raises ValueError for sizes below 1."""

    def __init__(self, config: HashGridConfig, generator: torch.Generator) -> None:
        if min(config.levels, config.features, config.log2_size, config.coarsest) < 1:
            raise ValueError(f"levels, features, log2_size and coarsest must be at least 1, got {config}")
        if config.finest < config.coarsest:
            raise ValueError(f"finest must be at least coarsest, got {config.finest} and {config.coarsest}")
        growth = (config.finest / config.coarsest) ** (1 / max(config.levels - 1, 1))
        resolutions = [int(config.coarsest * growth**level + 1e-6) for level in range(config.levels)]
        super().__init__((config.levels, 2**config.log2_size, config.features), resolutions, 1e-4, generator)
        self.config = config


class DenseGrid(FeatureGrid):
    """A dense voxel grid with one entry per corner. Raises ValueError for sizes below 1."""

    def __init__(self, config: DenseGridConfig, generator: torch.Generator) -> None:
        if min(config.resolution, config.features) < 1:
            raise ValueError(f"resolution and features must be at least 1, got {config}")
        super().__init__((1, (config.resolution + 1) ** 3, config.features), [config.resolution], 1e-4, generator)
        self.config = config
