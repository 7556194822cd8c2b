"""The contract of every 3D representation: `render(cameras, background) -> RenderOutput`, and what may come on top."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .cameras import Cameras
from .mesh import TriangleMesh
from .placement import Placement


@dataclass(frozen=True)
class RenderOutput:
    """What every renderer returns; float32, differentiable wherever the representation is."""

    rgb: Float[Tensor, "b 3 h w"]
    """Display sRGB in [0, 1], composited over the background."""
    opacity: Float[Tensor, "b 1 h w"]
    """[0, 1]."""
    depth: Float[Tensor, "b 1 h w"]
    """z-depth in metres, opacity-normalised (never pre-multiplied); 0 where empty."""
    normal: Float[Tensor, "b 3 h w"]
    """World-space unit vector facing the camera; 0 where empty."""
    terms: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Penalties that only the renderer can see, such as what happens along the rays; see `Representation.render_terms`.
    """

    def __post_init__(self) -> None:
        """Raises ValueError for images whose shapes or types are not those above; values are not looked at."""
        for name, channels in _CHANNELS.items():
            image = getattr(self, name)
            given = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            if name == "rgb":
                fits, wanted = len(given) == 4 and given[1] == channels, f"(b, {channels}, h, w)"
            else:
                wanted = (len(self.rgb), channels, *self.rgb.shape[2:])
                fits = given == wanted
            if not fits:
                raise ValueError(f"RenderOutput.{name} must be a tensor of shape {wanted}, got {given}")
            if not image.is_floating_point():
                raise ValueError(f"RenderOutput.{name} must hold floating-point numbers, got {image.dtype}")


_CHANNELS = {"rgb": 3, "opacity": 1, "depth": 1, "normal": 3}


class Representation(nn.Module, ABC):
    """A scene that renders. Its `nn.Parameter`s are what distillation trains."""

    render_terms: tuple[str, ...] = ()
    """Names of the penalties that `render` returns in `RenderOutput.terms` whenever gradients are enabled."""

    def __init__(self) -> None:
        super().__init__()
        self.placed = nn.Buffer(torch.zeros(5, dtype=torch.float64))
        """`placement` as numbers; zeros: None. A buffer, so that checkpoints hold it."""

    @property
    def placement(self) -> Placement | None:
        """Where the file that the scene started from had it; None: it started from no file.

        The scene itself is always in the unit ball. The export puts the asset back.
        """
        return Placement.from_tensor(self.placed) if bool(self.placed[0] > 0) else None

    @placement.setter
    def placement(self, placement: Placement | None) -> None:
        values = torch.zeros(5, dtype=torch.float64) if placement is None else placement.tensor()
        self.placed.copy_(values)

    @abstractmethod
    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        """Draw the scene, one picture per camera, over one background colour (sRGB in [0, 1]) per camera."""

    @abstractmethod
    def learning_rates(self, progress: float) -> dict[str, float]:
        """Adam learning rate of every trainable parameter, by name. `progress` runs from 0 to 1 over the stage."""

    def regularisers(self) -> dict[str, Float[Tensor, ""]]:
        """Named penalties on the parameters themselves; the stage's config gives their weights."""
        return {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore parameters and buffers in place, whatever their number (densification changes it).

        Gradients are dropped. Earlier pictures may still be held, but not be differentiated any more.
        Raises KeyError naming what is missing or unexpected, ValueError for what is not finite (in buffers: NaN), of
        another type, or refused by `check_tensors`; nothing is changed then.
        """
        parameters = dict(self.named_parameters())
        own = {**parameters, **dict(self.named_buffers())}
        missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
        if missing or unexpected:
            raise KeyError(f"{type(self).__name__}: missing {missing}, unexpected {unexpected}")
        for name, tensor in own.items():
            given = tensors[name]
            if given.is_floating_point() != tensor.is_floating_point() or given.dim() != tensor.dim():
                raise ValueError(f"'{name}' is {_described(tensor)}, got {_described(given)}")
            if given.is_floating_point() and not bool(
                (given.isfinite() if name in parameters else ~given.isnan()).all()
            ):
                raise ValueError(f"'{name}' would not be finite")
        self.check_tensors(tensors)
        for name, tensor in own.items():
            replace_data(tensor, tensors[name].to(tensor.device, tensor.dtype).clone())

    def check_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Raises ValueError for shapes that this scene cannot have: only a tensor's first size may be another one than
        now, and parameters of one module that have as many rows now must go on so.
        """
        rows: dict[tuple[str, int], tuple[str, int]] = {}
        for name, tensor in [*self.named_parameters(), *self.named_buffers()]:
            given = tensors[name]
            if given.shape[1:] != tensor.shape[1:]:
                raise ValueError(f"'{name}' is {_described(tensor)}, got {_described(given)}")
            if isinstance(tensor, nn.Parameter) and tensor.dim():
                module = name.rpartition(".")[0]
                first, count = rows.setdefault((module, len(tensor)), (name, len(given)))
                if count != len(given):
                    raise ValueError(f"'{first}' would have {count} rows, '{name}' {len(given)}")

    def optimizer_groups(self, progress: float = 0.0) -> list[dict[str, object]]:
        """One optimizer group per trainable parameter. Raises ValueError unless the rates cover exactly those."""
        rates = self.learning_rates(progress)
        trainable = {name: p for name, p in self.named_parameters() if p.requires_grad}
        if rates.keys() != trainable.keys():
            raise ValueError(
                f"{type(self).__name__}.learning_rates() must name every trainable parameter once: "
                f"missing {sorted(trainable.keys() - rates.keys())}, unknown {sorted(rates.keys() - trainable.keys())}"
            )
        return [{"name": name, "params": [p], "lr": rates[name]} for name, p in trainable.items()]


def _described(tensor: Tensor) -> str:
    return f"{tensor.dtype} {tuple(tensor.shape)}"


def replace_data(tensor: Tensor, data: Tensor) -> None:
    """Give a parameter or buffer other values, of any shape, in place; its gradient is dropped."""
    tensor.grad = None
    # autograd remembers a parameter's shape for as long as somebody holds an earlier picture. A change of type makes it
    # forget.
    tensor.data = torch.empty(0, dtype=torch.float64, device=tensor.device)
    tensor.data = data


@dataclass(frozen=True)
class AdaptReport:
    """What one call of `Adaptive.adapt` changed."""

    added: int = 0
    removed: int = 0
    total: int = 0


@runtime_checkable
class Adaptive(Protocol):
    """A representation that changes its own size while it is trained (densify, prune, upsample)."""

    def adapt(
        self, step: int, total_steps: int, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> AdaptReport:
        """Called after every `optimizer.step()`, with `step` counting from 1; must keep the optimizer's state valid."""
        ...


@dataclass(frozen=True)
class FieldSample:
    """A volumetric field at points."""

    density: Float[Tensor, " n"]
    """>= 0; larger is more solid. Only its ordering matters: the extraction finds the level."""
    colour: Float[Tensor, "n 3"]
    """Display sRGB in [0, 1]."""


@runtime_checkable
class Queryable(Protocol):
    """A representation that can be asked at points; extraction and baking use it when it is there."""

    def field(self, points: Float[Tensor, "n 3"]) -> FieldSample:
        """Density and colour at world points; no gradient needed."""
        ...


@runtime_checkable
class Meshable(Protocol):
    """A representation that is a triangle mesh already: extraction takes it as it is."""

    def mesh(self) -> TriangleMesh:
        """The surface as it is now, detached, with outward winding; without faces if nothing is left."""
        ...


@runtime_checkable
class Savable(Protocol):
    """A representation with an exchange format of its own, written beside the mesh."""

    def save(self, folder: Path) -> Path:
        """Write the scene into `folder`; returns the file."""
        ...
