"""Deferred shading: light on what any representation drew, so that a shape cannot be faked by colours alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor

from ..representations import Cameras, RenderOutput
from .errors import SettingsError
from .ranges import check_ranges


@dataclass
class ShadingConfig:
    """Random shading during training (DreamFusion [Poole et al. 2022], section 3.1). Numbers without another source are
    those of threestudio's DreamFusion configuration."""

    enabled: bool = False
    begin: Annotated[float, Interval(ge=0, le=1)] = 0.2
    """Share of the stage before which colours are shown as they are (2000 of 10000 steps)."""
    shaded: Annotated[float, Interval(ge=0, le=1)] = 0.75
    """Probability, after that, that a view is shaded at all."""
    textureless: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Probability that a shaded view shows white instead of its colours."""
    ambient: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Light from everywhere, as a factor on the colours (DreamFusion);"""
    diffuse: Annotated[float, Interval(ge=0, le=1)] = 0.9
    """and from the lamp onto what faces it."""
    soft: bool = False
    """Draw `diffuse` uniformly from [0, 1] for every view, `ambient` being the rest (Magic3D [Lin et al. 2023])."""
    light_jitter: Annotated[float, Interval(ge=0, le=10)] = 0.8
    """The lamp stands in the direction of the camera's position plus this many camera distances of normal noise, per
    axis;"""
    light_distance: list[Annotated[float, Interval(gt=0, le=100)]] = field(default_factory=lambda: [0.64, 1.2])
    """and this far from the centre, in camera distances. DreamFusion: noise 1 and 0.8 to 1.5 metres, for cameras at
    1.25 on average."""

    def validate(self, name: str = "shading") -> None:
        """Raises SettingsError, with the key under `name`, for values that mean nothing."""
        check_ranges(self, f"{name}.")
        if self.ambient + self.diffuse > 1 + 1e-6:
            raise SettingsError(
                f"{name}.ambient and diffuse add up to more than 1, which overexposes; lower one of them"
            )
        bounds = self.light_distance
        if len(bounds) != 2 or not bounds[0] <= bounds[1]:
            raise SettingsError(f"{name}.light_distance is {list(bounds)}; give [smallest, largest]")


def shade(
    output: RenderOutput,
    cameras: Cameras,
    background: Float[Tensor, "b 3"] | None,
    config: ShadingConfig,
    progress: float,
    generator: torch.Generator,
) -> Float[Tensor, "b 3 h w"]:
    """Display sRGB in [0, 1] under a random lamp, over the same background.

    Each view is, as drawn: as it is, or times ambient + diffuse * max(0, normal . light), or white times that. Colours,
    opacity and normals are differentiable in it; where the surface stands is taken as it is, since the light's
    direction hardly depends on it.

    Args:
        background: what `output.rgb` was composited over, one colour per view; None for black.
        progress: share of the stage that is done.
        generator: drawn from only if there is something to shade.
    """
    if not config.enabled or progress < config.begin:
        return output.rgb
    count, device = len(cameras), output.rgb.device

    def uniform() -> Float[Tensor, "b 1 1 1"]:
        return torch.rand(count, 1, 1, 1, generator=generator).to(device)

    lamp = _lamp(cameras, config, generator)
    is_shaded, is_white, mix = uniform() < config.shaded, uniform() < config.textureless, uniform()
    ambient, diffuse = (1 - mix, mix) if config.soft else (config.ambient, config.diffuse)

    towards = F.normalize(lamp[:, :, None, None] - cameras.unproject(output.depth.detach()), dim=1)
    light = ambient + diffuse * (output.normal * towards).sum(1, keepdim=True).clamp(min=0)
    behind = torch.zeros_like(output.rgb) if background is None else background[:, :, None, None]
    behind = (1 - output.opacity) * behind
    albedo = torch.where(is_white, output.opacity, output.rgb - behind)
    return torch.where(is_shaded, albedo * light + behind, output.rgb)


def _lamp(cameras: Cameras, config: ShadingConfig, generator: torch.Generator) -> Float[Tensor, "b 3"]:
    """A world position per view."""
    low, high = config.light_distance
    noise = torch.randn(len(cameras), 3, generator=generator).to(cameras.position)
    distance = low + (high - low) * torch.rand(len(cameras), 1, generator=generator).to(cameras.position)
    unit = cameras.position.norm(dim=1, keepdim=True)
    return F.normalize(cameras.position + config.light_jitter * unit * noise, dim=1) * unit * distance
