"""The loss of a training step: distillation of the rendered image, and weighted regularizers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steindreamer.distill import Distillation, Distiller, GeometryEstimator
from steindreamer.distill.ranks import ALONE, Ranks
from steindreamer.representations import Cameras, RenderOutput, Representation

from ..errors import SettingsError, UserError, nearest
from ..settings.schedules import Schedule, parse_schedule
from .estimated_geometry import ESTIMATED, estimated_regularizers
from .regularizers import REGULARIZERS
from .render_step import TrainingView


@dataclass(frozen=True)
class Weighted:
    """The value and weight of a regularizer at one step."""

    weight: float
    value: Float[Tensor, ""]
    """Value before weighting, with its graph."""


@dataclass(frozen=True)
class ReusableStep:
    """The views and the distillation of a step, without their graph, for further optimizer steps."""

    distillation: Distillation
    modality: str
    cameras: Cameras
    progress: float
    render_again: Callable[[], tuple[RenderOutput, Float[Tensor, "b 3 h w"]]]

    @classmethod
    def of(cls, view: TrainingView, distillation: Distillation, progress: float) -> ReusableStep:
        """The reusable part of a step at `progress`."""
        # A graph that is alive keeps the scene from changing its size.
        without_graph = replace(distillation, loss=distillation.loss.detach())
        return cls(without_graph, view.modality, view.cameras, progress, view.render_again)


class Objective:
    """The loss of a stage: distillation and weighted regularizers."""

    def __init__(
        self,
        representation: Representation,
        distillers: Mapping[str, Distiller],
        weights: Mapping[str, Any],
        estimator: GeometryEstimator | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        """Look up the regularizers by name.

        Args:
            representation: the scene, for its own regularizers.
            distillers: turn rendered images into a loss, by modality.
            weights: number or schedule per regularizer (`StageConfig.regularizers`); those of 0 are left out.
            estimator: used by the regularizers of `ESTIMATED`.
            ranks: the processes that share the views of a step.

        Raises UserError for a regularizer that this scene does not have, ValueError if the estimator is missing.
        """
        self.representation = representation
        self.distillers = distillers
        self.ranks = ranks
        self.weights = _schedules(weights, representation)
        self._on_images = REGULARIZERS | (estimated_regularizers(estimator) if estimator is not None else {})
        if missing := self.weights.keys() & ESTIMATED.keys() - self._on_images.keys():
            raise ValueError(f"regularizers {_listed(missing)} need a geometry estimator, but none was given: pass one")

    def distill(
        self, view: TrainingView, progress: float, generator: torch.Generator, independent_draws: int | None = None
    ) -> Distillation:
        """The distillation of a rendered view.

        Args:
            view: the rendered images with their modality, condition and geometry.
            progress: fraction of the stage that is done, in [0, 1].
            generator: source of timestep and noise.
            independent_draws: see `Distiller.forward`; for measurements of the variance.
        """
        return self.distillers[view.modality](
            view.image,
            view.geometry,
            view.condition,
            progress=progress,
            generator=generator,
            independent_draws=independent_draws,
        )

    def reuse(self, step: ReusableStep) -> Float[Tensor, ""]:
        """The loss of the step's views as the scene renders them now, with the predicted x0 of the step.

        Regularizers are evaluated on the new rendering, with the weights of the step. The prior is not called, except
        to encode (`Distiller.reuse`).
        """
        output, image = step.render_again()
        distillation = self.distillers[step.modality].reuse(step.distillation, image)
        return total_loss(distillation, self.regularize(output, step.cameras, step.progress))

    def regularize(self, output: RenderOutput, cameras: Cameras, progress: float) -> dict[str, Weighted]:
        """The regularizers with nonzero weight, by name. Raises UserError for one that the scene does not return.

        With several processes, the gradients of all of them together are those of the regularizer over all views.
        """
        count, values = self.ranks.count, dict[str, Tensor]()
        if self.weights.keys() & self._on_images.keys():
            values |= self.regularize_images(*_of_all(output, cameras, self.ranks))
        values |= {name: _term_of_all(output, name, self.ranks) for name in self.weights if name in output.terms}
        if self.weights.keys() - values.keys():
            values |= {name: _share(value, count) for name, value in self.representation.regularizers().items()}
        if missing := self.weights.keys() - values.keys():
            name = type(self.representation).__name__
            raise UserError(f"{name} declares the regularizer {_listed(missing)} but did not return it")
        return {name: Weighted(schedule.value_at(progress), values[name]) for name, schedule in self.weights.items()}

    def regularize_images(self, output: RenderOutput, cameras: Cameras) -> dict[str, Float[Tensor, ""]]:
        """Values of the image regularizers with nonzero weight, by name."""
        return {name: of(output, cameras) for name, of in self._on_images.items() if name in self.weights}


def total_loss(distillation: Distillation, regularizers: Mapping[str, Weighted]) -> Float[Tensor, ""]:
    """The scalar to differentiate: the distillation loss plus weighted regularizers.

    The distillation loss is 0.5 * ||w residual||^2, summed over the elements of the latent (or image, for pixel-space
    priors) and averaged over views, as in the papers and in threestudio, so that published regularizer weights apply.
    """
    total = distillation.loss
    for term in regularizers.values():
        total = total + term.weight * term.value
    return total


def _schedules(weights: Mapping[str, Any], representation: Representation) -> dict[str, Schedule]:
    """Schedules of the nonzero weights. Raises SettingsError for a regularizer that this scene does not have."""
    known = {*REGULARIZERS, *ESTIMATED, *representation.render_terms, *representation.regularizers()}
    for name in weights:
        if name not in known:
            raise SettingsError(
                f"unknown regularizer regularizers.{name}{nearest(name, known)}; {type(representation).__name__} has: "
                f"{_listed(known)}"
            )
    return {name: parse_schedule(value, name) for name, value in weights.items() if value}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _share(value: Float[Tensor, ""], count: int) -> Float[Tensor, ""]:
    """An equal value, with the gradient divided by `count`."""
    return value if count == 1 else value.detach() + (value - value.detach()) / count


def _term_of_all(output: RenderOutput, name: str, ranks: Ranks) -> Float[Tensor, ""]:
    """A term of the renderer over the views of all processes, with the gradient of the part of this one."""
    value = output.terms[name]
    if ranks.count == 1 or name not in output.term_counts:
        return _share(value, ranks.count)
    count = output.term_counts[name]
    counts, values = ranks.gather(torch.stack([count, value.detach()])[None]).unbind(1)
    total = counts.sum().clamp(min=1)
    return (counts * values).sum() / total + (value - value.detach()) * (count / total)


def _of_all(output: RenderOutput, cameras: Cameras, ranks: Ranks) -> tuple[RenderOutput, Cameras]:
    """The views of all processes, of which those of this one keep their graph."""
    if ranks.count == 1:
        return output, cameras
    rgb, opacity = ranks.gather_around(output.rgb), ranks.gather_around(output.opacity)
    depth, normal = ranks.gather_around(output.depth), ranks.gather_around(output.normal)
    poses, intrinsics = ranks.gather(cameras.camera_to_world), ranks.gather(cameras.intrinsics)
    return RenderOutput(rgb, opacity, depth, normal), Cameras(poses, intrinsics, cameras.height, cameras.width)
