"""Random light on rendered albedo and normals, from flat to harsh."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

_GAMMA = 2.2
"""Exponent of display values. With a pure power law, scaling light scales display values, even pre-multiplied ones."""
_GLOSS_EXPONENT = 24.0


@dataclass(frozen=True)
class Lighting:
    """Fractions of the images without light or color, and ranges of the lights; the factors are of linear light."""

    unlit: float = 0.2
    """Fraction of the images that show the albedo."""
    gray: float = 0.3
    """Fraction of the images that show a gray object."""
    darkest: tuple[float, float] = (0.1, 0.75)
    """Factor for a surface that faces down and away from the light."""
    brightest: tuple[float, float] = (0.95, 1.35)
    """Factor for a surface that faces both sky and light."""
    sky: tuple[float, float] = (0.1, 0.6)
    """Fraction of the difference between the two that the sky contributes."""
    gloss: float = 0.25
    """Maximum display value of the highlight, for half of the images."""
    bumps: float = 0.3
    """Maximum standard deviation of the noise of the normals, in spots about four pixels wide, for half of the images.

    Distilled surfaces are uneven.
    """
    gray_values: tuple[float, float] = (0.4, 0.95)
    """Display values of gray objects."""

    def brightness_of_gray(self, count: int, generator: torch.Generator) -> Float[Tensor, "b 1 1 1"]:
        """Draw the display values of gray objects."""
        return _uniform(self.gray_values, count, generator)[:, None, None, None]


@dataclass(frozen=True)
class Lights:
    """A sky hemisphere, a key light and a highlight for each image, in the space of its normals."""

    key: Float[Tensor, "b 3"]
    """Unit vectors toward the key light."""
    up: Float[Tensor, "b 3"]
    """Unit vectors toward the sky."""
    darkest: Float[Tensor, " b"]
    sky: Float[Tensor, " b"]
    """Linear factor added for a surface that faces the sky."""
    direct: Float[Tensor, " b"]
    """Linear factor added for a surface that faces the key light."""
    wrap: Float[Tensor, " b"]
    """0 for Lambert's law, 1 for half-Lambert, which has no terminator."""
    gloss: Float[Tensor, " b"]
    """Display value of the highlight; the viewer is in direction z, as in camera-space normal maps."""


def lit(
    color: Float[Tensor, "b 3 h w"],
    normal: Float[Tensor, "b 3 h w"],
    opacity: Float[Tensor, "b 1 h w"],
    lights: Lights,
) -> Float[Tensor, "b 3 h w"]:
    """Shade unlit display colors, pre-multiplied by opacity; returns values in [0, opacity].

    Args:
        color: Unlit color, pre-multiplied by opacity.
        normal: Normals of any length; 0 on the background.
        opacity: Opacity in [0, 1].
        lights: One light per image.
    """
    normal = normal * normal.square().sum(1, keepdim=True).clamp(min=1e-12).rsqrt()

    def cosine(direction: Tensor) -> Tensor:
        return torch.einsum("bchw,bc->bhw", normal, direction)[:, None]

    def each(values: Tensor) -> Tensor:
        return values[:, None, None, None]

    wrap = each(lights.wrap)
    direct = ((cosine(lights.key) + wrap) / (1 + wrap)).clamp(min=0)
    factor = each(lights.darkest) + each(lights.sky) * (0.5 + 0.5 * cosine(lights.up)) + each(lights.direct) * direct
    half = F.normalize(lights.key + lights.key.new_tensor([0.0, 0.0, 1.0]), dim=1)
    highlight = each(lights.gloss) * cosine(half).clamp(min=0) ** _GLOSS_EXPONENT
    return torch.minimum(color * factor ** (1 / _GAMMA) + highlight * opacity, opacity)


def uneven(
    normal: Float[Tensor, "b 3 h w"], lighting: Lighting, generator: torch.Generator
) -> Float[Tensor, "b 3 h w"]:
    """Add smooth noise to unit normals, which are 0 on the background and stay so."""
    amount = _uniform((-lighting.bumps, lighting.bumps), len(normal), generator).clamp(min=0)
    spots = torch.randn(len(normal), 3, 16, 16, generator=generator) * amount[:, None, None, None]
    solid = normal.square().sum(1, keepdim=True) > 0
    return normal + solid * F.interpolate(spots, normal.shape[-2:], mode="bilinear")


def random_lights(count: int, lighting: Lighting, generator: torch.Generator) -> Lights:
    """Draw lights for camera-space normals (y up, z toward the viewer); most are from above, some from behind."""
    key = torch.randn(count, 3, generator=generator)
    above = torch.rand(count, generator=generator) < 0.85
    key[:, 1] = torch.where(above, key[:, 1].abs(), key[:, 1])
    # The sky of a camera at an elevation between -15 and 60 degrees.
    elevation = _uniform((-15.0, 60.0), count, generator) * math.pi / 180
    up = torch.stack([torch.zeros(count), elevation.cos(), elevation.sin()], 1)
    darkest, brightest = (_uniform(limits, count, generator) for limits in (lighting.darkest, lighting.brightest))
    fraction = _uniform(lighting.sky, count, generator)
    wrap = torch.rand(count, generator=generator)
    gloss = _uniform((-lighting.gloss, lighting.gloss), count, generator).clamp(min=0)
    span = brightest - darkest
    return Lights(F.normalize(key, dim=1), up, darkest, fraction * span, (1 - fraction) * span, wrap, gloss)


def _uniform(limits: tuple[float, float], count: int, generator: torch.Generator) -> Float[Tensor, " b"]:
    return limits[0] + (limits[1] - limits[0]) * torch.rand(count, generator=generator)
