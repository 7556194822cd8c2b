"""Images under light: a key light that moves with the camera, on the base color or on gray clay."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from steindreamer.representations import Cameras, RenderOutput

CLAY = 0.75
"""Display value of clay (sRGB)."""
KEY = (-0.5, -0.7, -0.6)
"""Direction toward the key light in camera space (x right, y down, z forward): from the upper left front. It moves with
the camera, so that no view shows only the dark side."""
DIRECT, AMBIENT = 0.9, 0.2
"""Linear factors of a surface that faces the key light, and of every surface."""


def toward_key_light(cameras: Cameras) -> Float[Tensor, "b 3"]:
    """World-space directions toward the key light of each camera; not of unit length."""
    return cameras.camera_to_world[:, :3, :3] @ torch.tensor(KEY).to(cameras.camera_to_world)


def shaded(
    base: Float[Tensor, "b 3 h w"], normal: Float[Tensor, "b 3 h w"], toward_light: Float[Tensor, "b 3"]
) -> Float[Tensor, "b 3 h w"]:
    """Light an sRGB base color with a key light (Lambert's law) and ambient light, in linear space; returns sRGB.

    Args:
        base: Base color in [0, 1].
        normal: Unit normals.
        toward_light: Direction toward the key light, of any length, in the space of the normals.
    """
    cosine = torch.einsum("bchw,bc->bhw", normal, F.normalize(toward_light, dim=1))[:, None].clamp(min=0)
    linear = torch.where(base <= 0.04045, base / 12.92, ((base + 0.055) / 1.055) ** 2.4)
    light = (linear * (AMBIENT + DIRECT * cosine)).clamp(max=1)
    return torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light.clamp(min=1e-8) ** (1 / 2.4) - 0.055)


def clay(output: RenderOutput, cameras: Cameras) -> Float[Tensor, "b 3 h w"]:
    """A render as gray clay under the key light, on white."""
    gray = torch.full_like(output.rgb, CLAY)
    color = shaded(gray, F.normalize(output.normal, dim=1), toward_key_light(cameras))
    return color * output.opacity + 1 - output.opacity


def lit(output: RenderOutput, cameras: Cameras) -> Float[Tensor, "b 3 h w"]:
    """A render on white under the key light."""
    return lit_color(output, cameras) * output.opacity + 1 - output.opacity


def lit_color(output: RenderOutput, cameras: Cameras) -> Float[Tensor, "b 3 h w"]:
    """The color of a render on white under the key light, without the background; valid where its opacity is not 0."""
    base = ((output.rgb - (1 - output.opacity)) / output.opacity.clamp(min=1e-3)).clamp(0, 1)
    return shaded(base, F.normalize(output.normal, dim=1), toward_key_light(cameras))
