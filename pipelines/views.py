"""Random cameras and backgrounds of a training step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ..representations import Cameras
from .errors import UserError


@dataclass
class ViewsConfig:
    """Where training looks from. Angles in degrees, distances in metres."""

    per_step: int = 2
    """Views per step, their azimuths stratified over the circle."""
    elevation: list[float] = field(default_factory=lambda: [-15.0, 45.0])
    overhead_fraction: float = 0.2
    """Share of the views drawn from `overhead` instead, so that the top is seen too."""
    overhead: list[float] = field(default_factory=lambda: [45.0, 85.0])
    below_fraction: float = 0.0
    """Share of the views drawn from `below`."""
    below: list[float] = field(default_factory=lambda: [-60.0, -15.0])
    distance: list[float] = field(default_factory=lambda: [3.1, 3.3])
    field_of_view: list[float] = field(default_factory=lambda: [40.0, 40.0])
    random_background: float = 0.5
    """Probability of a random colour; otherwise white."""

    def validate(self) -> None:
        if self.per_step < 1:
            raise UserError(f"stage.views.per_step is {self.per_step}; at least 1 is accepted")
        for name in ("elevation", "overhead", "below", "distance", "field_of_view"):
            bounds = getattr(self, name)
            if len(bounds) != 2 or bounds[0] > bounds[1]:
                raise UserError(f"stage.views.{name} is {list(bounds)}; give [smallest, largest]")
        if self.distance[0] <= 1.0:
            raise UserError(
                f"stage.views.distance starts at {self.distance[0]}; cameras must stay outside the unit ball"
            )
        if not 0 < self.field_of_view[0] <= self.field_of_view[1] < 180:
            raise UserError(
                f"stage.views.field_of_view is {self.field_of_view}; degrees between 0 and 180 are accepted"
            )
        for name in ("overhead_fraction", "below_fraction", "random_background"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"stage.views.{name} is {getattr(self, name)}; a share between 0 and 1 is accepted")
        if self.overhead_fraction + self.below_fraction > 1:
            raise UserError(
                "stage.views.overhead_fraction and below_fraction are shares of one whole; lower one of them"
            )


def sample_views(
    config: ViewsConfig, resolution: int, generator: torch.Generator
) -> tuple[Cameras, Float[Tensor, "b 3"]]:
    """Draw a step's cameras and one background colour per camera."""
    count = config.per_step

    def uniform(bounds: list[float]) -> Float[Tensor, " b"]:
        return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(count, generator=generator)

    azimuth = (torch.rand(1, generator=generator) + torch.arange(count) / count) * 360.0
    band = torch.rand(count, generator=generator)
    elevation = uniform(config.elevation)
    elevation = torch.where(band < config.overhead_fraction, uniform(config.overhead), elevation)
    elevation = torch.where(band > 1 - config.below_fraction, uniform(config.below), elevation)
    cameras = Cameras.orbit(
        azimuth,
        elevation,
        distance=uniform(config.distance),
        field_of_view=uniform(config.field_of_view),
        height=resolution,
    )
    random_colour = torch.rand(count, 3, generator=generator)
    is_random = torch.rand(count, 1, generator=generator) < config.random_background
    return cameras, torch.where(is_random, random_colour, torch.ones_like(random_colour))
