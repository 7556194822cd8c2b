"""A radiance field: density and color as a function of position, by a feature grid, a small network and a blob."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor, nn

from .blob import Blob, BlobConfig
from .color import seeded_network
from .hash_grid import DenseGrid, DenseGridConfig, HashGrid, HashGridConfig

_LARGEST_EXPONENT = 15.0


@dataclass
class RadianceFieldConfig:
    """Radiance field: encoding, network, initialization and learning rates."""

    encoding: Literal["hash", "dense"] = "hash"
    """Position encoding: hash (multiresolution hash grid) or dense (voxel grid)."""
    hash_grid: HashGridConfig = field(default_factory=HashGridConfig)
    """Settings of the hash grid, for `encoding` hash."""
    dense_grid: DenseGridConfig = field(default_factory=DenseGridConfig)
    """Settings of the voxel grid, for `encoding` dense."""
    hidden: Annotated[int, Interval(ge=1, le=1024)] = 32
    """Width of the network's hidden layer."""
    activation: Literal["softplus", "exp"] = "softplus"
    """Activation of the density (per meter): softplus or exp."""
    blob: BlobConfig = field(default_factory=BlobConfig)
    """Settings of the initial blob of density."""
    normals: Literal["analytic", "finite"] = "analytic"
    """Normals: analytic (the derivative of the field) or finite (central differences; smoother, at the cost of six more
    density evaluations)."""
    finite_step: Annotated[float, Interval(gt=0, le=10)] = 0.01
    """Step of the finite differences in each direction, in meters."""
    grid_rate: Annotated[float, Interval(ge=0, le=100)] = 1e-2
    """Adam learning rate of the grid."""
    network_rate: Annotated[float, Interval(ge=0, le=100)] = 5e-3
    """Adam learning rate of the network."""


@dataclass(frozen=True)
class Radiance:
    """Values of a radiance field at points."""

    density: Float[Tensor, " n"]
    """Density per meter, >= 0."""
    color: Float[Tensor, "n 3"]
    """View-independent color, display sRGB in [0, 1]."""
    gradient: Float[Tensor, "n 3"]
    """Gradient of the density before its activation with respect to position; it points inward, also in fully solid or
    empty regions."""

    @property
    def normal(self) -> Float[Tensor, "n 3"]:
        """Outward unit normal, opposite to the gradient; 0 where the gradient vanishes."""
        squared = self.gradient.square().sum(1, keepdim=True)
        known = squared > 1e-12
        return torch.where(known, -self.gradient, 0.0) * torch.where(known, squared, 1.0).rsqrt()


class RadianceField(nn.Module):
    """A function from world points to density and color.

    Args:
        config: Settings.
        bound: Half the side of the box around the origin that the field covers, in meters; the density is 0 outside.
        generator: Source of the initial parameters.

    Raises:
        ValueError: A name is unknown, or a setting is out of range.
    """

    def __init__(self, config: RadianceFieldConfig, bound: float, generator: torch.Generator) -> None:
        super().__init__()
        for name, known in (
            ("encoding", ("hash", "dense")),
            ("activation", ("softplus", "exp")),
            ("normals", ("analytic", "finite")),
        ):
            if getattr(config, name) not in known:
                raise ValueError(f"unknown {name} {getattr(config, name)!r}; choose one of {list(known)}")
        if config.finite_step <= 0 or config.hidden < 1:
            raise ValueError(f"need finite_step > 0 and hidden >= 1, got {config.finite_step} and {config.hidden}")
        self.config = config
        self.bound = bound
        if config.encoding == "hash":
            self.grid = HashGrid(config.hash_grid, generator)
        else:
            self.grid = DenseGrid(config.dense_grid, generator)
        network = seeded_network([self.grid.width, config.hidden, 4], generator)
        self.inner, self.outer = (layer for layer in network if isinstance(layer, nn.Linear))
        self.blob = Blob(config.blob)

    def density(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """Density per meter; 0 outside the box."""
        inside = points.abs().amax(1) <= self.bound
        return torch.where(inside, self._activate(self._logit(points)), 0.0)

    def color(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Color, display sRGB; outside the box that of the nearest point of the box."""
        return self.outer(self._hidden(points))[:, 1:].sigmoid()

    def forward(self, points: Float[Tensor, "n 3"]) -> Radiance:
        """Density, color and gradient at points inside the box; not differentiable in the points."""
        points = points.detach()
        hidden = self._hidden(points)
        out = self.outer(hidden)
        if self.config.normals == "analytic":
            gradient = self._gradient(points, hidden)
        else:
            gradient = self._differences(points)
        density = self._activate(out[:, 0] + self.blob(points))
        return Radiance(density, out[:, 1:].sigmoid(), gradient)

    def learning_rates(self, prefix: str) -> dict[str, float]:
        """Adam learning rate of every parameter, by parameter name with `prefix` (including the dot) in front."""
        return {
            f"{prefix}{name}": self.config.grid_rate if name.startswith("grid.") else self.config.network_rate
            for name, _ in self.named_parameters()
        }

    def _unit(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        return points / (2 * self.bound) + 0.5

    def _hidden(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n hidden"]:
        return F.relu(self.inner(self.grid(self._unit(points))))

    def _activate(self, logit: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        return F.softplus(logit) if self.config.activation == "softplus" else logit.clamp(max=_LARGEST_EXPONENT).exp()

    def _logit(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, " n"]:
        """The density before its activation."""
        out = F.linear(self._hidden(points), self.outer.weight[:1], self.outer.bias[:1])
        return out[:, 0] + self.blob(points)

    def _gradient(self, points: Float[Tensor, "n 3"], hidden: Float[Tensor, "n hidden"]) -> Float[Tensor, "n 3"]:
        """Gradient of the logit by the chain rule; differentiable once."""
        cotangent = (hidden > 0) * self.outer.weight[0] @ self.inner.weight
        return self.grid.gradient(self._unit(points), cotangent) / (2 * self.bound) + self.blob.gradient(points)

    def _differences(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Gradient of the logit by central differences."""
        steps = self.config.finite_step * torch.eye(3, device=points.device)
        moved = (points[:, None, None] + torch.stack([steps, -steps])).reshape(-1, 3)
        ahead, behind = self._logit(moved).reshape(-1, 2, 3).unbind(1)
        return (ahead - behind) / (2 * self.config.finite_step)
