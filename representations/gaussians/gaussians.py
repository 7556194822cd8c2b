"""A scene of anisotropic 3D Gaussians, rendered by splatting [Kerbl et al. 2023]."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Interval
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor, nn

from ..base import AdaptReport, FieldSample, RenderOutput, Representation, SceneContext
from ..cameras import Cameras
from ..mesh.sampling import sample_surface
from ..ops import exponential_decay, logit, surface_normals, unit_or_zero
from .densification import Densifier, DensifyConfig
from .splatting import Backend, check_backend, gaussian_field, splat

SplatFormat = Literal["ply", "glb"]
"""Formats of the files of Gaussians."""
_SOLID_LOGIT = math.log(0.9 / 0.1)
"""Opacity 0.9 of Gaussians on a known surface."""


@dataclass
class GaussiansConfig:
    """Anisotropic 3D Gaussians, rendered by splatting: initialization, learning rates and densification."""

    count: Annotated[int, Interval(ge=1, le=5_000_000)] = 4000
    """Number of Gaussians at the start; `densify` changes it."""
    radius: Annotated[float, Interval(gt=0, le=100)] = 0.6
    """Radius in meters of the ball in which the Gaussians are uniformly distributed at the start."""
    opacity: Annotated[float, Interval(gt=0, lt=1)] = 0.1
    """Initial opacity, in (0, 1)."""
    color: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Initial gray value, sRGB in [0, 1]."""
    initial_ply: str = ""
    """Splat file to start from, fitted into the unit ball: a 3DGS .ply, or a .glb with KHR_gaussian_splatting, +Y up.
    Empty: start from random Gaussians. With a file, the settings above have no effect, and the exported asset has its
    position and size."""
    initial_yaw: Annotated[float, Interval(ge=-360, le=360)] = 0.0
    """Rotation of `initial_ply` in degrees about +Y that brings its front to +Z: 90 for a front that faces -X."""
    relative_scale: Annotated[float, Interval(gt=0, le=100)] = 0.6
    """Initial standard deviation, in units of the distance to the nearest neighbors."""
    backend: Backend = "auto"
    """Splatting backend: auto, cpu, torch or gsplat; see `splatting.splat`."""
    formats: list[SplatFormat] = field(default_factory=lambda: ["ply"])
    """Files of the trained Gaussians in the run's `asset/`. `ply`: asset.ply, for splat viewers; `glb`:
    asset_splats.glb, a glTF file with KHR_gaussian_splatting."""
    normals: Literal["depth", "axis"] = "depth"
    """Source of the rendered normals: `depth` derives them from the rendered depth, so that a loss on normals moves the
    surface (`ops.surface_normals`); `axis` blends the shortest axes of the Gaussians, which may contradict it."""
    means_rate: Annotated[float, Interval(ge=0, le=100)] = 5e-3
    """Adam learning rate of the positions at the start of a stage; it decays exponentially to `means_rate_end`."""
    means_rate_end: Annotated[float, Interval(ge=0, le=100)] = 1e-4
    """Adam learning rate of the positions at the end of a stage."""
    log_scales_rate: Annotated[float, Interval(ge=0, le=100)] = 5e-3
    """Adam learning rate of the logarithms of the standard deviations."""
    quaternions_rate: Annotated[float, Interval(ge=0, le=100)] = 5e-3
    """Adam learning rate of the rotations."""
    opacity_logits_rate: Annotated[float, Interval(ge=0, le=100)] = 5e-2
    """Adam learning rate of the opacity logits."""
    color_logits_rate: Annotated[float, Interval(ge=0, le=100)] = 2e-2
    """Adam learning rate of the color logits."""
    densify: DensifyConfig = field(default_factory=DensifyConfig)
    """Settings of densification and pruning."""

    def __post_init__(self) -> None:
        if not self.formats or len(set(self.formats)) < len(self.formats):
            raise ValueError(f"formats is {self.formats}; give ply, glb or both, each once")

    def build(self, generator: torch.Generator, device: torch.device | str = "cpu") -> Gaussians:
        """Create the scene.

        Args:
            generator: Source of the random initial positions.
            device: Device of the parameters.

        Raises:
            ValueError: A setting is out of range, or `initial_ply` is not a usable splat file.
            OSError: `initial_ply` cannot be read.

        Example:
            >>> scene = GaussiansConfig(count=1000).build(torch.Generator().manual_seed(0))
        """
        if self.initial_ply:
            from .file import fit_gaussians

            return fit_gaussians(Path(self.initial_ply), self).to(device)
        if self.initial_yaw:
            raise ValueError(f"initial_yaw is {self.initial_yaw}, but needs an initial_ply to rotate; set it or use 0")
        if self.count < 1 or self.radius <= 0:
            raise ValueError(f"need count >= 1 and radius > 0, got {self.count} and {self.radius}")
        shape = (self.count, 3)
        directions = nn.functional.normalize(torch.randn(shape, generator=generator, device=generator.device), dim=-1)
        distances = torch.rand(self.count, 1, generator=generator, device=generator.device) ** (1 / 3)
        points = self.radius * directions * distances
        return Gaussians.from_points(points.to(device), torch.full(shape, self.color, device=device), self)

    def from_scene(self, scene: Representation, context: SceneContext) -> Gaussians:
        """`count` nearly opaque Gaussians on the surface of another scene, with its colors; `radius`, `opacity` and
        `color` have no effect. Raises ValueError if the scene is empty.
        """
        surface = context.surface(scene)
        points = sample_surface(surface.mesh, self.count, context.generator).points
        out = Gaussians.from_points(points, surface.color(points).clamp(0, 1), self)
        with torch.no_grad():
            out.opacity_logits.fill_(_SOLID_LOGIT)
        return out.to(context.device)

    def blank(self, device: torch.device | str = "cpu") -> Gaussians:
        """A scene that begins from no file, to be tried or loaded over."""
        return replace(self, initial_ply="", initial_yaw=0.0).build(torch.Generator().manual_seed(0), device)


class Gaussians(Representation):
    """Anisotropic 3D Gaussians; the parameters are unconstrained, `scales`, `opacities` and `colors` are activations.

    Args:
        means: Centers in meters.
        log_scales: Logarithms of the standard deviations (meters) along the principal axes.
        quaternions: Rotations w, x, y, z of any length.
        opacity_logits: Logits of the opacities.
        color_logits: Logits of the sRGB colors.
        config: Settings; None for the defaults.

    Raises:
        ValueError: A setting is out of range.
    """

    def __init__(
        self,
        means: Float[Tensor, "n 3"],
        log_scales: Float[Tensor, "n 3"],
        quaternions: Float[Tensor, "n 4"],
        opacity_logits: Float[Tensor, " n"],
        color_logits: Float[Tensor, "n 3"],
        config: GaussiansConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = GaussiansConfig() if config is None else config
        check_backend(self.config.backend)
        self.means = nn.Parameter(means.clone())
        self.log_scales = nn.Parameter(log_scales.clone())
        self.quaternions = nn.Parameter(quaternions.clone())
        """Rotations w, x, y, z of any length."""
        self.opacity_logits = nn.Parameter(opacity_logits.clone())
        self.color_logits = nn.Parameter(color_logits.clone())
        self.densifier = Densifier(self.config.densify, len(means)).to(means.device)

    @classmethod
    def from_points(
        cls,
        points: Float[Tensor, "n 3"],
        colors: Float[Tensor, "n 3"],
        config: GaussiansConfig | None = None,
    ) -> Gaussians:
        """Isotropic Gaussians at points, with scales in proportion to the distance of neighboring points.

        Args:
            points: Centers in meters.
            colors: sRGB in [0, 1].
            config: Settings, among them the initial opacity and relative scale; None for the defaults.

        Raises:
            ValueError: The initial opacity or scale, or a color, is out of range.
        """
        config = GaussiansConfig() if config is None else config
        if not 0 < config.opacity < 1 or config.relative_scale <= 0:
            raise ValueError(
                f"need 0 < opacity < 1 and relative_scale > 0, got {config.opacity} and {config.relative_scale}"
            )
        if not bool(((colors >= 0) & (colors <= 1)).all()):
            raise ValueError(f"colors must lie in [0, 1], got [{float(colors.min())}, {float(colors.max())}]")
        scales = config.relative_scale * _spacing(points)
        opacities = torch.full_like(scales, config.opacity)
        quaternions = torch.zeros(len(points), 4).to(points)
        quaternions[:, 0] = 1
        return cls(points, scales.log()[:, None].repeat(1, 3), quaternions, opacities.logit(), logit(colors), config)

    def __len__(self) -> int:
        return len(self.means)

    @property
    def scales(self) -> Float[Tensor, "n 3"]:
        """Standard deviations along the principal axes, meters."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Float[Tensor, " n"]:
        """Opacities in (0, 1)."""
        return self.opacity_logits.sigmoid()

    @property
    def colors(self) -> Float[Tensor, "n 3"]:
        """Colors, display sRGB in (0, 1)."""
        return self.color_logits.sigmoid()

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        image = splat(
            self.means,
            self.quaternions,
            self.scales,
            self.opacities,
            self.colors,
            cameras,
            backend=self.config.backend,
        )
        if image.screen_means.requires_grad:
            visible, size = image.visible, (cameras.height, cameras.width)
            image.screen_means.register_hook(lambda gradient: self.densifier.observe(gradient, visible, *size))
        opacity = image.opacity
        rgb = image.rgb + (1 - opacity) * background.to(opacity)[:, :, None, None]
        covered = opacity > 0
        depth = image.depth / torch.where(covered, opacity, 1.0)
        from_depth = self.config.normals == "depth"
        normal = surface_normals(depth, opacity, cameras) if from_depth else unit_or_zero(image.normal)
        return RenderOutput(rgb, opacity, depth, normal)

    def learning_rates(self, progress: float) -> dict[str, float]:
        config = self.config
        return {
            "means": exponential_decay(config.means_rate, config.means_rate_end, progress),
            "log_scales": config.log_scales_rate,
            "quaternions": config.quaternions_rate,
            "opacity_logits": config.opacity_logits_rate,
            "color_logits": config.color_logits_rate,
        }

    def regularizers(self) -> dict[str, Float[Tensor, ""]]:
        """Regularizers on opacities, scales and positions, by name.

        opacity    mean of 4 o (1 - o): 1 for half-transparent, 0 for transparent or opaque Gaussians (against haze)
        scale      mean of the largest standard deviation, meters (against large blobs)
        position   mean squared distance outside the unit ball, square meters
        """
        opacities = self.opacities
        outside = (self.means.norm(dim=1) - 1).clamp_min(0)
        return {
            "opacity": (4 * opacities * (1 - opacities)).mean(),
            "scale": self.scales.amax(1).mean(),
            "position": outside.square().mean(),
        }

    def adapt(
        self, step: int, total_steps: int, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> AdaptReport:
        """Clone, split and prune by `config.densify`; see `base.Adaptive`."""
        parameters = dict(self.named_parameters())
        return self.densifier.adapt(parameters, step, total_steps, optimizer, generator)

    def save(self, folder: Path) -> Path:
        """Write the files of `config.formats` and return the path of the first; see `base.Savable`."""
        from .file import save_gaussians

        return save_gaussians(self, folder, self.config.formats)

    @torch.no_grad()
    def field(self, points: Float[Tensor, "n 3"]) -> FieldSample:
        """Density and color at points: sum_i w_i and the mean color weighted by w_i = opacity_i exp(-d_i^2 / 2).

        d_i is the Mahalanobis distance to Gaussian i.
        """
        density, color = gaussian_field(points, self.means, self.quaternions, self.scales, self.opacities, self.colors)
        return FieldSample(density, color)


def _spacing(points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Root mean square distance to the three nearest neighbors; 0.1 m for a single point."""
    array = points.detach().cpu().numpy()
    if len(array) < 2:
        return torch.full((len(array),), 0.1).to(points)
    # The nearest "neighbor" is the point itself.
    distances = KDTree(array).query(array, k=min(4, len(array)))[0][:, 1:]
    # Coincident points would get a scale of 0.
    spacing = np.sqrt(np.mean(distances**2, axis=1)).clip(1e-4)
    return torch.from_numpy(spacing).to(points)
