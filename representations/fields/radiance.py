"""Density and colour as a function of position: a feature grid and a small network with a prior shape."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor, nn

from .blob import Blob, BlobConfig
from .colour import seeded_network
from .hash_grid import DenseGrid, DenseGridConfig, HashGrid, HashGridConfig

ACTIVATIONS = ("softplus", "exp")
ENCODINGS = ("hash", "dense")
NORMALS = ("analytic", "finite")
_LARGEST_EXPONENT = 15.0


@dataclass
class RadianceFieldConfig:
    """Sizes of the field, how it starts and how fast it learns."""

    encoding: Annotated[str, ENCODINGS] = "hash"
    """hash: `hash_grid`; dense: the plain voxels of `dense_grid`."""
    hash_grid: HashGridConfig = field(default_factory=HashGridConfig)
    dense_grid: DenseGridConfig = field(default_factory=DenseGridConfig)
    hidden: Annotated[int, Interval(ge=1, le=1024)] = 32
    """Width of the network's one hidden layer."""
    activation: Annotated[str, ACTIVATIONS] = "softplus"
    """Of the density, per metre: softplus or exp."""
    blob: BlobConfig = field(default_factory=BlobConfig)
    normals: Annotated[str, NORMALS] = "analytic"
    """analytic: the derivative of the field; finite: central differences, smoother and six densities dearer."""
    finite_step: Annotated[float, Interval(gt=0, le=10)] = 0.01
    """Metres, each way, of the finite differences."""
    grid_rate: Annotated[float, Interval(ge=0, le=100)] = 1e-2
    """Adam's learning rate of the grid,"""
    network_rate: Annotated[float, Interval(ge=0, le=100)] = 5e-3
    """and of the network."""


@dataclass(frozen=True)
class Radiance:
    """The field at points."""

    density: Float[Tensor, " n"]
    """Per metre, >= 0."""
    colour: Float[Tensor, "n 3"]
    """Display sRGB in [0, 1]; the same from every side."""
    gradient: Float[Tensor, "n 3"]
    """By position, of the density before its activation: it points inwards also where all is solid or all is empty."""

    @property
    def normal(self) -> Float[Tensor, "n 3"]:
        """Unit vector outwards, against the gradient; 0 where that vanishes."""
        squared = self.gradient.square().sum(1, keepdim=True)
        known = squared > 1e-12
        return torch.where(known, -self.gradient, 0.0) * torch.where(known, squared, 1.0).rsqrt()


class RadianceField(nn.Module):
    """World points to density and colour. Raises ValueError for unknown names or settings outside their range."""

    def __init__(self, config: RadianceFieldConfig, bound: float, generator: torch.Generator) -> None:
        """The grid covers [-bound, bound]^3 metres; there is nothing outside."""
        super().__init__()
        for name, value, known in (
            ("encoding", config.encoding, ENCODINGS),
            ("activation", config.activation, ACTIVATIONS),
            ("normals", config.normals, NORMALS),
        ):
            if value not in known:
                raise ValueError(f"unknown {name} {value!r}; choose one of {list(known)}")
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
        """Per metre; 0 outside the box."""
        inside = points.abs().amax(1) <= self.bound
        return torch.where(inside, self._activate(self._logit(points)), 0.0)

    def colour(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """Display sRGB; outside the box that of its nearest face."""
        return self.outer(self._hidden(points))[:, 1:].sigmoid()

    def forward(self, points: Float[Tensor, "n 3"]) -> Radiance:
        """Everything at points inside the box; not differentiable in the points."""
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
        """Rate per parameter, by its name under `prefix` (with the dot)."""
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
        """The logit's gradient by the chain rule, itself differentiable once."""
        cotangent = (hidden > 0) * self.outer.weight[0] @ self.inner.weight
        return self.grid.gradient(self._unit(points), cotangent) / (2 * self.bound) + self.blob.gradient(points)

    def _differences(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        """The logit's gradient by central differences."""
        steps = self.config.finite_step * torch.eye(3, device=points.device)
        moved = (points[:, None, None] + torch.stack([steps, -steps])).reshape(-1, 3)
        ahead, behind = self._logit(moved).reshape(-1, 2, 3).unbind(1)
        return (ahead - behind) / (2 * self.config.finite_step)
