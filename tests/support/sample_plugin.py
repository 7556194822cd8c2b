"""A plugin with a component of each kind."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from steindreamer.distill import (
    ControlVariateConfig,
    GeometryBuffers,
    NoiseLevel,
    SSDConfig,
    register_control_variate,
    register_method,
)
from steindreamer.pipelines import register_prior
from steindreamer.representations import GaussiansConfig, register_representation
from steindreamer.world.prior import WorldPriorConfig


@dataclass
class DotsConfig(GaussiansConfig):
    """Few Gaussians."""

    count: int = 40


@dataclass
class CalmConfig(SSDConfig):
    """SSD with other guidance, and a control variate of the plugin's."""

    guidance_scale: float = 2.0
    control_variates: ControlVariateConfig = field(
        default_factory=lambda: ControlVariateConfig(["spectral", "brightness"])
    )


@dataclass
class LonelyConfig(WorldPriorConfig):
    """A world of one object."""

    objects: int = 1


register_representation("dots", DotsConfig)
register_method("calm", CalmConfig)
register_prior("lonely", LonelyConfig)


@register_control_variate("brightness")
def brightness(noisy: Tensor, level: NoiseLevel, geometry: GeometryBuffers) -> Tensor:
    return -1 - 0.1 * noisy.mean((1, 2, 3)).tanh()
