"""A small monocular depth and normal estimator for noisy images, with loading and saving.

It is a U-Net on pixel-unshuffled input, conditioned on the noise level. It sees larger images averaged down to about
64 pixels; only the head sees all pixels. All of its operations are smooth.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

import torch
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

    Raises ValueError unless every channel count is a positive multiple of 8, and the core size is positive.
    """

    channels: tuple[int, ...] = (24, 48, 80, 112)
    """Channels of the levels at 1/2, 1/4, 1/8, ... of the size that the U-Net sees."""
    head_channels: int = 16
    """Channels of the head at full resolution."""
    embedding_channels: int = 32
    """Channels of the noise-level embedding."""
    core_size: int = 64
    """Longer side that the U-Net sees, in pixels; larger images are averaged down by the nearest integer factor."""

    def __post_init__(self) -> None:
        counts = (*self.channels, self.head_channels, self.embedding_channels)
        if not self.channels or any(count < 1 or count % GROUP for count in counts):
            raise ValueError(f"channel counts must be positive multiples of {GROUP}, got {self}")
        if self.core_size < 1:
            raise ValueError(f"the core size must be positive, got {self}")


class TinyGeometryEstimator(nn.Module):
    """A `GeometryEstimator` for images of any size; trained at 64 and 128 pixels.

    In evaluation mode, the estimates of the image and of its mirror image are averaged. `disparity` is about 0 on the
    background and grows toward the camera, about 1 at the near end of the unit ball.
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
        """Padding multiple: height and width of what the U-Net sees are padded to multiples of it."""
        return 2 ** len(self.config.channels)

    def forward(self, image: Float[Tensor, "b 3 h w"], noise_level: Float[Tensor, " b"]) -> GeometryEstimate:
        if self.training:
            return self._estimate(image, noise_level)
        both = self._estimate(torch.cat([image, image.flip(3)]), noise_level.repeat(2))
        disparity, mirrored_disparity = both.disparity.chunk(2)
        normal, mirrored_normal = both.normal.chunk(2)
        sign = normal.new_tensor([-1.0, 1.0, 1.0])[:, None, None]
        return GeometryEstimate(
            0.5 * (disparity + mirrored_disparity.flip(3)), F.normalize(normal + sign * mirrored_normal.flip(3), dim=1)
        )

    def _estimate(self, image: Float[Tensor, "b 3 h w"], noise_level: Float[Tensor, " b"]) -> GeometryEstimate:
        height, width = image.shape[-2:]
        noise_level = noise_level.to(image)
        factor = max(1, round(max(height, width) / self.config.core_size))
        centered = padded(2 * image - 1, self.stride * factor)
        core, core_level = averaged(centered, noise_level, factor)
        embedding = self.embed(noise_waves(core_level))
        features = self.stem(F.pixel_unshuffle(core, 2))
        skips = []
        for level, block in enumerate(self.encoder):
            features = block(self.down[level - 1](features) if level else features, embedding)
            skips.append(features)
        features = self.middle(features, embedding)
        for level in reversed(range(len(self.decoder))):
            features = self.decoder[level](resized(self.up[level](features), skips[level]) + skips[level], embedding)
        embedding = self.embed(noise_waves(noise_level))
        disparity, normal = self.head(features, centered, embedding).split([1, 3], 1)
        return GeometryEstimate(disparity[..., :height, :width], facing_camera(normal[..., :height, :width]))


def averaged(
    noisy: Float[Tensor, "b 3 h w"], noise_level: Float[Tensor, " b"], factor: int
) -> tuple[Float[Tensor, "b 3 h2 w2"], Float[Tensor, " b"]]:
    """Average noisy images down by `factor`, with the noise level of the result.

    The average of alpha * clean + sigma * noise has noise of deviation sigma / factor. It is divided by the root of
    alpha^2 + (sigma / factor)^2, so that it is again a noisy image of the schedule.
    """
    if factor == 1:
        return noisy, noise_level
    remaining = noise_level / factor
    scale = (1 - noise_level.square() + remaining.square()).rsqrt()
    return F.avg_pool2d(noisy, factor) * scale[:, None, None, None], remaining * scale


def load_tiny_estimator(folder: Traversable) -> TinyGeometryEstimator:
    """Load an estimator saved in a folder, in float32, frozen.

    Raises OSError if a file is missing, ValueError if one is damaged or they do not belong together.
    """
    return load_saved(folder, TinyEstimatorConfig, TinyGeometryEstimator)


def save_tiny_estimator(folder: Path, config: TinyEstimatorConfig, state: Mapping[str, Tensor]) -> None:
    """Write `config.json` and the weights in half precision."""
    save_half(folder, config, state)
