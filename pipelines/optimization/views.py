"""Random cameras and backgrounds of a training step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor

from steindreamer.representations import Cameras


@dataclass
class ViewsConfig:
    """Distribution of the training cameras. Angles in degrees, distances in meters."""

    per_step: Annotated[int, Interval(ge=1, le=1024)] = 2
    """Number of views per step."""
    azimuths: Literal["stratified", "antipodal", "independent"] = "stratified"
    """Sampling of the azimuths of a step. `stratified`: evenly spaced on the circle with a random offset; `antipodal`:
    likewise, and opposite views share elevation, distance and field of view; `independent`: each drawn on its own."""
    elevation: list[Annotated[float, Interval(ge=-90, le=90)]] = field(default_factory=lambda: [-15.0, 45.0])
    overhead_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.2
    """Fraction of the views drawn from `overhead` instead, so that the top is trained too."""
    overhead: list[Annotated[float, Interval(ge=-90, le=90)]] = field(default_factory=lambda: [45.0, 85.0])
    below_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Fraction of the views drawn from `below`."""
    below: list[Annotated[float, Interval(ge=-90, le=90)]] = field(default_factory=lambda: [-60.0, -15.0])
    distance: list[Annotated[float, Interval(gt=0, le=1000)]] = field(default_factory=lambda: [3.1, 3.3])
    """Range of the distance from the center of the world to the camera."""
    field_of_view: list[Annotated[float, Interval(gt=0, lt=180)]] = field(default_factory=lambda: [40.0, 40.0])
    widen_until: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Fraction of the stage during which the range of azimuths widens from the front to the full circle (threestudio's
    progressive views); 0: the full circle from the start."""
    inside: bool = False
    """Whether the scene surrounds the cameras, which may then be at any distance above 0."""
    look: Literal["center", "outward", "around"] = "center"
    """Direction in which the cameras look. `center`: at the center of the world. With `inside` also `outward`, away
    from it, and `around`, with the camera in any direction from it. The angles above are those of looking: elevation 30
    looks down by 30 degrees in each mode."""
    camera_perturb: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Standard deviation of the noise added to the camera's position, in meters (threestudio: 0.1)."""
    center_perturb: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Standard deviation of the noise added to the point that the camera looks at, in meters (threestudio: 0.2). That
    point is the center of the world, or else a point one meter ahead, where 0.2 rotates the view by about 11
    degrees."""
    up_perturb: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Standard deviation of the noise added to the unit vector that is upward in the image (threestudio: 0.02)."""
    random_background: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Probability of a random background color; otherwise it is white."""
    crop_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Fraction of the views that show only a part of the image, enlarged to all of its pixels, for details that are
    small at the prior's resolution. The prior must be exact, or trained on such parts."""
    crop_size: list[Annotated[float, Interval(ge=0.1, le=1)]] = field(default_factory=lambda: [0.5, 0.5])
    """Range of the side of these parts, as a fraction of the image's side."""
    crop_after: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Fraction of the stage before which all views show the whole image. High noise levels determine the layout, for
    which the prior has to see all of it."""

    def __post_init__(self) -> None:
        for key in ("elevation", "overhead", "below", "distance", "field_of_view", "crop_size"):
            bounds = getattr(self, key)
            if len(bounds) != 2 or not bounds[0] <= bounds[1]:
                raise ValueError(f"{key} is {list(bounds)}; give [smallest, largest]")
        if not self.inside and not self.distance[0] > 1:
            raise ValueError(
                f"distance starts at {self.distance[0]}; cameras must stay outside the unit ball, unless inside is true"
            )
        if self.overhead_fraction + self.below_fraction > 1:
            raise ValueError("overhead_fraction and below_fraction are fractions of one whole; lower one of them")
        if self.azimuths == "antipodal" and self.per_step % 2:
            raise ValueError(f"azimuths=antipodal pairs views; per_step is {self.per_step}, not even")
        if self.look != "center" and not self.inside:
            raise ValueError(f"look is '{self.look}', which sees nothing from outside; set inside=true too")


def sample_views(
    config: ViewsConfig, resolution: int, generator: torch.Generator, progress: float = 1.0
) -> tuple[Cameras, Float[Tensor, "b 3"]]:
    """Draw a step's cameras and one background color per camera, at the fraction `progress` of the stage."""
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
    if config.azimuths == "antipodal":  # the azimuths are opposite already
        pair = torch.arange(count) % ((count + 1) // 2)
        elevation, distance, field_of_view = elevation[pair], distance[pair], field_of_view[pair]
    cameras = Cameras.orbit(azimuth, elevation, distance=distance, field_of_view=field_of_view, height=resolution)
    random_color = torch.rand(count, 3, generator=generator)
    is_random = torch.rand(count, 1, generator=generator) < config.random_background
    background = torch.where(is_random, random_color, torch.ones_like(random_color))
    # Drawn last, so that the other views and colors of a seed do not depend on it.
    if config.look != "center" or config.camera_perturb or config.center_perturb or config.up_perturb:
        cameras = _moved(cameras, config, field_of_view, generator)
    if config.crop_fraction and progress >= config.crop_after:
        size = torch.where(torch.rand(count, generator=generator) < config.crop_fraction, uniform(config.crop_size), 1)
        cameras = random_crops(cameras, size, generator)
    return cameras, background


def random_crops(cameras: Cameras, size: Float[Tensor, " b"], generator: torch.Generator) -> Cameras:
    """Parts of the images at random places, enlarged to all pixels.

    Args:
        cameras: The cameras.
        size: Side of each part as a fraction of the image's side, in (0, 1].
        generator: Source of the places, which are uniform.
    """
    left, top = ((1 - size) * torch.rand(len(cameras), generator=generator) for _ in range(2))
    return cameras.cropped(left, top, size)


def _moved(
    orbit: Cameras, config: ViewsConfig, field_of_view: Float[Tensor, " b"], generator: torch.Generator
) -> Cameras:
    """The orbit cameras, oriented according to `look` and perturbed."""

    def normal() -> Float[Tensor, "b 3"]:
        return torch.randn(len(orbit), 3, generator=generator)

    eye = orbit.position
    if config.look == "outward":
        eye = -eye
    elif config.look == "around":
        eye = F.normalize(normal(), dim=1) * eye.norm(dim=1, keepdim=True)
    eye = eye + config.camera_perturb * normal()
    if not config.inside:  # a normal distribution is unbounded, but the unit ball belongs to the object
        eye = eye * eye.norm(dim=1, keepdim=True).reciprocal().clamp(min=1)
    target = torch.zeros_like(eye) if config.look == "center" else eye + orbit.forward
    # The orbit camera's own up vector, not the world's: a view from straight above is then rotated only a little.
    up = -orbit.camera_to_world[:, :3, 1]
    return Cameras.look_at(
        eye,
        target + config.center_perturb * normal(),
        up + config.up_perturb * normal(),
        field_of_view=field_of_view,
        height=orbit.height,
    )
