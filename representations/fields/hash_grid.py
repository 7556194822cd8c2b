"""Multiresolution hash encoding of points [Müller et al. 2022]."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

_PRIMES = (1, 2654435761, 805459861)


@dataclass
class HashGridConfig:
    """Sizes of the encoding."""

    levels: int = 8
    features: int = 2
    """Per level."""
    log2_size: int = 15
    """Entries per level, as a power of two; a level that needs fewer is stored densely."""
    coarsest: int = 16
    """Cells per axis of the first level,"""
    finest: int = 256
    """and of the last; geometric in between."""


class HashGrid(nn.Module):
    """Points in the unit cube to features. Raises ValueError for sizes below 1."""

    def __init__(self, config: HashGridConfig, generator: torch.Generator) -> None:
        super().__init__()
        if min(config.levels, config.features, config.log2_size, config.coarsest) < 1:
            raise ValueError(f"levels, features, log2_size and coarsest must be at least 1, got {config}")
        self.config = config
        growth = (config.finest / config.coarsest) ** (1 / max(config.levels - 1, 1))
        self.resolutions = [int(config.coarsest * growth**level + 1e-6) for level in range(config.levels)]
        shape = (config.levels, 2**config.log2_size, config.features)
        self.table = nn.Parameter((2 * torch.rand(shape, generator=generator) - 1) * 1e-4)

    @property
    def width(self) -> int:
        """Number of features of a point."""
        return self.config.levels * self.config.features

    def forward(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n width"]:
        """Trilinear features at points in [0, 1]^3 (clamped); differentiable in the table and the points."""
        points = points.clamp(0, 1)
        return torch.cat([self._level(level, points) for level in range(self.config.levels)], 1)

    def _level(self, level: int, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n features"]:
        resolution, table = self.resolutions[level], self.table[level]
        scaled = points * resolution
        low = scaled.detach().floor().clamp(max=resolution - 1)
        fraction, corner = scaled - low, low.long()
        out = torch.zeros(len(points), table.shape[1]).to(table)
        for offset in range(8):
            bits = torch.tensor([offset & 1, offset >> 1 & 1, offset >> 2 & 1], device=points.device)
            weight = torch.where(bits.bool(), fraction, 1 - fraction).prod(1, keepdim=True)
            out = out + weight * table[self._index(corner + bits, resolution)]
        return out

    def _index(self, corner: Int64[Tensor, "n 3"], resolution: int) -> Int64[Tensor, " n"]:
        size, side = 2**self.config.log2_size, resolution + 1
        x, y, z = corner.unbind(1)
        if side**3 <= size:
            return x + side * (y + side * z)
        return (x * _PRIMES[0] ^ y * _PRIMES[1] ^ z * _PRIMES[2]) % size
