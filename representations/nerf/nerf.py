"""A neural radiance field [Mildenhall et al. 2020] on a feature grid, rendered by ray marching."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

import torch
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..base import AdaptReport, FieldSample, RenderOutput, Representation, SceneContext
from ..cameras import Cameras
from ..fields import RadianceField, RadianceFieldConfig
from .surface_fit import fit_radiance
from .volume import (
    OccupancyConfig,
    OccupancyGrid,
    accumulate,
    distortion,
    march,
    orientation,
    per_opacity,
    ray_weights,
    reached,
    variance,
)

_RAYS_AT_ONCE = 2**14
_POINTS_AT_ONCE = 2**17
_SOLID = 0.5
"""Minimum opacity of a pixel that counts as solid."""
_COLUMNS = {"rgb": 3, "opacity": 1, "depth": 1, "normal": 3, "orientation": 1, "z_variance": 1, "distortion": 1}
"""Names and widths of the quantities computed per ray."""


@dataclass
class NerfConfig:
    """Neural radiance field in a box: extent, ray marching and coarse-to-fine training.

    For a scene with the cameras inside, set a box that contains the scene, and a negative `radiance.blob.bias`.
    """

    bound: Annotated[float, Interval(gt=0, le=1000)] = 1.0
    """Half the side of the box around the origin, in meters; the density is 0 outside."""
    near: Annotated[float, Interval(ge=0, le=1000)] = 0.05
    """Near plane: distance in meters from the camera at which rays start."""
    samples: Annotated[int, Interval(ge=1, le=4096)] = 128
    """Number of steps along the diagonal of the box; it determines the step length of all rays."""
    early_stop: Annotated[float, Interval(ge=0, lt=1)] = 1e-3
    """Samples at which the transmittance is below this are skipped."""
    start_levels: Annotated[int, Interval(ge=0, le=32)] = 0
    """Number of active levels of the hash grid at the start of coarse-to-fine training; 0: all levels."""
    all_levels_at: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Fraction of the stage after which all levels are active."""
    radiance: RadianceFieldConfig = field(default_factory=RadianceFieldConfig)
    """Settings of the radiance field."""
    occupancy: OccupancyConfig = field(default_factory=OccupancyConfig)
    """Settings of the occupancy grid."""

    def build(self, generator: torch.Generator, device: torch.device | str = "cpu") -> Nerf:
        """Create the scene with parameters initialized from `generator`. Raises ValueError for a setting out of range.

        Example:
            >>> scene = NerfConfig().build(torch.Generator().manual_seed(0))
        """
        return Nerf(self, generator).to(device)

    def from_scene(self, scene: Representation, context: SceneContext) -> Nerf:
        """A field with the surface of another scene and its colors. Raises ValueError if the scene is empty."""
        surface = context.surface(scene)
        out = self.build(context.generator, context.device)
        fit_radiance(out.radiance, surface, out.step_length, context.generator)
        out.occupancy.update(out.radiance.density, context.generator)
        return out


class Nerf(Representation):
    """A radiance field with view-independent colors, so that it can be baked into a texture.

    In training mode with gradients enabled, rays are sampled at random offsets (one per pixel, the same for all
    cameras, redrawn by every `adapt`), which makes the image a stratified estimate; otherwise at the centers of the
    steps. The seed of the offsets is a buffer, so that a resumed run draws the same offsets.

    Args:
        config: Settings.
        generator: Source of the initial parameters.

    Raises:
        ValueError: A setting is out of range.
    """

    render_terms = ("orientation", "z_variance", "distortion")
    jitter_seed: Tensor

    def __init__(self, config: NerfConfig, generator: torch.Generator) -> None:
        super().__init__()
        if config.bound <= 0 or config.near < 0 or config.samples < 1 or not 0 <= config.early_stop < 1:
            raise ValueError(
                "a nerf needs bound > 0, near >= 0, samples >= 1 and 0 <= early_stop < 1, got "
                f"{config.bound}, {config.near}, {config.samples} and {config.early_stop}"
            )
        self.config = config
        self.radiance = RadianceField(config.radiance, config.bound, generator)
        self.occupancy = OccupancyGrid(config.occupancy, config.bound)
        self.register_buffer("jitter_seed", _draw_seed(generator))
        self._activate_levels(0.0)

    @property
    def step_length(self) -> float:
        """Distance between samples in meters."""
        return 2 * math.sqrt(3) * self.config.bound / self.config.samples

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        """Render by ray marching; see `Representation.render`.

        With gradients enabled, `terms` has the means over all pixels of `orientation` and `distortion` (meters), and
        the mean over solid pixels of `z_variance` (square meters, 0 without such pixels); see `volume.ray_terms`.
        """
        device = self.jitter_seed.device
        cameras, background = cameras.to(device), background.to(device)
        rays = cameras.rays()
        origins = cameras.position[:, :, None, None].expand_as(rays).permute(0, 2, 3, 1).reshape(-1, 3)
        traced = self._trace_all(origins, rays.permute(0, 2, 3, 1).reshape(-1, 3), self._offsets(cameras))
        images = traced.reshape(len(cameras), cameras.height, cameras.width, -1).permute(0, 3, 1, 2)
        rgb, opacity, depth, normal, *terms = images.split(list(_COLUMNS.values()), 1)
        return RenderOutput(
            rgb + (1 - opacity) * background[:, :, None, None],
            opacity,
            depth,
            normal,
            *(self._terms(opacity, *terms) if torch.is_grad_enabled() else ()),
        )

    def learning_rates(self, progress: float) -> dict[str, float]:
        return self.radiance.learning_rates("radiance.")

    def adapt(
        self, step: int, total_steps: int, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> AdaptReport:
        """Redraw the sampling offsets, activate levels, and update the occupancy grid; see `base.Adaptive`.

        The report counts occupied cells.
        """
        self.jitter_seed.copy_(_draw_seed(generator))
        self._activate_levels(step / total_steps)
        if (step - 1) % self.config.occupancy.every:
            return AdaptReport()
        before = int(self.occupancy.occupied(self.step_length).sum())
        self.occupancy.update(self.radiance.density, generator)
        after = int(self.occupancy.occupied(self.step_length).sum())
        return AdaptReport(max(after - before, 0), max(before - after, 0), after)

    @torch.no_grad()
    def field(self, points: Float[Tensor, "n 3"]) -> FieldSample:
        """Density (per meter, 0 outside the box) and color at points."""
        parts = points.split(_POINTS_AT_ONCE)
        return FieldSample(
            torch.cat([self.radiance.density(part) for part in parts]),
            torch.cat([self.radiance.color(part) for part in parts]),
        )

    def _activate_levels(self, progress: float) -> None:
        levels, first = len(self.radiance.grid.resolutions), self.config.start_levels
        if not 0 <= first <= levels:
            raise ValueError(f"start_levels is {first}; the grid has {levels} levels (0: start with all)")
        if first:
            fraction = min(progress / self.config.all_levels_at, 1.0) if self.config.all_levels_at > 0 else 1.0
            self.radiance.grid.activate(first + int(fraction * (levels - first)))

    def _offsets(self, cameras: Cameras) -> Float[Tensor, " rays"]:
        """Position of the samples within the steps of each ray; equal for all cameras, so that a batch renders the same
        images as its single cameras."""
        pixels = cameras.height * cameras.width
        if self.training and torch.is_grad_enabled():
            offsets = torch.rand(pixels, generator=torch.Generator().manual_seed(int(self.jitter_seed)))
        else:
            offsets = torch.full((pixels,), 0.5)
        return offsets.to(self.jitter_seed.device).repeat(len(cameras))

    def _trace_all(
        self, origins: Float[Tensor, "r 3"], rays: Float[Tensor, "r 3"], offsets: Float[Tensor, " r"]
    ) -> Float[Tensor, "r columns"]:
        """`_trace` in chunks of rays, so that the memory is bounded."""
        chunks = list(zip(*(t.split(_RAYS_AT_ONCE) for t in (origins, rays, offsets)), strict=True))
        if len(chunks) == 1:
            return self._trace(*chunks[0])
        if not torch.is_grad_enabled():
            return torch.cat([self._trace(*chunk) for chunk in chunks])
        # Each chunk is recomputed in the backward pass; it draws no random numbers.
        return torch.cat(
            [checkpoint(self._trace, *chunk, use_reentrant=False, preserve_rng_state=False) for chunk in chunks]
        )

    def _trace(
        self, origins: Float[Tensor, "r 3"], rays: Float[Tensor, "r 3"], offsets: Float[Tensor, " r"]
    ) -> Float[Tensor, "r columns"]:
        """The quantities of `_COLUMNS` for each ray, composited over black. `rays` have unit z-depth."""
        step = self.step_length
        cosine = rays.norm(dim=1).reciprocal()
        directions = rays * cosine[:, None]
        occupied = self.occupancy.occupied(step)
        samples = march(
            origins, directions, offsets, occupied, bound=self.config.bound, step=step, near=self.config.near
        )
        with torch.no_grad():
            density = self.radiance.density(samples.points)
            samples = samples.where(reached(density, samples, step, self.config.early_stop))

        radiance = self.radiance(samples.points)
        weights = ray_weights(radiance.density, samples, step)
        z = samples.distances * cosine[samples.rays]
        values = torch.cat([radiance.color, z[:, None], torch.ones_like(z)[:, None]], 1)
        rgb, z_sum, opacity = accumulate(weights, values, samples).split([3, 1, 1], 1)
        # Accumulated separately, so that normals need no backward pass unless their gradient is used. They are weighted
        # by their length: unit normals of almost constant density are noise (51 instead of 43 degrees error on a mug).
        normal = _facing(accumulate(weights, -radiance.gradient, samples), directions)
        depth = per_opacity(z_sum, opacity)
        columns = [rgb, opacity, depth, normal]
        if torch.is_grad_enabled():
            columns += [
                orientation(weights, radiance.normal, directions[samples.rays], samples)[:, None],
                variance(weights, z, depth[:, 0], opacity[:, 0], samples)[:, None],
                distortion(weights, samples.distances, step, samples)[:, None],
            ]
        else:
            columns += [torch.zeros_like(opacity)] * 3
        return torch.cat(columns, 1)

    @staticmethod
    def _terms(
        opacity: Float[Tensor, "b 1 h w"],
        orientation: Float[Tensor, "b 1 h w"],
        z_variance: Float[Tensor, "b 1 h w"],
        distortion: Float[Tensor, "b 1 h w"],
    ) -> tuple[dict[str, Float[Tensor, ""]], dict[str, Float[Tensor, ""]]]:
        """`RenderOutput.terms` and `RenderOutput.term_counts`."""
        solid = opacity > _SOLID
        count = solid.sum().to(z_variance.dtype)
        terms = {
            "orientation": orientation.mean(),
            "z_variance": torch.where(solid, z_variance, 0.0).sum() / count.clamp(min=1),
            "distortion": distortion.mean(),
        }
        return terms, {"z_variance": count}


def _draw_seed(generator: torch.Generator) -> Tensor:
    return torch.randint(2**31, (), generator=generator, device=generator.device)


def _facing(normals: Float[Tensor, "r 3"], directions: Float[Tensor, "r 3"]) -> Float[Tensor, "r 3"]:
    """Unit normals; one that points away from the viewer is made perpendicular to the ray. 0 where undefined."""
    away = (normals * directions).sum(1, keepdim=True).clamp_min(0)
    normals = normals - away * directions
    squared = normals.square().sum(1, keepdim=True)
    known = squared > 1e-16
    return torch.where(known, normals, 0.0) * torch.where(known, squared, 1.0).rsqrt()
