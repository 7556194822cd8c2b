"""The number of draws per view that a stage chooses itself (`method.draws=auto`).

During a few steps, the stage takes two independent draws per view. Half the squared distance between the gradients of
the two draws, pulled back to the scene's parameters, is the variance within a view; half that between the gradients of
two steps is the variance of a step with two draws, from which the variance between cameras follows. The prior is not
called more often than for two draws; each measured step costs one more backward pass through the renderer. With the
seconds of the step's parts, they give the number of draws that is worth its time (`DrawCost`).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steindreamer.clock import seconds_now
from steindreamer.distill import Distillation, Distiller
from steindreamer.distill.priors.base import encode
from steindreamer.distill.ranks import ALONE
from steindreamer.distill.variance.draw_cost import DrawCost
from steindreamer.distill.variance.moments import standard_error
from steindreamer.representations import Representation

from .render_step import TrainingView
from .scene_buffers import snapshot_buffers
from .stage_config import StageConfig

MEASURED_STEPS = 16
"""Steps of one measurement, an even number."""
MEASURED_DRAWS = 2
"""Independent draws per view in a measured step."""
MAX_CHOSEN = 16
"""Largest number of draws that is chosen."""
LEAST_GAIN = 1.05
"""Least factor of time that more than one draw must save to be chosen."""
LATER = 0.65
"""Fraction of the stage after which the last measurement starts."""


@dataclass(frozen=True)
class MeasuredStep:
    """Gradients and seconds of one step with two independent draws per view; gradients are those of the parameters."""

    within: float
    """Estimate of the variance within the views of a step with one draw."""
    gradient: tuple[Tensor, ...]
    """Gradient of the step: the mean of both draws, and the regularizers."""
    view_seconds: float
    """Seconds to render and encode the views, forward and backward."""
    draw_seconds: float
    """Seconds of one draw for all views."""


class DrawCount:
    """Chooses the number of draws of one distiller of a stage.

    It is measured at the start of the stage, at the first step in full resolution, and once later. The chosen number is
    part of the checkpoints; a measurement that is interrupted starts again.
    """

    def __init__(self, distiller: Distiller, config: StageConfig, fraction: float = 1.0) -> None:
        """Start without a measurement: one draw.

        Args:
            distiller: its `draws` are set.
            config: length and resolutions of the stage.
            fraction: fraction of the stage's steps that use the distiller.
        """
        self.distiller = distiller
        self.reuse = config.reuse
        self.starts = _starts(config, fraction)
        """Steps of the stage at which a measurement starts."""
        self.completed = 0
        """Number of `starts` that have been dealt with."""
        self._steps: list[MeasuredStep] = []

    def is_due(self, done: int) -> bool:
        """Whether the next step is to be measured, after `done` steps of the stage."""
        started = sum(start <= done for start in self.starts)
        if started > self.completed + 1:  # the previous measurement did not end before this one started
            self.completed, self._steps = started - 1, []
        return started > self.completed

    def add(self, step: MeasuredStep) -> str:
        """Add a measured step. Returns a line for the user when a number has been chosen, else an empty string."""
        shapes = [gradient.shape for gradient in step.gradient]
        if self._steps and shapes != [gradient.shape for gradient in self._steps[-1].gradient]:
            self._steps = self._steps[: len(self._steps) // 2 * 2]  # the scene has changed its size within a pair
        self._steps.append(step)
        if len(self._steps) < MEASURED_STEPS:
            return ""
        cost = measured_cost(self._steps, self.reuse)
        self._steps, self.completed = [], self.completed + 1
        self.distiller.draws = chosen_draws(cost)
        return (
            f"method.draws=auto: {self.distiller.draws} per view from now on (variance within a view "
            f"{cost.within:.3g}, between views {cost.between:.3g}; {cost.view_seconds:.3g} s to render and encode, "
            f"{cost.draw_seconds:.3g} s per draw)"
        )

    def tensor(self) -> Tensor:
        """The state to save: the chosen number and the number of completed measurements."""
        return torch.tensor([self.distiller.draws, self.completed])

    def load(self, state: Tensor) -> None:
        """Continue from a saved state. Raises ValueError for one that is none."""
        if state.shape != (2,) or state.is_floating_point():
            raise ValueError(f"the state of method.draws=auto is {state.dtype} {tuple(state.shape)}")
        draws, completed = (int(value) for value in state)
        if not (1 <= draws <= MAX_CHOSEN and 0 <= completed <= len(self.starts)):
            raise ValueError(f"the state of method.draws=auto is {draws}, {completed}")
        self.distiller.draws, self.completed, self._steps = draws, completed, []


class StepMeasurement:
    """Measures a step: the clock runs while views are rendered and differentiated, on CUDA in step with the device."""

    def __init__(self, device: torch.device) -> None:
        """Start the clock, before the views are rendered."""
        self.device = device
        self._ranks = ALONE
        self._within = self._view_seconds = self._draw_seconds = 0.0
        self._start = seconds_now(device)

    def distilled(
        self, distiller: Distiller, view: TrainingView, distillation: Distillation, scene: Representation
    ) -> None:
        """Compare the gradients of the two independent draws of a distillation; the clock is stopped meanwhile."""
        assert distillation.seconds is not None
        self._ranks = distiller.ranks
        self._view_seconds = seconds_now(self.device) - self._start - distillation.seconds
        self._draw_seconds = distillation.seconds / len(distillation.observations)
        self._within = _half_squared_difference(distiller, view, distillation, scene)
        self._start = seconds_now(self.device)

    def differentiated(self, scene: Representation) -> MeasuredStep:
        """Stop the clock after the backward pass of the step."""
        seconds = self._view_seconds + seconds_now(self.device) - self._start
        gradient = tuple(torch.zeros_like(each) if each.grad is None else each.grad.clone() for each in _trained(scene))
        # The gradient is that of all processes, whose views are independent of each other.
        shared = self._ranks.means({"within": self._within, "view": seconds, "draw": self._draw_seconds})
        return MeasuredStep(self._ranks.count * shared["within"], gradient, shared["view"], shared["draw"])


def _starts(config: StageConfig, fraction: float) -> list[int]:
    """Steps of a stage at which measurements start, each after the end of the one before."""
    changes = config.warmup_resolution != config.resolution
    full = math.ceil(config.warmup * config.steps) if changes else 0
    later, length = int(LATER * config.steps), MEASURED_STEPS / fraction
    starts = [0, full] if full >= length else [full]
    return [*starts, later] if later - full >= length else starts


def _half_squared_difference(
    distiller: Distiller, view: TrainingView, distillation: Distillation, scene: Representation
) -> float:
    """Half the squared distance between the gradients of two draws with respect to the scene's parameters.

    The graph of the view is kept for the step's own backward pass, and the scene's buffers are restored.
    """
    count = len(distillation.clean) * distiller.ranks.count
    first, second = (each.weight * each.residual / count for each in distillation.observations)
    restore = snapshot_buffers(scene)  # renderers would count the gradients for the densification
    encoded = encode(distiller.prior, view.image)
    pulled = torch.autograd.grad(
        encoded, _trained(scene), (first - second).to(encoded.dtype), retain_graph=True, allow_unused=True
    )
    restore()
    return 0.5 * sum(float(each.double().square().sum()) for each in pulled if each is not None)


def _trained(scene: Representation) -> list[Tensor]:
    return [parameter for parameter in scene.parameters() if parameter.requires_grad]


def measured_cost(steps: Sequence[MeasuredStep], reuse: int = 1) -> DrawCost:
    """Cautious variances and median seconds of measured steps.

    The variance within a view is taken one standard error lower, and that between cameras one standard error higher,
    so that an uncertain measurement chooses few draws.

    Args:
        steps: an even number of steps, of which consecutive ones are compared in disjoint pairs.
        reuse: optimizer steps per step, each of which renders.
    """
    withins = [step.within for step in steps]
    betweens = []
    for one, other in zip(steps[::2], steps[1::2], strict=True):
        pairs = zip(one.gradient, other.gradient, strict=True)
        spread = 0.5 * sum(float((a.double() - b.double()).square().sum()) for a, b in pairs)
        betweens.append(spread - (one.within + other.within) / 2 / MEASURED_DRAWS)
    within, between = sum(withins) / len(withins), sum(betweens) / len(betweens)
    later = steps[1:]  # the first one may have compiled or allocated
    return DrawCost(
        max(within - standard_error(withins), 0.0),
        max(between, 0.0) + standard_error(betweens),
        reuse * statistics.median(step.view_seconds for step in later),
        statistics.median(step.draw_seconds for step in later),
    )


def chosen_draws(cost: DrawCost) -> int:
    """The best number of draws up to `MAX_CHOSEN`; 1 unless more save at least the time of `LEAST_GAIN`."""
    best = cost.best(MAX_CHOSEN)
    return best if cost.gain(best) >= LEAST_GAIN else 1
