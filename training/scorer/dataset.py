"""What the scorer learns from: the estimator's views over any background, moved, blurred, tinted and noisy.

They share neither objects nor cameras nor half of their lights with the views that the prior learns from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from ..estimator.dataset import ViewCache
from ..world import Caption
from .model import SIZE


@dataclass(frozen=True)
class Augmentation:
    """Ranges of what is done to the pictures; each is drawn for every picture on its own."""

    size: tuple[float, float] = (0.65, 1.2)
    """Of the object, in units of its stored size: other distances and fields of view."""
    shift: float = 0.08
    """Of the picture's side, in any direction."""
    roll: float = 8.0
    """Degrees, either way."""
    tint: float = 0.08
    """Relative gain per channel, either way."""
    brightness: tuple[float, float] = (0.8, 1.1)
    haze: float = 0.25
    """Largest share of the background that shines through, for a quarter of the pictures."""
    coarsest: int = 20
    """Half of the pictures come from fewer pixels per side, down to this."""
    noise: float = 0.08
    """Largest standard deviation per pixel, for half of the pictures."""
    blotches: float = 0.1
    """The same for spots about six pixels wide."""


@dataclass(frozen=True)
class LabelledViews:
    """Views in a cache with the index of what they show in a list of captions."""

    cache: ViewCache
    captions: Sequence[Caption]

    @cached_property
    def labels(self) -> Int64[Tensor, " n"]:
        """Raises ValueError if a view shows something that is not in the list."""
        index = {caption: i for i, caption in enumerate(self.captions)}
        each = self.cache.settings["views_per_object"]
        shown = [self.cache.caption(row) for row in range(0, len(self.cache), each)]
        unknown = sorted({caption.text for caption in shown if caption not in index})
        if unknown:
            raise ValueError(f"{self.cache.folder} shows {', '.join(unknown)}, which the scorer cannot name")
        return torch.tensor([index[caption] for caption in shown]).repeat_interleave(each)

    def draw(
        self, size: int, augmentation: Augmentation, generator: torch.Generator
    ) -> tuple[Float[Tensor, "b 3 h w"], Int64[Tensor, " b"]]:
        """`size` pictures of SIZE pixels, sRGB in about [0, 1], and their labels."""
        rows = torch.randint(len(self.cache), (size,), generator=generator)
        foreground = torch.from_numpy(self.cache.foreground[rows.numpy()]).float() / 255
        return augmented(foreground, augmentation, generator), self.labels[rows]


def augmented(
    foreground: Float[Tensor, "b 4 s s"], augmentation: Augmentation, generator: torch.Generator
) -> Float[Tensor, "b 3 h w"]:
    """`foreground` is sRGB pre-multiplied by opacity, then opacity; s is a multiple of SIZE."""
    count = len(foreground)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(count, *shape, generator=generator)

    def some(share: float) -> Tensor:
        return (torch.rand(count, 1, 1, 1, generator=generator) < share).float()

    moved = _moved(F.avg_pool2d(foreground, foreground.shape[-1] // SIZE), augmentation, uniform)
    colour, opacity = moved.split([3, 1], 1)
    gain = uniform(*augmentation.brightness, 1, 1, 1) * (1 + uniform(-augmentation.tint, augmentation.tint, 3, 1, 1))
    solid = 1 - some(0.25) * uniform(0.0, augmentation.haze, 1, 1, 1)
    picture = solid * gain * colour + (1 - solid * opacity) * _backgrounds(count, generator)
    blotches = F.interpolate(torch.randn(count, 3, 10, 10, generator=generator), (SIZE, SIZE), mode="bilinear")
    picture = picture + some(0.5) * uniform(0.0, augmentation.blotches, 1, 1, 1) * blotches
    picture = _coarser(picture, augmentation.coarsest, generator)
    noise = torch.randn(picture.shape, generator=generator)
    return (picture + some(0.5) * uniform(0.0, augmentation.noise, 1, 1, 1) * noise).clamp(0, 1)


def _moved(views: Tensor, augmentation: Augmentation, uniform: Callable[..., Tensor]) -> Tensor:
    """Mirrored, rolled, scaled and shifted; what comes in from outside is empty."""
    mirror = uniform(-1.0, 1.0).sign()
    scale = 1 / uniform(*augmentation.size)
    angle = uniform(-augmentation.roll, augmentation.roll) * math.pi / 180
    shift = 2 * uniform(-augmentation.shift, augmentation.shift, 2)
    across = torch.stack([mirror * scale * angle.cos(), -scale * angle.sin(), shift[:, 0]], 1)
    down = torch.stack([mirror * scale * angle.sin(), scale * angle.cos(), shift[:, 1]], 1)
    grid = F.affine_grid(torch.stack([across, down], 1), list(views.shape), align_corners=False)
    return F.grid_sample(views, grid, align_corners=False)


def _backgrounds(count: int, generator: torch.Generator) -> Float[Tensor, "b 3 1 1"]:
    """40 % white, 20 % grey, else any colour."""
    colours = torch.rand(count, 3, generator=generator)
    chosen = torch.rand(count, 1, generator=generator)
    colours = torch.where(chosen < 0.6, colours[:, :1], colours)
    return torch.where(chosen < 0.4, 1.0, colours)[:, :, None, None]


def _coarser(pictures: Tensor, coarsest: int, generator: torch.Generator) -> Tensor:
    """The second half of the batch, in eight portions of one number of pixels each."""
    sharp, *portions = pictures.tensor_split([len(pictures) // 2 + i * len(pictures) // 16 for i in range(8)])
    pixels = torch.randint(coarsest, SIZE, (len(portions),), generator=generator).tolist()
    blurred = [
        F.interpolate(F.interpolate(part, (n, n), mode="bilinear", antialias=True), (SIZE, SIZE), mode="bilinear")
        for part, n in zip(portions, pixels, strict=True)
        if len(part)
    ]
    return torch.cat([sharp, *blurred])
