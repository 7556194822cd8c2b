"""A small monocular depth and normal estimator for noisy images, with loading and saving.

It is a U-Net on pixel-unshuffled input, conditioned on the noise level. All of its operations are smooth.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .base import GeometryEstimate
from .files import EstimatorConfig, load_saved, save_half
from .layers import (
    GROUP,
    Head,
    ResidualBlock,
    facing_camera,
    noise_embedding,
    noise_waves,
    padded,
    resized,
)


@dataclass(frozen=True)
class TinyEstimatorConfig(EstimatorConfig):
    """Configuration of a `TinyGeometryEstimator`.

    Raises ValueError unless every channel count is a positive multiple of 8.
    """

    channels: tuple[int, ...] = (24, 48, 80, 112)
    """Channels of the levels at 1/2, 1/4, 1/8, ... of the image size."""
    head_channels: int = 16
    """Channels of the head at full resolution."""
    embedding_channels: int = 32
    """Channels of the noise-level embedding."""

    def __post_init__(self) -> None:
        counts = (*self.channels, self.head_channels, self.embedding_channels)
        if not self.channels or any(count < 1 or count % GROUP for count in counts):
            raise ValueError(f"channel counts must be positive multiples of {GROUP}, got {self}")


class TinyGeometryEstimator(nn.Module):
    """A `GeometryEstimator` for images of any size; trained at 64 and 128 pixels.

    `disparity` is about 0 on the background and grows toward the camera, about 1 at the near end of the unit ball.
    """

    def __init__(self, config: TinyEstimatorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TinyEstimatorConfig()
        channels, embedding = config.channels, config.embedding_channels
        pairs = list(itertools.pairwise(channels))
        self.embed = noise_embedding(embedding)
        self.stem = nn.Conv2d(12, channels[0], 3, padding=1)
        self.encoder = nn.ModuleList(ResidualBlock(width, embedding) for width in channels)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairs)
        self.middle = ResidualBlock(channels[-1], embedding)
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairs)
        self.decoder = nn.ModuleList(ResidualBlock(width, embedding) for width in channels[:-1])
        self.head = Head(channels[0], config.head_channels, embedding)

    @property
    def stride(self) -> int:
        """Padding multiple: image height and width are padded to multiples of it."""
        return 2 ** len(self.config.channels)

    def forward(self, image: Float[Tensor, "b 3 h w"], noise_level: Float[Tensor, " b"]) -> GeometryEstimate:
        height, width = image.shape[-2:]
        centered = padded(2 * image - 1, self.stride)
        embedding = self.embed(noise_waves(noise_level.to(image)))
        features = self.stem(F.pixel_unshuffle(centered, 2))
        skips = []
        for level, block in enumerate(self.encoder):
            features = block(self.down[level - 1](features) if level else features, embedding)
            skips.append(features)
        features = self.middle(features, embedding)
        for level in reversed(range(len(self.decoder))):
            features = self.decoder[level](resized(self.up[level](features), skips[level]) + skips[level], embedding)
        disparity, normal = self.head(features, centered, embedding).split([1, 3], 1)
        return GeometryEstimate(disparity[..., :height, :width], facing_camera(normal[..., :height, :width]))


def load_tiny_estimator(folder: Traversable) -> TinyGeometryEstimator:
    """Load an estimator saved in a folder, in float32, frozen.

    Raises OSError if a file is missing, ValueError if one is damaged or they do not belong together.
    """
    return load_saved(folder, TinyEstimatorConfig, TinyGeometryEstimator)


def save_tiny_estimator(folder: Path, config: TinyEstimatorConfig, state: Mapping[str, Tensor]) -> None:
    """Write `config.json` and the weights in half precision."""
    save_half(folder, config, state)
