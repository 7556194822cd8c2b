"""Random cameras and backgrounds of a training step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor

from ..representations import Cameras
from .errors import SettingsError
from .ranges import check_ranges

LOOKS = ("centre", "outwards", "around")
AZIMUTHS = ("stratified", "antipodal", "independent")


@dataclass
class ViewsConfig:
    """Where training looks from. Angles in degrees, distances in metres."""

    per_step: Annotated[int, Interval(ge=1, le=1024)] = 2
    """Views per step."""
    azimuths: Annotated[str, AZIMUTHS] = "stratified"
    """Of a step's views. `stratified`: evenly over the circle from a random one on; `antipodal`: so too, and those that
    are opposite share elevation, distance and field of view; `independent`."""
    elevation: list[Annotated[float, Interval(ge=-90, le=90)]] = field(default_factory=lambda: [-15.0, 45.0])
    overhead_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.2
    """Share of the views drawn from `overhead` instead, so that the top is seen too."""
    overhead: list[Annotated[float, Interval(ge=-90, le=90)]] = field(default_factory=lambda: [45.0, 85.0])
    below_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Share of the views drawn from `below`."""
    below: list[Annotated[float, Interval(ge=-90, le=90)]] = field(default_factory=lambda: [-60.0, -15.0])
    distance: list[Annotated[float, Interval(gt=0, le=1000)]] = field(default_factory=lambda: [3.1, 3.3])
    """From the centre of the world to the camera."""
    field_of_view: list[Annotated[float, Interval(gt=0, lt=180)]] = field(default_factory=lambda: [40.0, 40.0])
    widen_until: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Share of the stage during which the azimuths widen from the front to the whole circle (threestudio's progressive
    views); 0: the whole circle from the start."""
    inside: bool = False
    """A scene around the cameras: they may stand at any distance above 0."""
    look: Annotated[str, LOOKS] = "centre"
    """`centre`: at the middle of the world. Inside also `outwards`, away from it, and `around`, standing in any
    direction from it. The angles above are those of looking: elevation 30 looks down by 30 degrees in each of them."""
    camera_perturb: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Standard deviation of what is added to the camera's position, metres (threestudio: 0.1);"""
    centre_perturb: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """to the point looked at, metres (0.2): the middle of the world, or else a point a metre ahead, where 0.2 turns the
    view by some 11 degrees to each side;"""
    up_perturb: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """and to the unit vector that is upwards in the picture (0.02)."""
    random_background: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Probability of a random colour; otherwise white."""

    def validate(self, name: str = "views") -> None:
        """Raises SettingsError, with the key under `name`, for what cannot be drawn."""
        check_ranges(self, f"{name}.")
        for key in ("elevation", "overhead", "below", "distance", "field_of_view"):
            bounds = getattr(self, key)
            if len(bounds) != 2 or not bounds[0] <= bounds[1]:
                raise SettingsError(f"{name}.{key} is {list(bounds)}; give [smallest, largest]")
        if not self.inside and not self.distance[0] > 1:
            raise SettingsError(
                f"{name}.distance starts at {self.distance[0]}; cameras must stay outside the unit ball, unless "
                f"{name}.inside is true"
            )
        if self.overhead_fraction + self.below_fraction > 1:
            raise SettingsError(
                f"{name}.overhead_fraction and below_fraction are shares of one whole; lower one of them"
            )
        if self.azimuths == "antipodal" and self.per_step % 2:
            raise SettingsError(f"{name}.azimuths=antipodal pairs views; {name}.per_step is {self.per_step}, not even")
        if self.look != "centre" and not self.inside:
            raise SettingsError(
                f"{name}.look is '{self.look}', which sees nothing from outside; set {name}.inside=true too"
            )


def sample_views(
    config: ViewsConfig, resolution: int, generator: torch.Generator, progress: float = 1.0
) -> tuple[Cameras, Float[Tensor, "b 3"]]:
    """Draw a step's cameras and one background colour per camera, after a share `progress` of the stage."""
    count = config.per_step

    def uniform(bounds: list[float]) -> Float[Tensor, " b"]:
        return bounds[0] + (bounds[1] - bounds[0]) * torch.rand(count, generator=generator)

    strata = count if config.azimuths == "independent" else 1
    azimuth = (torch.rand(strata, generator=generator) + torch.arange(count) / count) * 360.0
    if progress < config.widen_until:
        azimuth = ((azimuth + 180) % 360 - 180) * (progress / config.widen_until)
    band = torch.rand(count, generator=generator)
    elevation = uniform(config.elevation)
    elevation = torch.where(band < config.overhead_fraction, uniform(config.overhead), elevation)
    elevation = torch.where(band > 1 - config.below_fraction, uniform(config.below), elevation)
    distance, field_of_view = uniform(config.distance), uniform(config.field_of_view)
    if config.azimuths == "antipodal":  # the azimuths are so already
        pair = torch.arange(count) % ((count + 1) // 2)
        elevation, distance, field_of_view = elevation[pair], distance[pair], field_of_view[pair]
    cameras = Cameras.orbit(azimuth, elevation, distance=distance, field_of_view=field_of_view, height=resolution)
    random_colour = torch.rand(count, 3, generator=generator)
    is_random = torch.rand(count, 1, generator=generator) < config.random_background
    background = torch.where(is_random, random_colour, torch.ones_like(random_colour))
    # Drawn last, so that a seed's other views and colours do not depend on it.
    if config.look != "centre" or config.camera_perturb or config.centre_perturb or config.up_perturb:
        cameras = _moved(cameras, config, field_of_view, generator)
    return cameras, background


def _moved(
    orbit: Cameras, config: ViewsConfig, field_of_view: Float[Tensor, " b"], generator: torch.Generator
) -> Cameras:
    """The orbit cameras, placed for `look` and perturbed."""

    def normal() -> Float[Tensor, "b 3"]:
        return torch.randn(len(orbit), 3, generator=generator)

    eye = orbit.position
    if config.look == "outwards":
        eye = -eye
    elif config.look == "around":
        eye = F.normalize(normal(), dim=1) * eye.norm(dim=1, keepdim=True)
    eye = eye + config.camera_perturb * normal()
    if not config.inside:  # a normal distribution has no bounds, but the unit ball is the object's
        eye = eye * eye.norm(dim=1, keepdim=True).reciprocal().clamp(min=1)
    target = torch.zeros_like(eye) if config.look == "centre" else eye + orbit.forward
    # The orbit camera's own up, not the world's: perturbing a view from straight above then turns it a little only.
    up = -orbit.camera_to_world[:, :3, 1]
    return Cameras.look_at(
        eye,
        target + config.centre_perturb * normal(),
        up + config.up_perturb * normal(),
        field_of_view=field_of_view,
        height=orbit.height,
    )
