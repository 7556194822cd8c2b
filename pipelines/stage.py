"""One stage of distillation: a scene, a prior and a distiller, one optimiser step at a time.

A stage is its state: `tensors()` is everything that has to be saved for the next step to be the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..distill import Distiller, GeometryEstimator, Gram, Guide, MicroBatched, Prior, Pullback
from ..distill.variance_probe import REFERENCE, EstimatorVariance, ProbeView, probe_variance, sds_like
from ..representations import Adaptive, Cameras, RenderOutput, Representation
from ..representations.environment import Environment, EnvironmentConfig, composite
from .errors import UserError, nearest
from .estimated_geometry import ESTIMATED, estimated_penalties
from .out_of_memory import halve_micro_batch
from .penalties import PENALTIES
from .schedules import Schedule, parse_schedule
from .shading import ShadingConfig, shade
from .views import ViewsConfig, sample_views

MAX_CONSECUTIVE_SKIPS = 20

REFINING_RATES = 0.1
"""See `StageConfig.rates`. At full rates a surface moves by centimetres per step, and the given shape is soon gone."""

SCENES = ("coarse", "mesh", "texture")
"""What a stage can train, in the order in which they follow each other."""


@dataclass
class StageConfig:
    """One stage of optimisation."""

    scene: str = "coarse"
    """What is trained: `coarse`, the representation that was chosen; `mesh`, a deformable mesh with its colours;
    `texture`, the texture of a fixed mesh. Where it differs from the stage before, the scene is converted."""
    steps: int = 400
    resolution: int = 128
    """Pixels of a training view (square)."""
    warmup_resolution: int = 64
    """Pixels during the first `warmup` of the steps: coarse shape first, and faster."""
    warmup: float = 0.3
    views: ViewsConfig = field(default_factory=ViewsConfig)
    normals: float = 0.0
    """Share of the steps that distil the picture of the normals (on black) instead of the colours: Fantasia3D's way to
    a shape."""
    shading: ShadingConfig = field(default_factory=ShadingConfig)
    environment: bool = False
    """A learned background, by view direction, instead of the plain colours of `views`."""
    regularisers: dict[str, Any] = field(default_factory=dict)
    """Weight per penalty: those of `PENALTIES` and `ESTIMATED` on the pictures, and the representation's own. A number,
    or a schedule `{from: 10, to: 1000, begin: 0.1, end: 0.5}` over shares of the stage. They stand beside a
    distillation loss that is averaged over pixels."""
    rates: float | None = None
    """Factor on all of the scene's learning rates. None: 1; `REFINING_RATES` for the shape of a run that begins from a
    mesh of the user's own, which is to be kept."""
    method: dict[str, Any] = field(default_factory=dict)
    """Settings of the distillation method that differ in this stage, such as `{timesteps: {maximum: 0.5}}`; with
    `name`, another method."""
    probe_every: int = 20
    """Steps between measurements of the gradient's variance; 0: never."""
    probe_tuples: int = 0
    """Draws of noise level, camera and noise (an even number) in each of them, for the whole variance in the scene's
    parameters; 0: only that over the noise in the step's own pictures."""

    @property
    def needs_estimator(self) -> bool:
        """Whether a penalty asks the geometry estimator."""
        return any(self.regularisers.get(name) for name in ESTIMATED)

    def validate(self, path: str = "stage") -> None:
        """Raises UserError, naming the setting under `path`."""
        if self.scene not in SCENES:
            raise UserError(f"{path}.scene is '{self.scene}'{nearest(self.scene, SCENES)}; known: {', '.join(SCENES)}")
        for name, value, least in (
            ("steps", self.steps, 0),
            ("resolution", self.resolution, 16),
            ("warmup_resolution", self.warmup_resolution, 16),
            ("probe_every", self.probe_every, 0),
            ("probe_tuples", self.probe_tuples, 0),
        ):
            if value < least:
                raise UserError(f"{path}.{name} is {value}; at least {least} is accepted")
        if self.probe_tuples % 2 or self.probe_tuples == 2:
            raise UserError(f"{path}.probe_tuples is {self.probe_tuples}; even numbers from 4 on are accepted, and 0")
        for name in ("warmup", "normals"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{path}.{name} is {getattr(self, name)}; a share between 0 and 1 is accepted")
        if self.rates is not None and not 0 < self.rates < math.inf:
            raise UserError(f"{path}.rates is {self.rates}; a positive number is accepted")
        for name, weight in self.regularisers.items():
            parse_schedule(weight, f"{path}.regularisers.{name}")
        self.views.validate(f"{path}.views")
        self.shading.validate(f"{path}.shading")


@dataclass(frozen=True)
class StepInfo:
    """What is worth logging of one step."""

    step: int
    """Of the run."""
    stage: str
    loss: float
    """Mean square of the guided residual per pixel and channel."""
    values: dict[str, float]
    """Penalties, diagnostics of the distiller, variance when it was probed."""
    skipped: str = ""
    """Why the step changed nothing; empty if it did."""
    notes: tuple[str, ...] = ()
    """What else the user should know."""


Drawing = Callable[[], tuple[RenderOutput, Float[Tensor, "b 3 h w"], Float[Tensor, "b 3"]]]


@dataclass(frozen=True)
class Sight:
    """Random views of the scene, and what the prior and the baselines are told about them."""

    cameras: Cameras
    output: RenderOutput
    picture: Float[Tensor, "b 3 h w"]
    """For the prior."""
    guide: Guide
    condition: Any
    draw: Drawing
    """Draws the same again."""


class Stage:
    """Distils one prompt into one scene."""

    def __init__(
        self,
        representation: Representation,
        distiller: Distiller,
        prior: Prior,
        embedding: Any,
        config: StageConfig,
        generator: torch.Generator,
        *,
        name: str = "coarse",
        offset: int = 0,
        estimator: GeometryEstimator | None = None,
    ) -> None:
        """`name` among the run's stages; `offset`: steps of the stages before it; `estimator`: of the penalties that
        ask one. Raises UserError for a penalty that this scene does not have, ValueError if the estimator is missing.
        """
        self.name = name
        self.offset = offset
        self.representation = representation
        self.distiller = distiller
        self.prior = prior
        self.embedding = embedding
        self.config = config
        self.generator = generator
        self.environment: Environment | None = None
        if config.environment:
            self.environment = Environment(EnvironmentConfig(), generator).to(prior.device)
        self.done = 0
        self.skipped = 0
        self._consecutive_skips = 0
        self._weights = self._schedules()
        self._on_pictures = PENALTIES | (estimated_penalties(estimator) if estimator is not None else {})
        if missing := self._weights.keys() & ESTIMATED.keys() - self._on_pictures.keys():
            raise ValueError(f"regularisers {_listed(missing)} need a geometry estimator and none was given: pass one")
        self.optimizer = torch.optim.Adam(self._optimizer_groups(), betas=(0.9, 0.99), eps=1e-15)

    @property
    def total(self) -> int:
        """Steps of the run so far."""
        return self.offset + self.done

    @property
    def progress(self) -> float:
        """From 0 to 1 over the stage."""
        return self.done / self.config.steps

    def step(self) -> StepInfo:
        """Take one step; where memory is not enough, again with the same draws and fewer views at a time in the prior.

        Raises UserError if nothing finite has come out for a while, or if not even one view fits into memory.
        """
        undo, notes = self._undo(), []
        while True:
            try:
                info = self._try_step()
                break
            except torch.OutOfMemoryError:
                pass  # the error holds the pictures that did not fit; it must be gone before the next attempt
            notes.append(halve_micro_batch(self.prior, self.config.views.per_step))
            undo()
        if not info.skipped:
            self.optimizer.step()
            if isinstance(self.representation, Adaptive):
                self.representation.adapt(self.done, self.config.steps, self.optimizer, self.generator)
        return replace(info, notes=tuple(notes))

    def _try_step(self) -> StepInfo:
        """All of a step before the scene is moved; `_undo` knows what it changes."""
        config, progress = self.config, self.progress
        self._set_learning_rates(progress)
        seen = self.look(self.generator, config.views)
        distillation = self.distiller(
            seen.picture, seen.guide, seen.condition, progress=progress, generator=self.generator
        )
        penalties = self._penalties(seen.output, seen.cameras, progress)
        pixels = seen.picture[0].numel()
        total = distillation.loss / pixels
        for weight, penalty in penalties.values():
            total = total + weight * penalty

        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.done += 1
        values = {name: float(value.detach()) for name, (_, value) in penalties.items()}
        values.update(distillation.diagnostics)
        residual_power = float(distillation.residual.square().mean())

        culprit = self._not_finite(residual_power, values)
        if culprit:
            return self._skip(culprit, values)
        self._consecutive_skips = 0
        if config.probe_every and self.done % config.probe_every == 0:
            values |= self._measure_variance(seen, progress)
        # The gradient is taken, so the coefficients may learn from this step, at the scene it was taken at.
        self.distiller.update(distillation, self._gram(seen.draw))
        return StepInfo(self.total, self.name, residual_power, values)

    def look(self, generator: torch.Generator, views: ViewsConfig) -> Sight:
        """Draw the scene as a step would now, from random `views`."""
        config, progress = self.config, self.progress
        resolution = config.warmup_resolution if progress < config.warmup else config.resolution
        cameras, background = sample_views(views, resolution, generator, progress)
        cameras, background = cameras.to(self.prior.device), background.to(self.prior.device)
        draw = self._drawing(cameras, background, progress, generator)
        output, picture, behind = draw()
        condition = self.prior.condition(self.embedding, cameras, behind)
        return Sight(cameras, output, picture, _guide(output, cameras), condition, draw)

    def probe(
        self, distillers: Mapping[str, Distiller], tuples: int, generator: torch.Generator
    ) -> dict[str, EstimatorVariance]:
        """Variance of the gradients of `distillers`, and of SDS as "sds", at this scene and the same random tuples.

        Nothing changes but `generator`, which all draws are taken from. See `probe_variance`.
        """
        views = replace(self.config.views, per_step=1)

        def draw(generator: torch.Generator) -> ProbeView:
            seen = self.look(generator, views)
            return ProbeView(seen.picture, seen.guide, seen.condition)

        distillers = {REFERENCE: sds_like(self.distiller), **distillers}
        parameters = [p for p in self.representation.parameters() if p.requires_grad]
        kept = {name: buffer.clone() for name, buffer in self.representation.named_buffers()}
        try:
            return probe_variance(
                distillers, draw, parameters, tuples=tuples, progress=self.progress, generator=generator
            )
        finally:
            self._restore_buffers(kept)

    def _undo(self) -> Callable[[], None]:
        """Remember what `_try_step` changes; the result puts it back. Gradients are taken anew anyway."""
        if not isinstance(self.prior, MicroBatched) or self.prior.micro_batch == 1:
            return lambda: None  # no second attempt

        drawn, counted = self.generator.get_state(), (self.done, self.skipped, self._consecutive_skips)
        # Renderers note in buffers what they have seen, such as the gradients that Gaussians are divided by.
        seen = {name: buffer.clone() for name, buffer in self.representation.named_buffers()}
        learned = {name: tensor.clone() for name, tensor in self.distiller.state_dict().items()}

        def undo() -> None:
            self.generator.set_state(drawn)
            self.done, self.skipped, self._consecutive_skips = counted
            self._restore_buffers(seen)
            self.distiller.load_state_dict(learned)

        return undo

    def _restore_buffers(self, kept: Mapping[str, Tensor]) -> None:
        for name, buffer in self.representation.named_buffers():
            buffer.copy_(kept[name])

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, by name."""
        out = {f"representation.{k}": v for k, v in self.representation.named_parameters()}
        out |= {f"representation.{k}": v for k, v in self.representation.named_buffers()}
        out |= {f"distiller.{k}": v for k, v in self.distiller.state_dict().items()}
        if self.environment is not None:
            out |= {f"environment.{k}": v for k, v in self.environment.state_dict().items()}
        for group in self.optimizer.param_groups:
            for key, value in self.optimizer.state.get(group["params"][0], {}).items():
                out[f"optimizer.{group['name']}.{key}"] = torch.as_tensor(value)
        out["generator"] = self.generator.get_state()
        out["counters"] = torch.tensor([self.done, self.skipped, self._consecutive_skips])
        return out

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Continue from a saved state. Raises UserError if it belongs to another configuration."""

        def under(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        try:
            self.representation.load_tensors(under("representation."))
            self.distiller.load_state_dict(under("distiller."))
            if self.environment is not None:
                self.environment.load_state_dict(under("environment."))
            for group in self.optimizer.param_groups:
                state = under(f"optimizer.{group['name']}.")
                if state:
                    self.optimizer.state[group["params"][0]] = {k: v.clone() for k, v in state.items()}
            self.generator.set_state(tensors["generator"])
            self.done, self.skipped, self._consecutive_skips = (int(v) for v in tensors["counters"])
        except (KeyError, RuntimeError) as error:
            message = " ".join(str(error).split())
            raise UserError(f"the checkpoint does not fit this configuration: {message}") from None

    def _schedules(self) -> dict[str, Schedule]:
        """The weights that are set. Raises UserError for a penalty that this scene does not have."""
        known = {*PENALTIES, *ESTIMATED, *self.representation.render_terms, *self.representation.regularisers()}
        for name in self.config.regularisers:
            if name not in known:
                raise UserError(
                    f"unknown penalty regularisers.{name}{nearest(name, known)}; "
                    f"{type(self.representation).__name__} knows: {_listed(known)}"
                )
        return {name: parse_schedule(value, name) for name, value in self.config.regularisers.items() if value}

    def _optimizer_groups(self) -> list[dict[str, Any]]:
        groups = self.representation.optimizer_groups()
        if self.environment is not None:
            rates, prefix = self.environment.learning_rates(""), "environment."
            groups += [
                {"name": prefix + name, "params": [p], "lr": rates[name]}
                for name, p in self.environment.named_parameters()
            ]
        return groups

    def _set_learning_rates(self, progress: float) -> None:
        rates = self.representation.learning_rates(progress)
        for group in self.optimizer.param_groups:
            if group["name"] in rates:
                group["lr"] = rates[group["name"]] * (1.0 if self.config.rates is None else self.config.rates)

    def _drawing(
        self, cameras: Cameras, background: Float[Tensor, "b 3"], progress: float, generator: torch.Generator
    ) -> Drawing:
        """What is drawn in this step, to be drawn again the same: scene, picture for the prior, its background."""
        share = self.config.normals
        normals = share == 1 or (share > 0 and float(torch.rand((), generator=generator)) < share)
        shading, environment = self.config.shading, self.environment
        seed = int(torch.randint(2**62, (), generator=generator)) if shading.enabled else 0

        def draw() -> tuple[RenderOutput, Float[Tensor, "b 3 h w"], Float[Tensor, "b 3"]]:
            black = torch.zeros_like(background)
            behind = black if normals or environment is not None else background
            output = self.representation.render(cameras, behind)
            if normals:
                return output, (0.5 * output.normal + 0.5) * output.opacity, black
            rgb = shade(output, cameras, behind, shading, progress, torch.Generator().manual_seed(seed))
            if environment is None:
                return output, rgb, background
            surroundings = environment(cameras)
            picture = composite(replace(output, rgb=rgb), surroundings)
            return output, picture, surroundings.detach().mean((2, 3))

        return draw

    def _measure_variance(self, seen: Sight, progress: float) -> dict[str, float]:
        """Of this step's gradient and of SDS's: per pixel over the noise, and in the parameters with `probe_tuples`."""
        probe = self.distiller.probe(
            seen.picture.detach(), seen.guide, seen.condition, progress=progress, generator=self.generator
        )
        pixels = seen.picture[0].numel()
        values = {"variance": probe.within_noise / pixels, "variance_sds": probe.within_noise_sds / pixels}
        if self.config.probe_tuples:
            fork = torch.Generator()
            fork.set_state(self.generator.get_state())
            found = self.probe({"own": self.distiller}, self.config.probe_tuples, fork)
            for name, variance in found.items():
                for moment in ("within", "between", "signal", "cosine"):
                    values[f"probe/{name}/{moment}"] = getattr(variance.parameters, moment)
        return {name: value for name, value in values.items() if math.isfinite(value)}

    def _penalties(
        self, output: RenderOutput, cameras: Cameras, progress: float
    ) -> dict[str, tuple[float, Float[Tensor, ""]]]:
        """(weight, value) by name, for the weights that are set."""
        values = {name: of(output, cameras) for name, of in self._on_pictures.items() if name in self._weights}
        values |= {name: value for name, value in output.terms.items() if name in self._weights}
        if self._weights.keys() - values.keys():
            values |= self.representation.regularisers()
        return {name: (schedule.value_at(progress), values[name]) for name, schedule in self._weights.items()}

    def _not_finite(self, loss: float, values: dict[str, float]) -> str:
        """Name the first thing that is not finite; empty if all is well."""
        for name, value in {"distillation": loss, **values}.items():
            if not math.isfinite(value):
                return f"loss '{name}'"
        for name, parameter in self.representation.named_parameters():
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                return f"gradient of '{name}'"
        return ""

    def _skip(self, culprit: str, values: dict[str, float]) -> StepInfo:
        self.skipped += 1
        self._consecutive_skips += 1
        if self._consecutive_skips >= MAX_CONSECUTIVE_SKIPS:
            raise UserError(
                f"the {culprit} was not finite for {MAX_CONSECUTIVE_SKIPS} steps in a row (step {self.total}); "
                "lower the learning rates or the guidance scale"
            )
        return StepInfo(self.total, self.name, math.nan, values, skipped=f"the {culprit} is not finite")

    def _gram(self, draw: Drawing) -> Gram | None:
        """v -> J J^T v of this step's encoded pictures, if the coefficients want it (Eq. 11)."""
        if not self.distiller.needs_gram:
            return None

        def render() -> Tensor:
            return self.prior.encode(draw()[1])

        pullback = Pullback(render, [p for p in self.representation.parameters() if p.requires_grad])

        def gram(v: Tensor) -> Tensor:
            # These gradients are not the step's: what renderers note of them would steer the densification.
            kept = {name: buffer.clone() for name, buffer in self.representation.named_buffers()}
            product = pullback.gram(v)
            self._restore_buffers(kept)
            return product

        return gram


def _guide(output: RenderOutput, cameras: Cameras) -> Guide:
    return Guide(output.opacity.detach(), output.depth.detach(), output.normal.detach(), cameras.camera_to_world)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
