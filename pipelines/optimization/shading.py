"""Deferred shading of rendered images, so that colors alone cannot imitate a shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor

from steindreamer.distill.ranks import ALONE, Ranks
from steindreamer.representations import Cameras, RenderOutput


@dataclass
class ShadingConfig:
    """Random shading during training (DreamFusion [Poole et al. 2022], section 3.1). Numbers without another source are
    those of threestudio's DreamFusion configuration.
    """

    enabled: bool = False
    begin: Annotated[float, Interval(ge=0, le=1)] = 0.2
    """Fraction of the stage before which colors are not shaded (2000 of 10000 steps)."""
    shaded: Annotated[float, Interval(ge=0, le=1)] = 0.75
    """Probability that a view is shaded, after `begin`."""
    textureless: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Probability that a shaded view shows white instead of its colors."""
    ambient: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Ambient light, as a factor on the colors (DreamFusion)."""
    diffuse: Annotated[float, Interval(ge=0, le=1)] = 0.9
    """Diffuse light of the lamp, as a factor on the colors at normal incidence."""
    soft: bool = False
    """Whether `diffuse` is drawn uniformly from [0, 1] for every view, and `ambient` is the rest (Magic3D [Lin et al.
    2023])."""
    light_jitter: Annotated[float, Interval(ge=0, le=10)] = 0.8
    """Standard deviation of the normal noise that is added to the camera's position, per axis, in camera distances; the
    lamp is in the resulting direction. DreamFusion: 1 meter, for cameras at 1.25 on average."""
    light_distance: list[Annotated[float, Interval(gt=0, le=100)]] = field(default_factory=lambda: [0.64, 1.2])
    """Range of the lamp's distance from the center, in camera distances. DreamFusion: 0.8 to 1.5 meters, for cameras at
    1.25 on average."""

    def __post_init__(self) -> None:
        if self.ambient + self.diffuse > 1 + 1e-6:
            raise ValueError("ambient and diffuse add up to more than 1, which overexposes; lower one of them")
        bounds = self.light_distance
        if len(bounds) != 2 or not bounds[0] <= bounds[1]:
            raise ValueError(f"light_distance is {list(bounds)}; give [smallest, largest]")


def shade(
    output: RenderOutput,
    cameras: Cameras,
    background: Float[Tensor, "b 3"] | None,
    config: ShadingConfig,
    progress: float,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
) -> Float[Tensor, "b 3 h w"]:
    """Render the shaded views in display sRGB in [0, 1] under a random lamp, over the same background.

    Each view is randomly left unshaded, multiplied by ambient + diffuse * max(0, normal . light), or white times that
    factor. The result is differentiable in colors, opacity and normals. The surface positions are treated as constants,
    because the light direction hardly depends on them.

    Args:
        output: the rendered views.
        cameras: their cameras.
        background: background color per view over which `output.rgb` was composited; None for black.
        config: the settings of the shading.
        progress: fraction of the stage that is done, in [0, 1].
        generator: source of the random numbers; not advanced if nothing is shaded.
        ranks: the processes that share the views of a step; these are the views of this process.
    """
    if not config.enabled or progress < config.begin:
        return output.rgb
    count, device = len(cameras) * ranks.count, output.rgb.device

    def uniform() -> Float[Tensor, "b 1 1 1"]:
        return ranks.own(torch.rand(count, 1, 1, 1, generator=generator)).to(device)

    lamp = _lamp(cameras, config, generator, ranks)
    is_shaded, is_white, mix = uniform() < config.shaded, uniform() < config.textureless, uniform()
    ambient, diffuse = (1 - mix, mix) if config.soft else (config.ambient, config.diffuse)

    toward = F.normalize(lamp[:, :, None, None] - cameras.unproject(output.depth.detach()), dim=1)
    light = ambient + diffuse * (output.normal * toward).sum(1, keepdim=True).clamp(min=0)
    behind = torch.zeros_like(output.rgb) if background is None else background[:, :, None, None]
    behind = (1 - output.opacity) * behind
    albedo = torch.where(is_white, output.opacity, output.rgb - behind)
    return torch.where(is_shaded, albedo * light + behind, output.rgb)


def _lamp(cameras: Cameras, config: ShadingConfig, generator: torch.Generator, ranks: Ranks) -> Float[Tensor, "b 3"]:
    """Random world position of the lamp, per view."""
    low, high = config.light_distance
    count = len(cameras) * ranks.count
    noise = ranks.own(torch.randn(count, 3, generator=generator)).to(cameras.position)
    distance = low + (high - low) * ranks.own(torch.rand(count, 1, generator=generator)).to(cameras.position)
    unit = cameras.position.norm(dim=1, keepdim=True)
    return F.normalize(cameras.position + config.light_jitter * unit * noise, dim=1) * unit * distance
