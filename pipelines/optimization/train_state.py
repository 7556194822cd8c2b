"""The state that a training step changes, as named tensors: saving, loading, restoring and checking it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from steindreamer.representations import Representation
from steindreamer.representations.background import Environment

from ..errors import DamagedCheckpoint
from .average import ParameterAverage
from .draw_count import DrawCount
from .optimizers import load_optimizer_tensors, optimizer_tensors
from .out_of_memory import is_out_of_memory
from .scene_buffers import snapshot_buffers

LARGEST_GRADIENT = 1e18
"""Largest gradient that counts as finite: Adam squares gradients, and single precision overflows at 3e38."""


class TrainState:
    """The state of a stage. The same tensors before a step give bit-identical tensors after it (on the CPU)."""

    def __init__(
        self,
        representation: Representation,
        distillers: nn.ModuleDict,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
        environment: Environment | None = None,
        average: ParameterAverage | None = None,
        draw_counts: Mapping[str, DrawCount] | None = None,
        *,
        steps: int,
    ) -> None:
        """Start counting at step 0; the components are referenced, not copied.

        Args:
            representation, distillers, environment: modules whose state is included; all parameters of the
                representation and of the environment are.
            optimizer: has one parameter per group, with a `name`.
            generator: the source of all random numbers of a step.
            average: the average of the representation's parameters; None if there is none.
            draw_counts: choose the number of draws of distillers, by modality.
            steps: length of the stage.
        """
        self.representation = representation
        self.distillers = distillers
        self.optimizer = optimizer
        self.generator = generator
        self.environment = environment
        self.average = average
        self.draw_counts = draw_counts or {}
        self.steps = steps
        self.done = 0
        """Number of steps of this stage that have been taken, including skipped ones."""
        self.skipped = 0
        """Number of steps of the run that were skipped for non-finite values."""
        self.consecutive_skips = 0
        """Number of skipped steps since the last one that was not skipped."""

    def tensors(self) -> dict[str, Tensor]:
        """The complete state by name; parameters, buffers and the optimizer's moments are not copied."""
        out = {f"representation.{k}": v for k, v in self.representation.named_parameters()}
        out |= {f"representation.{k}": v for k, v in self.representation.named_buffers()}
        out |= {f"distiller.{k}": v for k, v in self.distillers.state_dict().items()}
        if self.environment is not None:
            out |= {f"environment.{k}": v for k, v in self.environment.state_dict().items()}
        if self.average is not None:
            out |= {f"average.{k}": v for k, v in self.average.tensors().items()}
        out |= {f"draws.{k}": v.tensor() for k, v in self.draw_counts.items()}
        out |= {f"optimizer.{k}": v for k, v in optimizer_tensors(self.optimizer).items()}
        out["generator"] = self.generator.get_state()
        out["counters"] = torch.tensor([self.done, self.skipped, self.consecutive_skips])
        return out

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Continue from a saved state. Raises DamagedCheckpoint if it is not a state of this stage, or not finite."""

        def under(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        try:
            self.representation.load_tensors(under("representation."))
            self.distillers.load_state_dict(under("distiller."))
            if self.environment is not None:
                self.environment.load_state_dict(under("environment."))
            if self.average is not None:
                self.average.load_tensors(under("average."))
            for name, count in self.draw_counts.items():
                count.load(tensors[f"draws.{name}"])
            load_optimizer_tensors(self.optimizer, under("optimizer."))
            self._load_counters(tensors["counters"])
            self.generator.set_state(tensors["generator"])
        except (KeyError, RuntimeError, ValueError, TypeError, OverflowError) as error:
            if is_out_of_memory(error):
                raise
            message = error.args[0] if isinstance(error, KeyError) and error.args else error
            raise _does_not_fit(message) from None
        if name := self.first_not_finite():
            raise _does_not_fit(f"'{name}' is not finite")

    def snapshot(self) -> Callable[[], None]:
        """Save the state that a step changes before the optimizer's update. The returned function restores it, except
        for gradients.
        """
        drawn, counted = self.generator.get_state(), (self.done, self.skipped, self.consecutive_skips)
        # Renderers accumulate statistics in buffers, such as the gradients for the densification of Gaussians.
        restore_buffers = snapshot_buffers(self.representation)
        learned = {name: tensor.clone() for name, tensor in self.distillers.state_dict().items()}

        def restore() -> None:
            self.generator.set_state(drawn)
            self.done, self.skipped, self.consecutive_skips = counted
            restore_buffers()
            self.distillers.load_state_dict(learned)

        return restore

    def first_not_finite(self, tensors: Mapping[str, Tensor] | None = None) -> str:
        """Name of the first of `tensors` (default: the whole state) that is not finite; empty if all are.

        A scene's buffers may hold infinity, such as for a density that is not known yet, but never NaN.
        """
        buffers = {f"representation.{name}" for name, _ in self.representation.named_buffers()}
        for name, tensor in (self.tensors() if tensors is None else tensors).items():
            if not tensor.is_floating_point() or _is_finite(tensor):
                continue
            if name not in buffers or bool(tensor.isnan().any()):
                return name
        return ""

    def _load_counters(self, counters: Tensor) -> None:
        if counters.shape != (3,) or counters.is_floating_point():
            raise ValueError(f"the counters are {counters.dtype} {tuple(counters.shape)}")
        done, skipped, consecutive = (int(v) for v in counters)
        if not (0 <= consecutive <= done <= self.steps and 0 <= consecutive <= skipped):
            raise ValueError(f"the counters are {done}, {skipped}, {consecutive} of {self.steps} steps")
        self.done, self.skipped, self.consecutive_skips = done, skipped, consecutive


def not_finite_step(losses: Mapping[str, float], representation: Representation) -> str:
    """Name of the first loss or gradient of a step that is not finite; empty if all are.

    Gradients of at least `LARGEST_GRADIENT` count as not finite.
    """
    for name, value in losses.items():
        if not math.isfinite(value):
            return f"loss '{name}'"
    for name, parameter in representation.named_parameters():
        if parameter.grad is not None and parameter.grad.numel():
            lowest, highest = parameter.grad.aminmax()
            # NaN compares as not smaller
            if not bool((lowest > -LARGEST_GRADIENT) & (highest < LARGEST_GRADIENT)):
                return f"gradient of '{name}'"
    return ""


def _is_finite(tensor: Tensor) -> bool:
    # The sum is almost always finite, and needs no second tensor of that size.
    return math.isfinite(float(tensor.detach().sum())) or bool(torch.isfinite(tensor).all())


def _does_not_fit(message: object) -> DamagedCheckpoint:
    return DamagedCheckpoint(f"does not fit this configuration, or is damaged: {' '.join(str(message).split())}")
