"""One stage of distillation: a scene, a prior and a distiller, one optimizer step at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steindreamer.distill import Distiller, GeometryEstimator, Prior
from steindreamer.distill.ranks import ALONE, Ranks
from steindreamer.distill.variance.probe import (
    REFERENCE,
    EstimatorVariance,
    ProbeView,
    probe_noise_variance,
    probe_variance,
    sds_like,
)
from steindreamer.representations import Adaptive, Representation, particles_of
from steindreamer.representations.background import Environment, EnvironmentConfig

from ..errors import SettingsError, UserError
from ..foreign_code import culprit
from .average import ParameterAverage
from .draw_count import MEASURED_DRAWS, DrawCount, StepMeasurement
from .edits import Edit
from .modalities import check_crops, check_modalities
from .objective import Objective, ReusableStep, total_loss
from .oom_retry import retry_with_smaller_micro_batch
from .optimizers import check_still_optimized, optimizer_groups, set_learning_rates
from .render_step import TrainingView, ViewRenderer
from .scene_buffers import snapshot_buffers
from .shared_step import check_equal, statistics_summed, sum_gradients
from .stage_config import StageConfig
from .train_state import TrainState, not_finite_step
from .views import ViewsConfig

Result = TypeVar("Result")

MAX_CONSECUTIVE_SKIPS = 20
"""Maximum number of consecutive steps that may be skipped for non-finite values before the run ends."""
CHECK_EVERY = 50
"""Steps between comparisons of the scenes of several processes."""


@dataclass(frozen=True)
class StepInfo:
    """The log entry of one step."""

    step: int
    """Steps of the run so far, including this one."""
    stage: str
    loss: float
    """Distillation loss: 0.5 * ||w residual||^2, summed over the latent, mean over views; NaN for a skipped step."""
    values: dict[str, float]
    """Regularizers (before weighting), diagnostics of the distiller, and the variance of the gradient if it was
    measured."""
    skipped: str = ""
    """Reason why the step was skipped; empty if it was not."""
    notes: tuple[str, ...] = ()
    """Further lines for the user, such as a smaller micro-batch."""
    modality: str = "color"
    """The modality that the step distilled."""


class Stage:
    """Distills one prompt into one scene."""

    def __init__(
        self,
        representation: Representation,
        distiller: Distiller | Mapping[str, Distiller],
        prior: Prior,
        embedding: Any,
        config: StageConfig,
        generator: torch.Generator,
        *,
        name: str = "coarse",
        offset: int = 0,
        estimator: GeometryEstimator | None = None,
        ranks: Ranks = ALONE,
        prompt: str = "",
        embed: Callable[[str], Any] | None = None,
    ) -> None:
        """Set up the stage before its first step.

        Args:
            representation: the scene, on the prior's device; trained in place.
            distiller: estimates the gradient of the rendered images; one for each modality of `config.fractions`, or a
                single one for a stage of one modality. Its learned state is part of the stage's state.
            prior: the frozen diffusion model that the distillers evaluate.
            embedding: the prompt, as `prior.embed` returned it.
            config: number of steps, views, regularizers, optimizer.
            generator: the source of all random numbers; advanced by every step.
            name: the stage's name in messages.
            offset: number of steps of the previous stages.
            estimator: for regularizers that compare rendered with estimated geometry; not needed without them.
            ranks: the processes that share the views of each step.
            prompt: the text of `embedding`.
            embed: embeds another prompt with the same negative prompt, as this stage's method phrases them; None: the
                prompt cannot be changed.

        Raises UserError for a regularizer that this scene does not have, a modality that the prior does not know, or a
        method or scene for which `reuse` or `ema` is not defined, a number of views that the processes cannot share;
        ValueError if the estimator or the distiller of a modality is missing.
        """
        check_modalities(name, config, prior)
        check_crops(name, config, prior)
        self.name = name
        self.offset = offset
        self.representation = representation
        self.distillers = _by_modality(distiller, config)
        self.prior = prior
        self.prompt, self._embed = prompt, embed
        self.edits: tuple[Edit, ...] = ()
        """Changes of settings during the run, the oldest first; see `edits.edit`."""
        self.config = config
        self.generator = generator
        self.ranks = ranks
        self._check_reuse_and_ema()
        self._check_shared_views()
        for each in self.distillers.values():
            each.use_ranks(ranks)
        environment: Environment | None = None
        if config.environment:
            environment = Environment(EnvironmentConfig(), generator).to(prior.device)
        self.renderer = ViewRenderer(representation, prior, embedding, config, environment, ranks)
        self.objective = Objective(representation, self.distillers, config.regularizers, estimator, ranks)
        self.rates = config.rates_schedule
        self.optimizer = config.optimizer.build(optimizer_groups(representation, environment))
        learned = nn.ModuleDict(self.distillers)
        self.draw_counts = {
            modality: DrawCount(each, config, config.fractions[modality])
            for modality, each in self.distillers.items()
            if each.chooses_draws
        }
        average = ParameterAverage(representation, config.ema) if config.ema else None
        self.state = TrainState(
            representation,
            learned,
            self.optimizer,
            generator,
            environment,
            average,
            self.draw_counts,
            steps=config.steps,
        )

    @property
    def embedding(self) -> Any:
        """The prompt, as `prior.embed` returned it."""
        return self.renderer.embedding

    def set_prompt(self, prompt: str) -> None:
        """Distill another prompt from the next step on; the negative prompt stays.

        Raises ValueError, and changes nothing, if the prior does not accept it or the stage cannot embed prompts.
        """
        if self._embed is None:
            raise ValueError("this stage was built without a function that embeds prompts")
        self.renderer.embedding, self.prompt = self._embed(prompt), prompt

    @property
    def modality(self) -> str:
        """The most frequent modality of the stage's steps, the first of `MODALITIES` among equals."""
        return max(self.config.fractions, key=self.config.fractions.__getitem__)

    @property
    def distiller(self) -> Distiller:
        """The distiller of the most frequent modality."""
        return self.distillers[self.modality]

    @property
    def done(self) -> int:
        """Steps of this stage so far, including skipped ones."""
        return self.state.done

    @property
    def skipped(self) -> int:
        """Steps of the run so far that were skipped for non-finite values."""
        return self.state.skipped

    @property
    def total(self) -> int:
        """Steps of the run so far."""
        return self.offset + self.done

    @property
    def progress(self) -> float:
        """Fraction of the stage that is done, in [0, 1]."""
        return self.done / self.config.steps

    @property
    def has_learned_nothing(self) -> bool:
        """Whether the stage is over and every one of its steps was skipped."""
        return 0 < self.config.steps <= self.done == self.state.consecutive_skips

    def step(self) -> StepInfo:
        """Take one step: predictions of the prior for new views, and `reuse` optimizer steps with them.

        If memory runs out, it is repeated with the same random numbers and a smaller micro-batch. The last step of a
        stage with `ema` ends with the averaged parameters.

        Raises UserError after too many skipped steps, if the scene is not finite any more, if a component breaks its
        contract, or if not even one view fits into memory.
        """
        number = self.total + 1
        try:
            (info, reusable), notes = self._retried(self._backward)
            if reusable is not None:
                self.optimizer.step()
                notes += self._reuse(reusable)
        except UserError:
            raise
        except ValueError as error:  # a component's result violates its contract
            who = f"{where}: " if (where := culprit(error)) else ""
            raise UserError(f"step {number}, in stage '{self.name}': {who}{error}") from error
        reusable = None  # its views must not be alive when the scene changes its size
        if not info.skipped:
            if isinstance(self.representation, Adaptive):
                self.representation.adapt(self.done, self.config.steps, self.optimizer, self.generator)
                check_still_optimized(self.optimizer, self.representation)
            self.check_finite({f"representation.{k}": v for k, v in self.representation.named_parameters()})
            if self.done % CHECK_EVERY == 0:
                check_equal(self.ranks, list(self.representation.parameters()), self.total)
        if (average := self.state.average) is not None:
            average.update(self.done)
            if self.done == self.config.steps:
                average.apply()
        return replace(info, notes=(*notes, *info.notes))

    def _retried(self, attempt: Callable[[], Result]) -> tuple[Result, list[str]]:
        """The result of the first attempt that fits into memory, and a line about each failed one.

        Several processes exchange tensors within a step, so that one of them cannot repeat it: it fails at once.
        """
        if self.ranks.count > 1:
            return attempt(), []
        return retry_with_smaller_micro_batch(attempt, self.prior, self.config.views.per_step, self.state.snapshot)

    def _reuse(self, reusable: ReusableStep) -> list[str]:
        """Take the further optimizer steps of a step; returns lines for the user.

        They end early if a loss or gradient is not finite.
        """
        notes: list[str] = []
        for number in range(2, self.config.reuse + 1):
            quantity, failed = self._retried(lambda: self._backward_again(reusable))
            notes += failed
            if quantity:
                return [
                    *notes,
                    f"optimizer steps {number} to {self.config.reuse} left out, the {quantity} is not finite",
                ]
            self.optimizer.step()
        return notes

    def _backward_again(self, reusable: ReusableStep) -> str:
        """Compute the gradients of a further optimizer step; returns the name of the first that is not finite."""
        loss = self.objective.reuse(reusable)
        self._differentiate(loss)
        total = self.ranks.means({"total": float(loss.detach())})
        return not_finite_step(total, self.representation)

    def _differentiate(self, loss: Float[Tensor, ""]) -> None:
        """Compute the gradients of the parameters: those of the losses of all processes together."""
        self.optimizer.zero_grad(set_to_none=True)
        add_statistics = statistics_summed(self.ranks, self.representation)
        loss.backward()
        sum_gradients(self.ranks, [p for group in self.optimizer.param_groups for p in group["params"]])
        add_statistics()

    def _backward(self) -> tuple[StepInfo, ReusableStep | None]:
        """The part of a step before the optimizer: compute the gradients of the parameters and update the distiller.

        None instead of what further optimizer steps need if the step is skipped.
        """
        config, progress = self.config, self.progress
        set_learning_rates(self.optimizer, self.representation, progress, self.rates.value_at(progress))
        measurement = StepMeasurement(self.prior.device) if self.draw_counts else None
        view = self.renderer(config.views, progress, self.generator)
        count = self.draw_counts.get(view.modality)
        if count is None or not count.is_due(self.done):
            measurement = None
        distillation = self.objective.distill(view, progress, self.generator, MEASURED_DRAWS if measurement else None)
        if measurement:
            measurement.distilled(self.distillers[view.modality], view, distillation, self.representation)
        regularizers = self.objective.regularize(view.output, view.cameras, progress)
        loss = total_loss(distillation, regularizers)

        self._differentiate(loss)
        measured = measurement.differentiated(self.representation) if measurement else None
        self.state.done += 1
        values = {name: float(term.value.detach()) for name, term in regularizers.items()}
        values.update(distillation.diagnostics)
        if count is not None or len(distillation.observations) > 1:
            values["draws"] = float(len(distillation.observations))
        distilled = float(distillation.loss.detach()) * self.ranks.count
        values = self.ranks.means({**values, "loss": distilled})
        distilled = values.pop("loss")
        if len(self.distillers) > 1:
            values[f"loss/{view.modality}"] = distilled
        if quantity := not_finite_step({"distillation": distilled, **values}, self.representation):
            return self._skip(quantity, values, view.modality), None
        self.state.consecutive_skips = 0
        if config.probe_every and self.done % config.probe_every == 0:
            if self.ranks.leads:
                with self.ranks.alone():
                    values |= self._measure_variance(view, progress)
        # The gradient is done, so the coefficients may now learn from this step, with the same parameters.
        distiller = self.distillers[view.modality]
        distiller.update(distillation, self.renderer.gram(view) if distiller.needs_gram else None)
        chosen = count.add(measured) if count and measured else ""
        notes = (chosen,) if chosen else ()
        info = StepInfo(self.total, self.name, distilled, values, notes=notes, modality=view.modality)
        return info, ReusableStep.of(view, distillation, progress)

    def _skip(self, quantity: str, values: dict[str, float], modality: str) -> StepInfo:
        self.state.skipped += 1
        self.state.consecutive_skips += 1
        if self.state.consecutive_skips >= MAX_CONSECUTIVE_SKIPS:
            raise UserError(
                f"the {quantity} was not finite for {MAX_CONSECUTIVE_SKIPS} steps in a row (step {self.total}); "
                "lower the learning rates or the guidance scale"
            )
        reason = f"the {quantity} is not finite"
        return StepInfo(self.total, self.name, math.nan, values, skipped=reason, modality=modality)

    def render_views(self, views: ViewsConfig, generator: torch.Generator, modality: str | None = None) -> TrainingView:
        """Render the current scene as a step does, from random cameras of `views`; the modality is drawn if None."""
        return self.renderer(views, self.progress, generator, modality)

    def probe(
        self,
        distillers: Mapping[str, Distiller],
        tuples: int,
        generator: torch.Generator,
        modality: str | None = None,
    ) -> dict[str, EstimatorVariance]:
        """Variance of the gradients of `distillers`, and of SDS as "sds", for the current scene and the same random
        tuples.

        Args:
            distillers: the distillers to measure, by name.
            tuples: number of draws of timestep, camera and noise.
            generator: source of all draws; nothing else changes. See `probe_variance`.
            modality: the modality of the images; the most frequent one of the stage if None.
        """
        views, modality = replace(self.config.views, per_step=1), modality or self.modality

        def draw(generator: torch.Generator) -> ProbeView:
            view = self.render_views(views, generator, modality)
            return ProbeView(view.image, view.geometry, view.condition)

        distillers = {REFERENCE: sds_like(self.distillers[modality]), **distillers}
        parameters = [p for p in self.representation.parameters() if p.requires_grad]
        restore = snapshot_buffers(self.representation)
        try:
            return probe_variance(
                distillers, draw, parameters, tuples=tuples, progress=self.progress, generator=generator
            )
        finally:
            restore()

    def _measure_variance(self, view: TrainingView, progress: float) -> dict[str, float]:
        """Variance of this step's gradient and of the SDS gradient.

        The variance is over the noise, of the weighted residual summed over the latent (mean over views); with
        `probe_tuples` also of the gradient with respect to the parameters.
        """
        distiller = self.distillers[view.modality]
        probe = probe_noise_variance(
            distiller,
            view.image.detach(),
            view.geometry,
            view.condition,
            progress=progress,
            generator=self.generator,
        )
        values = {"variance": probe.within_noise, "variance_sds": probe.within_noise_sds}
        if self.config.probe_tuples:
            fork = torch.Generator()
            fork.set_state(self.generator.get_state())
            found = self.probe({"own": distiller}, self.config.probe_tuples, fork, view.modality)
            for name, variance in found.items():
                for moment in ("noise", "level", "camera", "signal", "cosine"):
                    values[f"probe/{name}/{moment}"] = getattr(variance.parameters, moment)
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _check_shared_views(self) -> None:
        """Raises SettingsError for a number of views per step that the processes cannot share equally."""
        views, count = self.config.views.per_step, self.ranks.count
        if views % count:
            raise SettingsError(
                f"stages.{self.name}.views.per_step is {views}, which {count} processes cannot share equally; set a "
                f"multiple of {count}"
            )

    def _check_reuse_and_ema(self) -> None:
        """Raises SettingsError for a method or a scene for which `reuse` or `ema` is not defined."""
        reuse, path = self.config.reuse, f"stages.{self.name}"
        if reuse > 1 and any(distiller.learned_score is not None for distiller in self.distillers.values()):
            raise SettingsError(
                f"{path}.reuse is {reuse}, but the method compares the prior with a LoRA denoiser, which must be "
                f"trained on the scene between optimizer steps; set {path}.reuse=1, or choose another method, such as "
                "ssd"
            )
        adaptive = [type(each).__name__ for each in particles_of(self.representation) if isinstance(each, Adaptive)]
        if self.config.ema and adaptive:
            raise SettingsError(
                f"{path}.ema is {self.config.ema:g}, but {adaptive[0]} adapts its size in training, so that parameters "
                f"of different steps cannot be averaged; set {path}.ema=0, or use it in a stage that trains a mesh or "
                "texels"
            )

    def tensors(self) -> dict[str, Tensor]:
        """The complete state by name: everything that the next step depends on."""
        return self.state.tensors()

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Continue from a saved state. Raises DamagedCheckpoint if it is not a state of this stage."""
        self.state.load_tensors(tensors)

    def check_finite(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Raises UserError that names the first of `tensors` (default: the whole state) that is not finite."""
        if name := self.state.first_not_finite(tensors):
            raise UserError(
                f"'{name}' is not finite after step {self.total}, in stage '{self.name}': the run has diverged. This "
                "state is not saved, earlier checkpoints are kept (--resume continues from them); lower "
                f"stages.{self.name}.rates, the scene's own learning rates or the guidance scale"
            )


def _by_modality(given: Distiller | Mapping[str, Distiller], config: StageConfig) -> dict[str, Distiller]:
    """The distiller of each modality of a stage. Raises ValueError if one is missing."""
    wanted = config.fractions
    if isinstance(given, Distiller):
        given = dict.fromkeys(wanted if len(wanted) == 1 else (), given)
    if missing := [modality for modality in wanted if modality not in given]:
        raise ValueError(f"each modality of a stage needs its own distiller, but none was given for {missing}")
    return {modality: given[modality] for modality in wanted}
