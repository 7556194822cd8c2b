"""One stage of distillation: a scene, a prior and a distiller, one optimiser step at a time.

A stage is its state: `tensors()` is everything that has to be saved for the next step to be the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import torch
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor

from ..distill import Distiller, GeometryEstimator, Gram, Guide, MicroBatched, Prior, Pullback
from ..distill.variance_probe import REFERENCE, EstimatorVariance, ProbeView, probe_variance, sds_like
from ..representations import Adaptive, Cameras, RenderOutput, Representation
from ..representations.environment import Environment, EnvironmentConfig, composite
from .blame import culprit
from .errors import DamagedCheckpoint, SettingsError, UserError, nearest
from .estimated_geometry import ESTIMATED, estimated_penalties
from .out_of_memory import halve_micro_batch, is_out_of_memory
from .penalties import PENALTIES
from .ranges import check_ranges
from .schedules import Schedule, parse_schedule
from .schema import SCENES
from .shading import ShadingConfig, shade
from .views import ViewsConfig, sample_views

MAX_CONSECUTIVE_SKIPS = 20
MAX_STEPS = 10_000_000

LARGEST_GRADIENT = 1e18
"""What is larger counts as not finite: Adam squares it, and single precision ends at 3e38."""

REFINING_RATES = 0.1
"""See `StageConfig.rates`. At full rates a surface moves by centimetres per step, and the given shape is soon gone."""


@dataclass
class StageConfig:
    """One stage of optimisation."""

    scene: Annotated[str, SCENES] = "coarse"
    """What is trained: `coarse`, the representation that was chosen; `mesh`, a deformable mesh with its colours;
    `texture`, the texture of a fixed mesh. Where it differs from the stage before, the scene is converted."""
    steps: Annotated[int, Interval(ge=0, le=MAX_STEPS)] = 400
    resolution: Annotated[int, Interval(ge=16, le=4096)] = 128
    """Pixels of a training view (square)."""
    warmup_resolution: Annotated[int, Interval(ge=16, le=4096)] = 64
    """Pixels during the first `warmup` of the steps: coarse shape first, and faster."""
    warmup: Annotated[float, Interval(ge=0, le=1)] = 0.3
    views: ViewsConfig = field(default_factory=ViewsConfig)
    normals: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Share of the steps that distil the picture of the normals (on black) instead of the colours: Fantasia3D's way to
    a shape."""
    shading: ShadingConfig = field(default_factory=ShadingConfig)
    environment: bool = False
    """A learned background, by view direction, instead of the plain colours of `views`."""
    regularisers: dict[str, Any] = field(default_factory=dict)
    """Weight per penalty: those of `PENALTIES` and `ESTIMATED` on the pictures, and the representation's own. A number,
    or a schedule `{from: 10, to: 1000, begin: 0.1, end: 0.5}` over shares of the stage. They stand beside a
    distillation loss that is averaged over pixels."""
    rates: Annotated[float, Interval(gt=0, le=10000)] | None = None
    """Factor on all of the scene's learning rates. None: 1; `REFINING_RATES` for the shape of a run that begins from a
    file of the user's own, which is to be kept."""
    method: dict[str, Any] = field(default_factory=dict)
    """Settings of the distillation method that differ in this stage, such as `{timesteps: {maximum: 0.5}}`; with
    `name`, another method."""
    probe_every: Annotated[int, Interval(ge=0, le=MAX_STEPS)] = 20
    """Steps between measurements of the gradient's variance; 0: never."""
    probe_tuples: Annotated[int, Interval(ge=0, le=100_000)] = 0
    """Draws of noise level, camera and noise (an even number) in each of them, for the whole variance in the scene's
    parameters; 0: only that over the noise in the step's own pictures."""

    @property
    def needs_estimator(self) -> bool:
        """Whether a penalty asks the geometry estimator."""
        return any(self.regularisers.get(name) for name in ESTIMATED)

    def validate(self, path: str = "stage") -> None:
        """Raises SettingsError, naming the setting under `path`."""
        check_ranges(self, f"{path}.")
        if self.probe_tuples % 2 or self.probe_tuples == 2:
            raise SettingsError(
                f"{path}.probe_tuples is {self.probe_tuples}; even numbers from 4 on are accepted, and 0"
            )
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
        ask one. Raises SettingsError for a penalty that this scene does not have, ValueError if that is missing.
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

        Raises UserError if nothing finite has come out for a while, if the scene itself is not finite any more, or if
        not even one view fits into memory.
        """
        undo, notes = self._undo(), []
        while True:
            try:
                info = self._try_step()
                break
            except (RuntimeError, MemoryError, OSError, ValueError) as error:
                if not is_out_of_memory(error):
                    if isinstance(error, UserError) or not isinstance(error, ValueError):
                        raise
                    # A component's answer is not what its contract says, such as that of a prior.
                    who = f"{where}: " if (where := culprit(error)) else ""
                    raise UserError(f"step {self.total + 1}, in stage '{self.name}': {who}{error}") from error
            # The error held the pictures that did not fit; it is gone before the next attempt.
            notes.append(halve_micro_batch(self.prior, self.config.views.per_step))
            undo()
        if not info.skipped:
            self.optimizer.step()
            if isinstance(self.representation, Adaptive):
                self.representation.adapt(self.done, self.config.steps, self.optimizer, self.generator)
                self._check_adapted()
            self.check_finite({f"representation.{k}": v for k, v in self.representation.named_parameters()})
        return replace(info, notes=tuple(notes))

    @property
    def has_learned_nothing(self) -> bool:
        """Whether the stage is over and every one of its steps was skipped."""
        return 0 < self.config.steps <= self.done == self._consecutive_skips

    def check_finite(self, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Raises UserError that names the first of `tensors` (default: all of the state) which is not finite.

        What a scene notes in buffers may be infinite, such as a density that is not known yet, but never NaN.
        """
        buffers = {f"representation.{name}" for name, _ in self.representation.named_buffers()}
        for name, tensor in (self.tensors() if tensors is None else tensors).items():
            if not tensor.is_floating_point() or is_finite(tensor):
                continue
            if name not in buffers or bool(tensor.isnan().any()):
                raise UserError(
                    f"'{name}' is not finite any more after step {self.total}, in stage '{self.name}': the run has "
                    "diverged. This state is not saved, the checkpoints before it are kept (--resume goes on from "
                    f"them); lower stages.{self.name}.rates, the scene's own learning rates or the guidance scale"
                )

    def _check_adapted(self) -> None:
        """Raises UserError if the optimizer would train something else than the scene after `Adaptive.adapt`."""
        optimized = {id(p): p for group in self.optimizer.param_groups for p in group["params"]}
        for name, parameter in self.representation.named_parameters():
            state = self.optimizer.state.get(parameter, {}) if id(parameter) in optimized else None
            wrong = "another tensor than the one that the optimizer trains" if state is None else ""
            for key, value in (state or {}).items():
                if torch.is_tensor(value) and value.dim() and value.shape != parameter.shape:
                    wrong = f"of shape {tuple(parameter.shape)}, and the optimizer's '{key}' of {tuple(value.shape)}"
            if wrong and parameter.requires_grad:
                raise UserError(
                    f"after {type(self.representation).__name__}.adapt the parameter '{name}' is {wrong}; adapt must "
                    "change parameters in place, and the optimizer's state with them"
                )

    def _try_step(self) -> StepInfo:
        """All of a step before the scene is moved; `_undo` knows what it changes."""
        config, progress = self.config, self.progress
        self._set_learning_rates(progress)
        seen = self.look(self.generator, config.views)
        distillation = self.distiller(
            seen.picture, seen.guide, seen.condition, progress=progress, generator=self.generator
        )
        penalties = self.penalties(seen.output, seen.cameras, progress)
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
        """Continue from a saved state. Raises DamagedCheckpoint if it is not one of this stage."""

        def under(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        try:
            self.representation.load_tensors(under("representation."))
            self.distiller.load_state_dict(under("distiller."))
            if self.environment is not None:
                self.environment.load_state_dict(under("environment."))
            for group in self.optimizer.param_groups:
                self._load_moments(group, under(f"optimizer.{group['name']}."))
            self._load_counters(tensors["counters"])
            self.generator.set_state(tensors["generator"])
            self.check_finite()
        except (KeyError, RuntimeError, ValueError, TypeError, OverflowError) as error:
            if is_out_of_memory(error):
                raise
            message = error.args[0] if isinstance(error, KeyError) and error.args else error
            raise DamagedCheckpoint(
                f"does not fit this configuration, or is damaged: {' '.join(str(message).split())}"
            ) from None

    def _load_moments(self, group: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
        """Adam's, of one parameter. Raises ValueError for another shape than the parameter's."""
        parameter = group["params"][0]
        self.optimizer.state.pop(parameter, None)
        if not state:
            return  # before its first step
        if state.keys() != {"step", "exp_avg", "exp_avg_sq"}:
            raise ValueError(f"the optimizer's state of '{group['name']}' is {_listed(state)}")
        for name, value in state.items():
            expected = torch.Size() if name == "step" else parameter.shape
            if value.shape != expected or not value.is_floating_point():
                raise ValueError(
                    f"the optimizer's {name} of '{group['name']}' is {value.dtype} {tuple(value.shape)}, the parameter "
                    f"{tuple(parameter.shape)}"
                )
        self.optimizer.state[parameter] = {
            k: v.to("cpu" if k == "step" else parameter.device).clone() for k, v in state.items()
        }

    def _load_counters(self, counters: Tensor) -> None:
        if counters.shape != (3,) or counters.is_floating_point():
            raise ValueError(f"the counters are {counters.dtype} {tuple(counters.shape)}")
        done, skipped, consecutive = (int(v) for v in counters)
        if not (0 <= consecutive <= done <= self.config.steps and 0 <= consecutive <= skipped):
            raise ValueError(f"the counters are {done}, {skipped}, {consecutive} of {self.config.steps} steps")
        self.done, self.skipped, self._consecutive_skips = done, skipped, consecutive

    def _schedules(self) -> dict[str, Schedule]:
        """The weights that are set. Raises SettingsError for a penalty that this scene does not have."""
        known = {*PENALTIES, *ESTIMATED, *self.representation.render_terms, *self.representation.regularisers()}
        for name in self.config.regularisers:
            if name not in known:
                raise SettingsError(
                    f"unknown penalty regularisers.{name}{nearest(name, known)}; "
                    f"{type(self.representation).__name__} knows: {_listed(known)}"
                )
        return {name: parse_schedule(value, name) for name, value in self.config.regularisers.items() if value}

    def _optimizer_groups(self) -> list[dict[str, Any]]:
        """Raises UserError for rates that are no rates."""
        groups = self.representation.optimizer_groups()
        _check_rates({str(group["name"]): group["lr"] for group in groups})
        if self.environment is not None:
            rates, prefix = self.environment.learning_rates(""), "environment."
            groups += [
                {"name": prefix + name, "params": [p], "lr": rates[name]}
                for name, p in self.environment.named_parameters()
            ]
        return groups

    def _set_learning_rates(self, progress: float) -> None:
        rates = self.representation.learning_rates(progress)
        _check_rates(rates)
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

    def picture_penalties(self, output: RenderOutput, cameras: Cameras) -> dict[str, Float[Tensor, ""]]:
        """Those of the weighed penalties that look at pictures, by name."""
        return {name: of(output, cameras) for name, of in self._on_pictures.items() if name in self._weights}

    def penalties(
        self, output: RenderOutput, cameras: Cameras, progress: float
    ) -> dict[str, tuple[float, Float[Tensor, ""]]]:
        """(weight, value) by name, for the weights that are set. Raises UserError for one that nobody has returned."""
        values = self.picture_penalties(output, cameras)
        values |= {name: value for name, value in output.terms.items() if name in self._weights}
        if self._weights.keys() - values.keys():
            values |= self.representation.regularisers()
        if missing := self._weights.keys() - values.keys():
            name = type(self.representation).__name__
            raise UserError(f"{name} promised the penalty {_listed(missing)} and did not return it")
        return {name: (schedule.value_at(progress), values[name]) for name, schedule in self._weights.items()}

    def _not_finite(self, loss: float, values: dict[str, float]) -> str:
        """Name the first thing that is not finite; empty if all is well."""
        for name, value in {"distillation": loss, **values}.items():
            if not math.isfinite(value):
                return f"loss '{name}'"
        for name, parameter in self.representation.named_parameters():
            if parameter.grad is not None and parameter.grad.numel():
                # NaN is not smaller than anything.
                if not bool(parameter.grad.abs().amax() < LARGEST_GRADIENT):
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


def is_finite(tensor: Tensor) -> bool:
    """Whether all of its numbers are."""
    # Their sum is, almost always, and costs no second tensor of that size.
    return math.isfinite(float(tensor.detach().sum())) or bool(torch.isfinite(tensor).all())


def _check_rates(rates: Mapping[str, Any]) -> None:
    """Raises UserError."""
    for name, rate in rates.items():
        if not 0 <= rate < math.inf:
            raise UserError(f"the learning rate of '{name}' is {rate}; a finite number from 0 on is accepted")


def _guide(output: RenderOutput, cameras: Cameras) -> Guide:
    return Guide(output.opacity.detach(), output.depth.detach(), output.normal.detach(), cameras.camera_to_world)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
