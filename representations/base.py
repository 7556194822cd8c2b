"""The interface of every 3D representation: `Representation`, and optional protocols such as `Meshable`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .cameras import Cameras
from .placement import Placement
from .triangle_mesh import TriangleMesh


@dataclass(frozen=True)
class RenderOutput:
    """The images that every renderer returns: float32, differentiable in the parameters of the representation."""

    rgb: Float[Tensor, "b 3 h w"]
    """Display sRGB in [0, 1], composited over the background."""
    opacity: Float[Tensor, "b 1 h w"]
    """Opacity in [0, 1]."""
    depth: Float[Tensor, "b 1 h w"]
    """Depth along z in meters, normalized by the opacity (never pre-multiplied); 0 where empty."""
    normal: Float[Tensor, "b 3 h w"]
    """World-space unit normal facing the camera; 0 where empty."""
    terms: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Regularizers that only the renderer can compute, such as distortion along the rays; their names are
    `Representation.render_terms`."""
    term_counts: Mapping[str, Float[Tensor, ""]] = field(default_factory=dict)
    """Number of values that a term is the mean of, for those terms where it differs between images, such as the number
    of solid pixels. Means over further images use it; terms without it count equally for every image."""

    def __post_init__(self) -> None:
        """Check shapes and types, not values.

        Raises:
            ValueError: An image has the wrong shape, or is not floating point.
        """
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
    """A trainable 3D scene with a differentiable renderer; distillation trains its `nn.Parameter`s.

    Example:
        >>> from steindreamer.representations import Cameras, GaussiansConfig
        >>> scene = GaussiansConfig(count=1000).build(torch.Generator().manual_seed(0))
        >>> cameras = Cameras.orbit([0.0, 90.0], [15.0, 15.0], height=64)
        >>> output = scene.render(cameras, background=torch.ones(2, 3))
        >>> output.rgb.shape
        torch.Size([2, 3, 64, 64])
    """

    render_terms: tuple[str, ...] = ()
    """Names of the regularizers that `render` returns in `RenderOutput.terms` while gradients are enabled."""

    def __init__(self) -> None:
        super().__init__()
        self.placed = nn.Buffer(torch.zeros(5, dtype=torch.float64))
        """`placement` as numbers, all 0 for None; a buffer, so that checkpoints contain it."""

    @property
    def placement(self) -> Placement | None:
        """Transform from the initial file into the unit ball; None if the scene was not initialized from a file.

        The scene itself is always in the unit ball. The export applies the inverse.
        """
        return Placement.from_tensor(self.placed) if bool(self.placed[0] > 0) else None

    @placement.setter
    def placement(self, placement: Placement | None) -> None:
        values = torch.zeros(5, dtype=torch.float64) if placement is None else placement.tensor()
        self.placed.copy_(values)

    @abstractmethod
    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        """Render one image per camera.

        Args:
            cameras: The cameras, on any device.
            background: Background color of each camera, sRGB in [0, 1].
        """

    @abstractmethod
    def learning_rates(self, progress: float) -> dict[str, float]:
        """Adam learning rate of every trainable parameter, by parameter name.

        Args:
            progress: Fraction of the stage that is done, in [0, 1].
        """

    def regularizers(self) -> dict[str, Float[Tensor, ""]]:
        """Regularizers on the parameters, by name; the settings of the stage give their weights."""
        return {}

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Restore parameters and buffers in place; sizes may differ, since densification changes them.

        Gradients are dropped. Images rendered earlier can no longer be differentiated.

        Args:
            tensors: All parameters and buffers by name, as in `state_dict`.

        Raises:
            KeyError: Names are missing or unexpected. Nothing is changed.
            ValueError: A parameter is not finite, a buffer is NaN, a type differs, or `check_tensors` refuses the
                shapes. Nothing is changed.
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
        """Check that `load_tensors` can restore these shapes.

        Only the first dimension of a tensor may differ from the current one, and parameters of one module that have
        equally many rows now must also have equally many rows in `tensors`.

        Raises:
            ValueError: A shape does not fit.
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
        """Parameter groups for `torch.optim.Adam`, one per trainable parameter.

        Example:
            >>> optimizer = torch.optim.Adam(scene.optimizer_groups())  # doctest: +SKIP

        Raises:
            ValueError: `learning_rates` does not name exactly the trainable parameters.
        """
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
    """Replace the values of a parameter or buffer in place, with any shape; its gradient is dropped."""
    tensor.grad = None
    # Autograd keeps a parameter's shape as long as a graph that contains it is alive. A change of type resets it.
    tensor.data = torch.empty(0, dtype=torch.float64, device=tensor.device)
    tensor.data = data


@dataclass(frozen=True)
class AdaptReport:
    """The change in size by one call of `Adaptive.adapt`."""

    added: int = 0
    """Number of elements added (Gaussians, occupied cells)."""
    removed: int = 0
    """Number of elements removed."""
    total: int = 0
    """Number of elements after the call."""


@runtime_checkable
class Adaptive(Protocol):
    """A representation that changes its size during training, for example by densification and pruning."""

    def adapt(
        self, step: int, total_steps: int, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> AdaptReport:
        """Adapt the size; called after every step of a stage, and must keep the optimizer's state valid.

        Args:
            step: Number of steps so far in the stage, from 1; a step may take several optimizer steps at its views.
            total_steps: Number of steps of the stage.
            optimizer: The optimizer of `Representation.optimizer_groups`.
            generator: Source of all random draws.
        """
        ...


@dataclass(frozen=True)
class FieldSample:
    """Values of a volumetric field at points."""

    density: Float[Tensor, " n"]
    """Density, >= 0; larger is more solid. Only the order of the values matters: mesh extraction chooses the level."""
    color: Float[Tensor, "n 3"]
    """Color, display sRGB in [0, 1]."""


@runtime_checkable
class Queryable(Protocol):
    """A representation whose field can be evaluated at points; mesh extraction and texture baking use it if present."""

    def field(self, points: Float[Tensor, "n 3"]) -> FieldSample:
        """Density and color at world points (meters); no gradient is needed."""
        ...


@runtime_checkable
class Meshable(Protocol):
    """A representation with an explicit triangle mesh; mesh extraction uses it unchanged."""

    def mesh(self) -> TriangleMesh:
        """The current surface, detached, with outward winding; without faces if the surface has vanished."""
        ...


@dataclass(frozen=True)
class ColoredSurface:
    """The surface of a scene with its colors."""

    mesh: TriangleMesh
    """Closed, with outward winding, on the CPU."""
    color: Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n 3"]]
    """Display sRGB in [0, 1] by position (meters), meant for points on or near the surface."""


@runtime_checkable
class SceneContext(Protocol):
    """Services of a run for a representation's `from_scene`, which takes over the scene of an earlier stage.

    Surfaces of all representations are extracted as in the export: from the mesh or the density field if there is one,
    else from renders. The methods raise ValueError if the scene is empty.
    """

    @property
    def generator(self) -> torch.Generator:
        """The run's random number generator."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the new scene's tensors."""
        ...

    def surface(self, scene: Representation) -> ColoredSurface:
        """The closed surface of a scene, at the resolution of the export."""
        ...

    def textured_mesh(self, scene: Representation) -> tuple[TriangleMesh, TriangleMesh]:
        """The mesh that the export would write, unwrapped, with normals and a texture; and the finer one behind it."""
        ...


@runtime_checkable
class Buildable(Protocol):
    """The settings, a dataclass, of a representation that a run can start with.

    Optional, here and in `TakesOver`:
        blank(device) -> Representation: a scene of the same kind to load a checkpoint into and to try settings on,
            quickly and without reading files. Without it `build` is called.
        trains_shape (class attribute): False if only the colors of a given shape are trained; True if it is missing.
    """

    def build(self, generator: torch.Generator, device: torch.device) -> Representation:
        """The scene before the first step, on `device`; `generator` draws what is random about it.

        Raises ValueError for settings out of range.
        """
        ...


@runtime_checkable
class TakesOver(Protocol):
    """The settings, a dataclass, of a representation that a later stage can train.

    With `Buildable` or a method `blank` beside it: a run that goes on has a checkpoint and no earlier scene.
    """

    def from_scene(self, scene: Representation, context: SceneContext) -> Representation:
        """A scene on `context.device` that looks like `scene`, which is left as it is.

        Raises ValueError if that cannot be done, such as for an empty scene.
        """
        ...


RepresentationConfig = Buildable | TakesOver
"""The settings, a dataclass, of a representation. Its `__post_init__` raises ValueError for those that do not fit
together."""


@runtime_checkable
class Savable(Protocol):
    """A representation with its own exchange format, which the export writes beside the mesh."""

    def save(self, folder: Path) -> Path:
        """Write the scene into `folder` and return the path of the file."""
        ...
