"""Training data of the scorer: views under random light over random backgrounds, with geometric and color augmentation.

The views are rendered like those of the priors, but share neither objects nor cameras nor lights with them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from steindreamer.world import Caption
from steindreamer.world.scorer import SIZE

from ..prior.dataset import ViewCache, ViewSettings
from .lighting import Lighting, lit, random_lights, uneven

VIEWS = ViewSettings(
    held_out=(),
    sets_per_caption=6,
    objects_per_set=2,
    cameras_per_set=4,
    seed=7_000_003,
    size=SIZE,
    modalities=("albedo", "normal"),
)
"""Settings of the views; no prior or evaluation uses their seed."""


@dataclass(frozen=True)
class Augmentation:
    """Ranges of the augmentations; each value is drawn independently per image."""

    size: tuple[float, float] = (0.65, 1.2)
    """Range of the object's size relative to its stored size; covers other distances and fields of view."""
    shift: float = 0.08
    """Maximum shift in any direction, as a fraction of the image side."""
    roll: float = 8.0
    """Maximum rotation in the image plane, in degrees, in both directions."""
    tint: float = 0.08
    """Maximum relative change of the gain per channel."""
    brightness: tuple[float, float] = (0.8, 1.1)
    haze: float = 0.25
    """Maximum blend with the background, as a fraction, for a quarter of the images."""
    coarsest: int = 20
    """Minimum resolution in pixels per side that half of the images are reduced to."""
    noise: float = 0.08
    """Maximum standard deviation of the noise per pixel, for half of the images."""
    blotches: float = 0.1
    """Maximum standard deviation of noise in spots about six pixels wide, for half of the images."""


@dataclass(frozen=True)
class Batch:
    """Augmented images with their labels."""

    images: Float[Tensor, "b 3 h w"]
    """Images of SIZE pixels per side, sRGB in [0, 1]."""
    labels: Int64[Tensor, " b"]
    """Indices of the captions."""
    colored: Bool[Tensor, " b"]
    """False for gray objects, of which only the kind can be known."""

    def to(self, device: torch.device) -> Batch:
        """Move all tensors to a device."""
        return Batch(self.images.to(device), self.labels.to(device), self.colored.to(device))


@dataclass(frozen=True)
class LabeledViews:
    """Cached albedo and normals with the indices of their captions in a list."""

    cache: ViewCache
    captions: Sequence[Caption]

    @cached_property
    def labels(self) -> Int64[Tensor, " n"]:
        """Indices of the captions of all groups. Raises ValueError if a caption is not in the list."""
        index = {caption: i for i, caption in enumerate(self.captions)}
        shown = [self.cache.caption(group) for group in range(len(self.cache))]
        unknown = sorted({caption.text for caption in shown if caption not in index})
        if unknown:
            raise ValueError(f"the views show {', '.join(unknown)}, which the scorer cannot name")
        return torch.tensor([index[caption] for caption in shown])

    def draw(self, size: int, lighting: Lighting, augmentation: Augmentation, generator: torch.Generator) -> Batch:
        """Draw `size` augmented images: unlit, lit, and lit gray."""
        groups = torch.randint(len(self.cache), (size,), generator=generator)
        objects = torch.randint(self.cache.settings.objects_per_set, (size,), generator=generator)
        albedo, normal, opacity = (self._layer(name, groups, objects) for name in ("albedo", "normal", "opacity"))
        chosen = torch.rand(size, generator=generator)
        gray, unlit = chosen < lighting.gray, chosen >= 1 - lighting.unlit
        brightness = lighting.brightness_of_gray(size, generator)
        color = torch.where(gray[:, None, None, None], brightness * opacity, albedo)
        normal = uneven(2 * normal - opacity, lighting, generator)
        shaded = lit(color, normal, opacity, random_lights(size, lighting, generator))
        color = torch.where(unlit[:, None, None, None], color, shaded)
        images = augmented(torch.cat([color, opacity], 1), augmentation, generator)
        return Batch(images, self.labels[groups], ~gray)

    def _layer(self, name: str, groups: Int64[Tensor, " b"], objects: Int64[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        pairs = zip(groups.tolist(), objects.tolist(), strict=True)
        return torch.from_numpy(np.stack([self.cache.layer(name, group)[row] for group, row in pairs])).float() / 255


def augmented(
    foreground: Float[Tensor, "b 4 s s"], augmentation: Augmentation, generator: torch.Generator
) -> Float[Tensor, "b 3 h w"]:
    """Augment views and composite them over random backgrounds.

    Args:
        foreground: sRGB color pre-multiplied by opacity, and opacity; s is a multiple of SIZE.
        augmentation: Ranges of the augmentations.
        generator: Random number generator.
    """
    count = len(foreground)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    def some(fraction: float) -> Tensor:
        return (torch.rand(count, 1, 1, 1, generator=generator) < fraction).float()

    moved = _moved(F.avg_pool2d(foreground, foreground.shape[-1] // SIZE), augmentation, uniform)
    color, opacity = moved.split([3, 1], 1)
    gain = uniform(*augmentation.brightness, 1, 1, 1) * (1 + uniform(-augmentation.tint, augmentation.tint, 3, 1, 1))
    solid = 1 - some(0.25) * uniform(0.0, augmentation.haze, 1, 1, 1)
    image = solid * gain * color + (1 - solid * opacity) * _backgrounds(count, generator)
    blotches = F.interpolate(torch.randn(count, 3, 10, 10, generator=generator), (SIZE, SIZE), mode="bilinear")
    image = image + some(0.5) * uniform(0.0, augmentation.blotches, 1, 1, 1) * blotches
    image = _coarser(image, augmentation.coarsest, generator)
    noise = torch.randn(image.shape, generator=generator)
    return (image + some(0.5) * uniform(0.0, augmentation.noise, 1, 1, 1) * noise).clamp(0, 1)


def _moved(views: Tensor, augmentation: Augmentation, uniform: Callable[..., Tensor]) -> Tensor:
    """Mirror, rotate, scale and shift the views; pixels from outside the image are empty."""
    mirror = uniform(-1.0, 1.0).sign()
    scale = 1 / uniform(*augmentation.size)
    angle = uniform(-augmentation.roll, augmentation.roll) * math.pi / 180
    shift = 2 * uniform(-augmentation.shift, augmentation.shift, 2)
    across = torch.stack([mirror * scale * angle.cos(), -scale * angle.sin(), shift[:, 0]], 1)
    down = torch.stack([mirror * scale * angle.sin(), scale * angle.cos(), shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(views.shape), align_corners=False)
    return F.grid_sample(views, grid, align_corners=False)


def _backgrounds(count: int, generator: torch.Generator) -> Float[Tensor, "b 3 1 1"]:
    """Draw background colors: 40 % white, 20 % gray, the others uniform."""
    colors = torch.rand(count, 3, generator=generator)
    chosen = torch.rand(count, 1, generator=generator)
    colors = torch.where(chosen < 0.6, colors[:, :1], colors)
    return torch.where(chosen < 0.4, 1.0, colors)[:, :, None, None]


def _coarser(images: Tensor, coarsest: int, generator: torch.Generator) -> Tensor:
    """Reduce the resolution of the second half of the batch, in eight groups with one resolution each."""
    sharp, *portions = images.tensor_split([len(images) // 2 + i * len(images) // 16 for i in range(8)])
    pixels = torch.randint(coarsest, SIZE, (len(portions),), generator=generator).tolist()
    blurred = [
        F.interpolate(F.interpolate(part, (n, n), mode="bilinear", antialias=True), (SIZE, SIZE), mode="bilinear")
        for part, n in zip(portions, pixels, strict=True)
        if len(part)
    ]
    return torch.cat([sharp, *blurred])
