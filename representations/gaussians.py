"""A scene of anisotropic 3D Gaussians, drawn by splatting [Kerbl et al. 2023]."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Interval
from jaxtyping import Float
from scipy.spatial import KDTree
from torch import Tensor, nn

from .base import AdaptReport, FieldSample, RenderOutput, Representation
from .cameras import Cameras
from .densify import Densifier, DensifyConfig
from .splatting import BACKENDS, check_backend, gaussian_field, splat


@dataclass
class GaussiansConfig:
    """Anisotropic 3D Gaussians, drawn by splatting: how the scene starts and how fast it learns."""

    count: Annotated[int, Interval(ge=1, le=5_000_000)] = 4000
    """Gaussians at the start; `densify` changes the number."""
    radius: Annotated[float, Interval(gt=0, le=100)] = 0.6
    """They start uniformly distributed in a ball of this radius (metres)."""
    opacity: Annotated[float, Interval(gt=0, lt=1)] = 0.1
    """Initial opacity, in (0, 1)."""
    colour: Annotated[float, Interval(ge=0, le=1)] = 0.5
    """Initial sRGB grey, in (0, 1)."""
    initial_ply: str = ""
    """Start from this splat file (3DGS .ply, +Y up) instead, fitted into the ball; the settings above then do not
    matter. The asset stands where the file has it, at its size."""
    initial_yaw: Annotated[float, Interval(ge=-360, le=360)] = 0.0
    """Degrees by which `initial_ply` is turned about +Y to bring its front to +Z: 90 for a front that faces -X."""
    relative_scale: Annotated[float, Interval(gt=0, le=100)] = 0.6
    """Initial standard deviation, in units of the distance to the nearest neighbours."""
    backend: Annotated[str, ("auto", *BACKENDS)] = "auto"
    """auto, cpu, torch or gsplat; see `splatting.splat`."""
    means_rate: Annotated[float, Interval(ge=0, le=100)] = 5e-3
    """Adam's learning rate of the positions at the start of a stage,"""
    means_rate_end: Annotated[float, Interval(ge=0, le=100)] = 1e-4
    """and at its end; exponential in between."""
    log_scales_rate: Annotated[float, Interval(ge=0, le=100)] = 5e-3
    quaternions_rate: Annotated[float, Interval(ge=0, le=100)] = 5e-3
    opacity_logits_rate: Annotated[float, Interval(ge=0, le=100)] = 5e-2
    colour_logits_rate: Annotated[float, Interval(ge=0, le=100)] = 2e-2
    densify: DensifyConfig = field(default_factory=DensifyConfig)

    def build(self, generator: torch.Generator, device: torch.device | str = "cpu") -> Gaussians:
        """Raises ValueError for a setting out of range or an `initial_ply` of no use, OSError for a missing one."""
        if self.initial_ply:
            from .gaussian_ply import fit_gaussian_ply

            return fit_gaussian_ply(Path(self.initial_ply), self).to(device)
        if self.initial_yaw:
            raise ValueError(f"initial_yaw is {self.initial_yaw}, but there is no initial_ply that it could turn")
        if self.count < 1 or self.radius <= 0:
            raise ValueError(f"need count >= 1 and radius > 0, got {self.count} and {self.radius}")
        shape = (self.count, 3)
        directions = nn.functional.normalize(torch.randn(shape, generator=generator, device=generator.device), dim=-1)
        distances = torch.rand(self.count, 1, generator=generator, device=generator.device) ** (1 / 3)
        points = self.radius * directions * distances
        return Gaussians.from_points(points.to(device), torch.full(shape, self.colour, device=device), self)

    def without_file(self) -> GaussiansConfig:
        """The same kind of scene without its file, for what is only tried or loaded over."""
        return replace(self, initial_ply="", initial_yaw=0.0)


class Gaussians(Representation):
    """Parameters are unconstrained; `scales`, `opacities` and `colours` are their activations.

    Raises ValueError for parameters that do not fit each other or settings outside their range.
    """

    def __init__(
        self,
        means: Float[Tensor, "n 3"],
        log_scales: Float[Tensor, "n 3"],
        quaternions: Float[Tensor, "n 4"],
        opacity_logits: Float[Tensor, " n"],
        colour_logits: Float[Tensor, "n 3"],
        config: GaussiansConfig | None = None,
    ) -> None:
        super().__init__()
        self.config = GaussiansConfig() if config is None else config
        check_backend(self.config.backend)
        self.means = nn.Parameter(means.clone())
        self.log_scales = nn.Parameter(log_scales.clone())
        self.quaternions = nn.Parameter(quaternions.clone())
        """w, x, y, z; any length."""
        self.opacity_logits = nn.Parameter(opacity_logits.clone())
        self.colour_logits = nn.Parameter(colour_logits.clone())
        self.densifier = Densifier(self.config.densify, len(means)).to(means.device)

    @classmethod
    def from_points(
        cls,
        points: Float[Tensor, "n 3"],
        colours: Float[Tensor, "n 3"],
        config: GaussiansConfig | None = None,
    ) -> Gaussians:
        """Round Gaussians at the points, as wide as the points are apart; colours are sRGB in [0, 1].

        Raises ValueError for an initial opacity, scale or colour outside its range.
        """
        config = GaussiansConfig() if config is None else config
        if not 0 < config.opacity < 1 or config.relative_scale <= 0:
            raise ValueError(
                f"need 0 < opacity < 1 and relative_scale > 0, got {config.opacity} and {config.relative_scale}"
            )
        if not bool(((colours >= 0) & (colours <= 1)).all()):
            raise ValueError(f"colours must lie in [0, 1], got [{float(colours.min())}, {float(colours.max())}]")
        scales = config.relative_scale * _spacing(points)
        opacities = torch.full_like(scales, config.opacity)
        quaternions = torch.zeros(len(points), 4).to(points)
        quaternions[:, 0] = 1
        return cls(points, scales.log()[:, None].repeat(1, 3), quaternions, opacities.logit(), logit(colours), config)

    def __len__(self) -> int:
        return len(self.means)

    @property
    def scales(self) -> Float[Tensor, "n 3"]:
        """Standard deviations along the principal axes, metres."""
        return self.log_scales.exp()

    @property
    def opacities(self) -> Float[Tensor, " n"]:
        return self.opacity_logits.sigmoid()

    @property
    def colours(self) -> Float[Tensor, "n 3"]:
        """Display sRGB."""
        return self.colour_logits.sigmoid()

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        picture = splat(
            self.means,
            self.quaternions,
            self.scales,
            self.opacities,
            self.colours,
            cameras,
            backend=self.config.backend,
        )
        if picture.screen_means.requires_grad:
            visible, size = picture.visible, (cameras.height, cameras.width)
            picture.screen_means.register_hook(lambda gradient: self.densifier.observe(gradient, visible, *size))
        opacity = picture.opacity
        rgb = picture.rgb + (1 - opacity) * background.to(opacity)[:, :, None, None]
        drawn = opacity > 0
        depth = picture.depth / torch.where(drawn, opacity, 1.0)
        return RenderOutput(rgb, opacity, depth, _unit(picture.normal))

    def learning_rates(self, progress: float) -> dict[str, float]:
        config = self.config
        return {
            "means": config.means_rate ** (1 - progress) * config.means_rate_end**progress,
            "log_scales": config.log_scales_rate,
            "quaternions": config.quaternions_rate,
            "opacity_logits": config.opacity_logits_rate,
            "colour_logits": config.colour_logits_rate,
        }

    def regularisers(self) -> dict[str, Float[Tensor, ""]]:
        """opacity: 1 where half transparent, 0 where clear or solid (against haze). scale: metres (against large
        blobs). position: squared distance outside the unit ball."""
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
        """See `base.Adaptive`: clones, splits and prunes by `config.densify`."""
        parameters = dict(self.named_parameters())
        return self.densifier.adapt(parameters, step, total_steps, optimizer, generator)

    def save(self, folder: Path) -> Path:
        """See `base.Savable`: a 3DGS .ply for splat viewers."""
        from .gaussian_ply import write_gaussian_ply

        path = folder / "asset.ply"
        write_gaussian_ply(self, path)
        return path

    @torch.no_grad()
    def field(self, points: Float[Tensor, "n 3"]) -> FieldSample:
        """density = sum_i opacity_i exp(-d_i^2 / 2) with the Mahalanobis distance d_i; colour = its weighted mean."""
        density, colour = gaussian_field(
            points, self.means, self.quaternions, self.scales, self.opacities, self.colours
        )
        return FieldSample(density, colour)


def logit(values: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The inverse of the sigmoid for values in [0, 1], whose ends are moved in by a tenth of an 8-bit step."""
    margin = 0.1 / 255
    return values.clamp(margin, 1 - margin).logit()


def _spacing(points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
    """Root mean square distance to the three nearest neighbours; 0.1 m where there are none."""
    array = points.detach().cpu().numpy()
    if len(array) < 2:
        return torch.full((len(array),), 0.1).to(points)
    # The nearest "neighbour" is the point itself.
    distances = KDTree(array).query(array, k=min(4, len(array)))[0][:, 1:]
    # Coincident points would be infinitely small.
    spacing = np.sqrt(np.mean(distances**2, axis=1)).clip(1e-4)
    return torch.from_numpy(spacing).to(points)


def _unit(vectors: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Normalised; zero (and with a zero gradient) where there is no direction."""
    squared = vectors.square().sum(1, keepdim=True)
    known = squared > 1e-10
    return torch.where(known, vectors, 0.0) / torch.where(known, squared, 1.0).sqrt()
