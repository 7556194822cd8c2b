"""Smooth building blocks of the geometry estimators, conditioned on the noise level by FiLM (Perez et al. 2018).

The only statistics are per image (GroupNorm): Stein's identity holds for baselines built on them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

GROUP = 8
"""Channels per group of a GroupNorm; channel counts must be multiples of it."""
WAVES = 8


def noise_embedding(channels: int) -> nn.Sequential:
    """A small network that maps the 2 * WAVES numbers of `noise_waves` to an embedding."""
    return nn.Sequential(nn.Linear(2 * WAVES, channels), nn.SiLU(), nn.Linear(channels, channels), nn.SiLU())


def noise_waves(noise_level: Float[Tensor, " b"]) -> Float[Tensor, "b waves"]:
    """Cosines and sines of the noise level, from half a period over [0, 1] upward."""
    harmonics = torch.arange(1, WAVES + 1, device=noise_level.device, dtype=noise_level.dtype)
    phase = 0.5 * math.pi * noise_level[:, None] * harmonics
    return torch.cat([phase.cos(), phase.sin()], 1)


class ResidualBlock(nn.Module):
    """The residual block x + conv(silu(film(norm(conv(silu(norm(x)))))))."""

    def __init__(self, channels: int, embedding_channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(channels // GROUP, channels) for _ in range(2))
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.film = nn.Linear(embedding_channels, 2 * channels)

    def forward(self, x: Float[Tensor, "b c h w"], embedding: Float[Tensor, "b e"]) -> Float[Tensor, "b c h w"]:
        hidden = self.convolutions[0](F.silu(self.norms[0](x)))
        hidden = _modulated(self.norms[1](hidden), self.film(embedding))
        return x + self.convolutions[1](F.silu(hidden))


class Head(nn.Module):
    """The output head at full resolution. Features are upsampled bilinearly, since pixel shuffling leaves a
    checkerboard.
    """

    def __init__(self, channels: int, head_channels: int, embedding_channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(channels // GROUP, channels)
        self.reduce = nn.Conv2d(channels, head_channels, 3, padding=1)
        self.mix = nn.Conv2d(head_channels + 3, head_channels, 3, padding=1)
        self.film = nn.Linear(embedding_channels, 2 * head_channels)
        self.out = nn.Conv2d(head_channels, 4, 3, padding=1)

    def forward(
        self,
        features: Float[Tensor, "b c coarse_h coarse_w"],
        image: Float[Tensor, "b 3 h w"],
        embedding: Float[Tensor, "b e"],
    ) -> Float[Tensor, "b 4 h w"]:
        """Raw disparity and raw normals."""
        reduced = resized(self.reduce(F.silu(self.norm(features))), image)
        mixed = self.mix(torch.cat([reduced, image], 1))
        return self.out(F.silu(_modulated(mixed, self.film(embedding))))


def resized(x: Float[Tensor, "b c h w"], like: Float[Tensor, "b d h2 w2"]) -> Float[Tensor, "b c h2 w2"]:
    """Resize bilinearly to the height and width of `like`."""
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)


def padded(image: Float[Tensor, "b 3 h w"], multiple: int) -> Float[Tensor, "b 3 hp wp"]:
    """Pad with replicated borders at the bottom and right, so that height and width are multiples of `multiple`."""
    bottom, right = (-size % multiple for size in image.shape[-2:])
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def facing_camera(raw: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Map arbitrary vectors smoothly to unit vectors with z < 0."""
    x, y, z = raw.split(1, 1)
    facing = torch.cat([x, y, -F.softplus(z) - 1e-2], 1)
    return facing * facing.square().sum(1, keepdim=True).rsqrt()


def _modulated(x: Float[Tensor, "b c h w"], film: Float[Tensor, "b c2"]) -> Float[Tensor, "b c h w"]:
    scale, shift = film[:, :, None, None].chunk(2, 1)
    return x * (1 + scale) + shift
