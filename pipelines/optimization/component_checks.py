"""Checks of the components against their contracts, made once before the first step.

Representation, prior, control variates, method, regularizers and geometry estimator may come from plugins. Errors that
would be broadcast or trained on silently are reported here with the name of the class: one image for two cameras,
colors in 0 to 255, a baseline that mixes the images of a batch. Shape checks without cost are part of the contracts
(`RenderOutput`, `distill.predict_noise`, `Distiller`) and run at every step.

Cost: images are rendered at 16 pixels and enlarged for the prior, which gets two of them at the image size of the first
step. A method is evaluated once at a low noise level, which keeps inversions short. In total this takes about one step.
If it took longer than `_COSTLY` seconds, later stages with the same type of method are not checked again.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from steindreamer.distill import (
    ControlVariate,
    Distillation,
    Distiller,
    GeometryBuffers,
    GeometryEstimate,
    GeometryEstimator,
    MethodConfig,
    NoiseRequest,
    NoiseSchedule,
    NoisySample,
    Prior,
)
from steindreamer.distill.control_variates.terms import SteinTerm
from steindreamer.distill.distiller import checked_terms
from steindreamer.distill.priors.base import encode, predict_noise
from steindreamer.distill.priors.modalities import MODALITIES, background_of, condition
from steindreamer.representations import Cameras, RenderOutput, Representation, SceneContext, TakesOver, particles_of

from ..errors import SettingsError, UserError
from ..foreign_code import culprit
from ..settings.schema import INITIAL_FILES
from .modalities import conditioned_as, modality_image
from .out_of_memory import is_out_of_memory
from .render_checks import (
    check_gradients,
    check_images,
    check_rates,
    check_regularizers,
    check_scalar,
    check_singles,
)
from .stage import Stage
from .stage_config import StageConfig
from .undisturbed import undisturbed
from .views import sample_views

_PIXELS = 16
"""Smallest image size that a stage may have, in pixels."""
_COSTLY = 1.0
"""Duration of a check in seconds, above which the same type of method is not checked again."""
_LEVEL = 0.1
"""Fraction of the schedule at which the prior is evaluated."""
_BACKGROUNDS = ((0.9, 0.7, 0.4), (0.1, 0.3, 0.8))
_LONGEST = 400
"""Maximum length of a message, in characters."""
_PRIOR_METHODS = {"embed": 2, "condition": 3, "encode": 1, "decode": 1, "predict_noise": 2}
"""Number of arguments of the methods of a prior; `condition` of a `MultimodalPrior` has one more."""


@dataclass(frozen=True)
class _Drawn:
    """Two small images of a scene."""

    cameras: Cameras
    background: Float[Tensor, "2 3"]
    output: RenderOutput


@dataclass(frozen=True)
class _Trial:
    """Inputs of a method: images as in the first step, with their geometry and condition."""

    image: Float[Tensor, "b 3 h w"]
    geometry: GeometryBuffers
    condition: Any


class Rehearsal:
    """Checks the components of a run, stage by stage, without changing the state that the run uses.

    Every method raises UserError, which says what the component returned and what its contract is.
    """

    def __init__(self, prior: Prior, estimator: GeometryEstimator | None, first: StageConfig) -> None:
        """Set up the checks.

        Args:
            prior: the prior of the run.
            estimator: the geometry estimator; None if the run has none.
            first: settings of the first stage that is checked.
        """
        self._prior, self._estimator = prior, estimator
        self._size = first.warmup_resolution if first.warmup else first.resolution
        self._drawn: _Drawn | None = None
        self._first: _Drawn | None = None
        self._trials: dict[tuple[int, int, str, bool], _Trial] = {}
        self._tried: list[tuple[MethodConfig, str]] = []
        self._costly = False
        self._estimator_is_fine = estimator is None

    def stage(self, stage: Stage, method: MethodConfig, *, is_complete: bool) -> None:
        """Render a stage's scene, evaluate the regularizers on its images, and run its method on them.

        Args:
            stage: the stage to check.
            method: the settings of its distillation method.
            is_complete: whether the scene is initialized. A scene that takes over an earlier one is empty until then.
                An empty scene is rendered once, which shows that its backend works; regularizers and method get the
                images of the scene before it, if that was checked.
        """
        self._try_scene(stage.representation, stage.config, is_complete)
        if self._drawn is None:
            return
        self._check_regularizers(stage, is_complete)
        for modality in stage.config.fractions:
            self._check_method(stage, method, modality)

    def _check_method(self, stage: Stage, method: MethodConfig, modality: str) -> None:
        """Run a stage's method on images of one modality, unless that was done before."""
        tried = {type(each) for each, _ in self._tried}
        if (method, modality) in self._tried or (self._costly and type(method) in tried):
            return
        self._tried.append((method, modality))
        distiller = stage.distillers[modality]
        functions = [term.baseline for term in distiller.control_variates if isinstance(term, SteinTerm)]
        parts = distiller, distiller.residual, distiller.noise, *distiller.control_variates, *functions
        with self._apart(stage.representation, *parts):
            start = time.perf_counter()
            try:
                self._try_method(stage, modality)
            except torch.OutOfMemoryError:
                return  # more views than fit into memory; a step finds out how many fit
            self._costly |= time.perf_counter() - start > _COSTLY

    def _try_scene(self, scene: Representation, config: StageConfig, is_complete: bool) -> None:
        """Render two cameras together, then each alone; then check the gradient."""
        device = self._prior.device
        cameras, _ = sample_views(replace(config.views, per_step=2), _PIXELS, torch.Generator().manual_seed(0))
        cameras, background = cameras.to(device), torch.tensor(_BACKGROUNDS, device=device)
        particle = particles_of(scene)[0]
        with self._apart(scene, *particles_of(scene)):
            if not is_complete:
                with torch.no_grad():
                    particle.render(cameras[0], background[:1])
                return
            output = self._draw(particle, cameras, background, config.fractions)
            if scene is not particle:
                output = scene.render(cameras, background)
        self._drawn = _Drawn(cameras, background, output)
        self._first = self._first or self._drawn

    @contextmanager
    def _apart(self, *components: object) -> Iterator[None]:
        every = [each for each in (self._prior, self._estimator, *components) if each is not None]
        with blamed(every), undisturbed(every, self._prior.device):
            yield

    def _draw(
        self, scene: Representation, cameras: Cameras, background: Float[Tensor, "2 3"], modalities: Iterable[str]
    ) -> RenderOutput:
        _check_parameters(scene, self._prior.device)
        output = scene.render(cameras, background)
        check_images(scene, output, cameras, background)
        check_singles(scene, output, cameras, background)
        check_gradients(scene, output, modalities)
        check_regularizers(scene)
        return output

    def _check_regularizers(self, stage: Stage, is_complete: bool) -> None:
        assert self._drawn is not None
        output, cameras = self._drawn.output, self._drawn.cameras
        with self._apart(stage.representation):
            if is_complete:
                found = {k: term.value for k, term in stage.objective.regularize(output, cameras, 0.0).items()}
            else:  # the regularizers of an empty scene are meaningless
                found = stage.objective.regularize_images(output, cameras)
            for name, value in found.items():
                check_scalar(f"the regularizer '{name}'", value)

    def _try_method(self, stage: Stage, modality: str) -> None:
        distillation, trial = self._distil(stage, modality)
        self._check_distillation(stage.distillers[modality], distillation, trial)
        for variate in stage.distillers[modality].control_variates:
            self._check_independence(variate, distillation, trial)
        if not self._estimator_is_fine:
            self._check_estimator(trial)
            self._estimator_is_fine = True

    def _distil(self, stage: Stage, modality: str) -> tuple[Distillation, _Trial]:
        """Distill two images, or as many as a step has if two fail: a prior may need several views of a scene."""
        try:
            return self._distil_of(stage, modality, 2)
        except torch.OutOfMemoryError:
            raise
        except Exception:
            if stage.config.views.per_step > 2:
                with suppress(Exception):
                    return self._distil_of(stage, modality, stage.config.views.per_step)
            raise

    def _distil_of(self, stage: Stage, modality: str, count: int) -> tuple[Distillation, _Trial]:
        trial = self._trial(stage, modality, count)
        timestep = torch.full((count,), int(_LEVEL * self._prior.schedule.steps), device=self._prior.device)
        generator = torch.Generator().manual_seed(0)
        distillation = stage.distillers[modality](
            trial.image,
            trial.geometry,
            trial.condition,
            progress=0.0,
            generator=generator,
            timestep=timestep,
            independent_draws=1,
        )
        return distillation, trial

    def _trial(self, stage: Stage, modality: str, count: int) -> _Trial:
        key = id(stage.embedding), count, modality, stage.config.normals_as_color
        if key not in self._trials:
            assert self._first is not None
            rows = torch.arange(count, device=self._prior.device) % 2
            output, size = self._first.output, self._size
            cameras, background = self._first.cameras.resized(size)[rows], self._first.background[rows]

            def enlarged(name: str) -> Tensor:
                return F.interpolate(getattr(output, name).detach(), (size, size))[rows]

            images = RenderOutput(enlarged("rgb"), enlarged("opacity"), enlarged("depth"), enlarged("normal"))
            geometry = GeometryBuffers(
                images.opacity, images.depth, images.normal, cameras.camera_to_world, cameras.intrinsics
            )
            image = modality_image(modality, images, cameras, stage.config).clamp(0, 1).requires_grad_()
            behind, known_as = background_of(modality, background), conditioned_as(modality, stage.config)
            conditions = condition(self._prior, stage.embedding, cameras, behind, known_as)
            self._trials[key] = _Trial(image, geometry, conditions)
        return self._trials[key]

    def _check_distillation(self, distiller: Distiller, distillation: Distillation, trial: _Trial) -> None:
        name = type(distiller).__name__
        if not isinstance(distillation, Distillation):
            raise UserError(f"{name} must return a Distillation, got a {type(distillation).__name__}")
        loss = distillation.loss
        if loss.shape != () or not bool(loss.isfinite() & distillation.residual.isfinite().all()):
            raise UserError(self._diagnosis(distiller, distillation, trial))
        gradient = torch.autograd.grad(loss, trial.image, allow_unused=True)[0] if loss.requires_grad else None
        if gradient is None:
            raise UserError(f"the loss of {name} does not depend on the image: remove no_grad or detach from it")
        if not bool(gradient.isfinite().all()):
            encoder = f"{type(self._prior).__name__}.encode"
            raise UserError(
                f"the gradient of {name}'s loss with respect to the image is not finite; it passes through {encoder}"
            )

    def _diagnosis(self, distiller: Distiller, distillation: Distillation, trial: _Trial) -> str:
        """The component that caused a non-finite loss."""
        prior = type(self._prior).__name__
        with torch.no_grad():
            encoded = encode(self._prior, trial.image)
            if not bool(encoded.isfinite().all()):
                return f"{prior}.encode returned {_broken(encoded)}; check its weights and settings"
            sample = self._sample(distillation, trial)
            (predicted,) = predict_noise(self._prior, [NoiseRequest(sample)], trial.condition)
        if not bool(predicted.isfinite().all()):
            return f"{prior}.predict_noise returned {_broken(predicted)}; check its weights and settings"
        for term, value in zip(distiller.names, distillation.observations[0].terms, strict=True):
            if not bool(value.isfinite().all()):
                return f"the control variate '{term}' returned {_broken(value)}"
        return (
            f"the loss of {type(distiller).__name__} with the residual {type(distiller.residual).__name__} is "
            f"{distillation.loss.tolist()} before the first step; it must be one finite number: check its settings"
        )

    def _sample(self, distillation: Distillation, trial: _Trial) -> NoisySample:
        drawn = distillation.observations[0]
        if drawn.sample is not None:
            return drawn.sample
        with torch.no_grad():
            clean = encode(self._prior, trial.image).float()
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(clean)
        return self._prior.schedule.add_noise(clean, noise, drawn.timestep)

    def _check_independence(self, variate: ControlVariate, distillation: Distillation, trial: _Trial) -> None:
        """Check that the terms of the first image do not depend on the other images."""
        sample, geometry = self._sample(distillation, trial), trial.geometry
        terms = checked_terms(variate, sample, geometry)
        name = " and ".join(f"'{name}'" for name in dict.fromkeys((variate.names[0], variate.names[-1])))
        if not bool(terms.isfinite().all()):
            raise UserError(f"the control variate {name} returned {_broken(terms)}")
        if _moved(terms, checked_terms(variate, sample, geometry)):
            raise UserError(
                f"the control variate {name} returns different values for the same images: a baseline must be "
                "deterministic (no dropout, no random numbers)"
            )
        others = checked_terms(variate, *_with_others(sample, geometry, self._prior.schedule))
        if _moved(terms, others):
            raise UserError(
                f"the control variate {name} mixes the images of a batch: its value for the first image changed with "
                "the second one. Entry i may only depend on image i (average over axes 1, 2 and 3, not 0)"
            )

    def _check_estimator(self, trial: _Trial) -> None:
        assert self._estimator is not None
        name, count = type(self._estimator).__name__, len(trial.image)
        image = trial.image.detach().requires_grad_()
        estimate: Any = self._estimator(image, image.new_full((count,), 0.3))
        if not isinstance(estimate, GeometryEstimate):
            raise UserError(f"{name} must return a GeometryEstimate, got a {type(estimate).__name__}")
        for field, channels in (("disparity", 1), ("normal", 3)):
            value = getattr(estimate, field)
            if value.ndim != 4 or value.shape[:2] != (count, channels):
                raise UserError(
                    f"{name} must estimate {field} of shape ({count}, {channels}, h, w), got {tuple(value.shape)}"
                )
            if not bool(value.isfinite().all()):
                raise UserError(f"{name} estimated {field} with {_broken(value)}")
        total = estimate.disparity[0].sum() + (estimate.normal[0] * estimate.normal.new_ones(3, 1, 1)).sum()
        gradient = torch.autograd.grad(total, image, allow_unused=True)[0] if total.requires_grad else None
        if gradient is None or not bool(gradient.isfinite().all()):
            raise UserError(f"{name} must be differentiable in the image, with finite gradients")
        if bool(gradient[1:].any()):
            raise UserError(f"{name} mixes the images of a batch: its estimate of the first depends on the second")


def built_prior(config: Any, device: torch.device) -> Prior:
    """Build the prior of a configuration and check that it has all members of the contract. Raises UserError, and the
    exceptions of `build`.
    """
    with blamed([config]):
        prior = config.build(device)
        name = type(prior).__name__
        missing = [each for each in _PRIOR_METHODS if not callable(getattr(prior, each, None))]
        missing += [each for each in ("schedule", "device") if not hasattr(prior, each)]
        if missing:
            raise UserError(
                f"{type(config).__name__}.build returned a {name}, which is not a prior: it lacks {', '.join(missing)}"
            )
        known = _checked_modalities(prior)
        for method, count in _PRIOR_METHODS.items():
            count += method == "condition" and known != ("color",)
            _check_call(f"{name}.{method}", getattr(prior, method), count)
        _check_device(name, prior.device)
        _check_schedule(name, prior.schedule)
    return prior


def _checked_modalities(prior: Any) -> tuple[str, ...]:
    """The modalities that a prior knows. Raises UserError for names that there are not."""
    given = getattr(prior, "modalities", ("color",))
    if not isinstance(given, tuple | list) or not given or not set(given) <= set(MODALITIES):
        raise UserError(
            f"{type(prior).__name__}.modalities is {given!r}; it must be a tuple of some of {', '.join(MODALITIES)}"
        )
    return tuple(given)


def built_scene(config: Any, generator: torch.Generator, device: torch.device, section: str) -> Representation:
    """Build the representation of the configuration in the section with that name.

    Raises UserError, SettingsError for settings that contradict each other, and the exceptions of `build`.
    """
    reads_file = any(getattr(config, key, "") for key in INITIAL_FILES)
    with nullcontext() if reads_file else _contradictions(f"{section}: "), blamed([config]):
        return _checked_scene(config, "build", config.build(generator, device))


def blank_scene(config: Any, device: torch.device, section: str) -> Representation:
    """Build a scene to load a checkpoint into, or to check. Raises the exceptions of `built_scene`."""
    if not callable(getattr(config, "blank", None)):
        return built_scene(config, torch.Generator().manual_seed(0), device, section)
    with _contradictions(f"{section}: "), blamed([config]):
        return _checked_scene(config, "blank", config.blank(device))


def converted_scene(config: TakesOver, scene: Representation, context: SceneContext) -> Representation:
    """Convert `scene` to the representation of `config`. Raises UserError, and the exceptions of `from_scene`."""
    with blamed([config]):
        out = _checked_scene(config, "from_scene", config.from_scene(scene, context))
        _check_parameters(out, context.device, "from_scene(scene, context)")
    return out


def check_scene_rates(scene: Representation) -> None:
    """Check the learning rates of a scene, or of its first particle, before an optimizer is made of them.

    Raises UserError, and ValueError as `optimizer_groups`.
    """
    particle = particles_of(scene)[0]
    with blamed([particle]):
        check_rates(particle)


def _checked_scene(config: Any, method: str, scene: Any) -> Representation:
    """The scene itself. Raises UserError if it is not a representation."""
    if not isinstance(scene, Representation):
        raise UserError(f"{type(config).__name__}.{method} must return a Representation, got a {type(scene).__name__}")
    return scene


def built_distiller(method: MethodConfig, prior: Prior, estimator: GeometryEstimator | None) -> Distiller:
    """Build the distiller of a method's configuration.

    Raises UserError, SettingsError for settings that contradict each other or do not fit the prior, and the exceptions
    of `build`.
    """
    with _contradictions(), blamed([method, prior]):
        distiller = method.build(prior, estimator)
        if not isinstance(distiller, Distiller):
            raise UserError(f"{type(method).__name__}.build must return a Distiller, got a {type(distiller).__name__}")
    return distiller


@contextmanager
def _contradictions(prefix: str = "") -> Iterator[None]:
    """Convert a ValueError to SettingsError, for components that are built from settings alone."""
    try:
        yield
    except ValueError as error:
        if isinstance(error, UserError) or is_out_of_memory(error):
            raise
        raise SettingsError(f"{prefix}{' '.join(str(error).split())}") from error


def check_entry(section: str, name: str, entry: Any) -> None:
    """Check that the entry registered under `name` is a dataclass with `build`. Raises UserError."""
    kinds = {"representation": "REPRESENTATIONS", "method": "METHODS", "prior": "PRIORS"}
    needs = "a dataclass with a method build"
    fits = isinstance(entry, type) and is_dataclass(entry) and callable(getattr(entry, "build", None))
    if section == "representation" and not fits:
        needs += " (or from_scene and blank)"
        methods = (getattr(entry, name, None) for name in ("from_scene", "blank"))
        fits = isinstance(entry, type) and is_dataclass(entry) and all(map(callable, methods))
    if section == "method":
        needs, fits = "a dataclass that extends MethodConfig", fits and issubclass(entry, MethodConfig)
    if not fits:
        given = f"the class {entry.__name__}" if isinstance(entry, type) else repr(entry)
        raise UserError(f"{kinds[section]}['{name}'] must be {needs}, got {given} (is @dataclass missing?)")


@contextmanager
def blamed(components: Sequence[object]) -> Iterator[None]:
    """Convert the exception of a component to a one-line UserError with its class. User-fixable errors pass
    unchanged.
    """
    try:
        yield
    except (UserError, OSError, ImportError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())
        if "allocate memory" in text:  # the CPU's allocator raises a plain RuntimeError
            raise
        outsider = culprit(error)
        who, is_ours = _raised_by(error, components, outsider)
        if isinstance(error, ValueError) and is_ours and not outsider and not text.startswith(RenderOutput.__name__):
            raise
        message = f"{who}: {text}" if isinstance(error, ValueError) else f"{who} raised {type(error).__name__}: {text}"
        raise UserError(message if len(message) <= _LONGEST else f"{message[:_LONGEST]} ...") from error


def _raised_by(error: Exception, components: Sequence[object], outsider: str) -> tuple[str, bool]:
    """The component's method that was running, and whether this package raised the error itself.

    For a component of this package, the `outsider` that it called is named instead, if there is one.
    """
    who, module = outsider or "a component", ""
    known = {id(each) for each in components}
    # Unwrapped: all functions of one decorator share the code of its wrapper.
    codes = {getattr(inspect.unwrap(each), "__code__", None) for each in components if callable(each)}
    trace = error.__traceback__
    while trace is not None:
        frame = trace.tb_frame
        owner, module = frame.f_locals.get("self"), str(frame.f_globals.get("__name__", ""))
        if id(owner) in known and not (outsider and type(owner).__module__.startswith("steindreamer.")):
            who = f"{type(owner).__name__}.{frame.f_code.co_name}"
        elif frame.f_code in codes:
            who = frame.f_code.co_name
        trace = trace.tb_next
    return who, module.startswith("steindreamer.")


def _check_call(what: str, method: Callable[..., Any], count: int) -> None:
    """Raises UserError if a callable does not take `count` arguments. A callable without a signature is not checked."""
    try:
        signature = inspect.signature(method)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*[None] * count)
    except TypeError as error:
        raise UserError(f"{what}{signature} cannot be called as its protocol requires: {error}") from None


def _check_device(name: str, device: Any) -> None:
    """Raises UserError for a device that this machine does not have."""
    if not isinstance(device, torch.device):
        raise UserError(f"{name}.device must be a torch.device, got {device!r}")
    if device.type == "meta":
        raise UserError(f"{name}.device is meta, which holds no data; use cpu or cuda")
    try:
        torch.empty((), device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:_LONGEST]
        raise UserError(f"{name}.device is {device}, which cannot be used here: {reason}") from error


def _check_parameters(scene: Representation, device: torch.device, asked: str = "build(generator, device)") -> None:
    for name, parameter in scene.named_parameters():
        what = f"{type(scene).__name__}: parameter '{name}'"
        if parameter.device.type != device.type:
            raise UserError(f"{what} is on {parameter.device}; {asked} must create it on {device}")
        if not bool(parameter.isfinite().all()):
            raise UserError(f"{what} starts with {_broken(parameter)}")


def _check_schedule(name: str, schedule: Any) -> None:
    """Check that the noise levels are finite and run from little noise to much. Raises UserError."""
    if not isinstance(schedule, NoiseSchedule):
        raise UserError(f"{name}.schedule must be a NoiseSchedule, got a {type(schedule).__name__}")
    alphas, sigmas = schedule.alphas, schedule.sigmas
    if alphas.ndim != 1 or alphas.shape != sigmas.shape or not len(alphas):
        raise UserError(
            f"{name}.schedule must hold as many alphas as sigmas, got shapes {tuple(alphas.shape)} and "
            f"{tuple(sigmas.shape)}"
        )
    if not bool(torch.stack([alphas, sigmas]).isfinite().all()):
        raise UserError(f"{name}.schedule holds alphas or sigmas that are not finite")
    if float(sigmas[-1] * alphas[0]) < float(sigmas[0] * alphas[-1]):
        raise UserError(f"{name}.schedule runs from high to low noise; timestep 0 must be the least noisy")


def _with_others(
    sample: NoisySample, geometry: GeometryBuffers, schedule: NoiseSchedule
) -> tuple[NoisySample, GeometryBuffers]:
    """The sample with the first image and noise unchanged, and all others changed far beyond the usual range."""

    def changed(value: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        return torch.cat([value[:1], change(value[1:])])

    timestep = changed(sample.timestep, lambda t: (schedule.steps - 1 - t).clamp(min=0))
    others = schedule.add_noise(
        changed(sample.clean, lambda clean: 2 - clean), changed(sample.noise, lambda noise: noise.flip(-1)), timestep
    )
    opacity, depth, normal, pose = geometry.opacity, geometry.depth, geometry.normal, geometry.camera_to_world
    return others, GeometryBuffers(
        changed(opacity, lambda value: 1 - value),
        changed(depth, lambda value: value + 1),
        changed(normal, torch.neg),
        pose,
        geometry.intrinsics,
    )


def _moved(terms: Float[Tensor, "k b c h w"], others: Float[Tensor, "k b c h w"]) -> bool:
    """Whether the terms of the first image differ by more than rounding errors."""
    one, other = terms[:, 0].detach(), others[:, 0].detach()
    return float((one - other).abs().max()) > 1e-4 * float(one.abs().max()) + 1e-7


def _broken(values: Tensor) -> str:
    return f"{int((~values.isfinite()).sum())} of {values.numel()} values that are not finite"
