"""The distillation methods by name: each is a configuration that builds a `Distiller`.

Plain dataclasses; field docstrings are their documentation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Interval as Range

from steindreamer.registry import Registry

from .control_variates.coefficients import Coefficients, FixedCoefficients, RunningRegression, SecondMomentDescent
from .control_variates.registry import CONTROL_VARIATES, VariateContext
from .control_variates.terms import STEIN_VARIANTS, ControlVariate, NoiseTerm, SteinVariant
from .distiller import Distiller
from .geometry.base import GeometryEstimator
from .learned_score import LearnedScore
from .noise.timesteps import TimestepConfig
from .noise.weighting import WeightingName
from .priors.base import Condition, LoRAPrior, Prior
from .residual import Bridge, Classifier, Interval, Inverted, NoiseFree, Residual, Shifted


@dataclass
class SDSConfig:
    """Score distillation sampling (DreamFusion): the residual eps_hat - noise."""

    guidance_scale: Annotated[float, Range(ge=-1000, le=1000)] = 7.5
    """Scale s of classifier-free guidance e_n + s (e_p - e_n); 1 uses the positive prompt alone. At 100, guidance and
    camera dominate the variance and little is left for control variates to remove."""
    timesteps: TimestepConfig = field(default_factory=TimestepConfig)
    """Timestep sampling."""
    weighting: WeightingName = "sigma_squared"
    """Name of the weighting w(t), see `noise.weighting`."""
    antithetic: bool = False
    """Whether each draw is averaged with the one of negative noise, at two calls of the prior per step. Terms that are
    odd in the noise, among them "noise" and "spectral", cancel; learning their coefficients then has no effect."""

    @property
    def needs_estimator(self) -> bool:
        """Whether `build` requires a geometry estimator."""
        return False

    def texts(self, prompt: str, negative_prompt: str) -> tuple[str, str]:
        """The prompt and negative prompt ("": none) that this method gives the prior, from the run's."""
        return prompt, negative_prompt

    def build(self, prior: Prior[Any, Condition], estimator: GeometryEstimator | None = None) -> Distiller[Condition]:
        """Build a distiller for this prior; the estimator is not used.

        Args:
            prior: the diffusion prior whose predictions are distilled.
            estimator: a depth and normal estimator, required if `needs_estimator`.

        Example:
            >>> from steindreamer.distill import SSDConfig
            >>> distiller = SSDConfig(baseline=["noise", "spectral"]).build(prior)  # doctest: +SKIP
        """
        variate = NoiseTerm()
        return _distiller(self, prior, [variate], FixedCoefficients(variate.initial, prior.schedule.steps))


@dataclass
class SSDConfig(SDSConfig):
    """Stein score distillation (SteinDreamer): control variates with coefficients learned from past steps."""

    baseline: list[str] = field(default_factory=lambda: ["spectral"])
    """Names of `CONTROL_VARIATES`, which are fitted jointly: "spectral"; "noise" (SDS with a learned coefficient, the
    baseline for all others); "learned", a small network that learns an odd function of the noise; "low_rank", a
    matrix per range of timesteps, shared by all images; "depth" and "normal", the paper's Stein terms (used alone
    they may be worse than SDS); or one that you registered."""
    coefficients: Literal["regression", "second_moment", "fixed"] = "regression"
    """Learning rule of the coefficients: "regression" (running least squares), "second_moment" (the paper's Eq. 11) or
    "fixed" (initial values)."""
    variant: SteinVariant = "corrected"
    """Variant of the Stein terms; "paper" is the printed form, which is not zero-mean, for comparison only."""
    bands: Annotated[int, Range(ge=1, le=1024)] = 12
    """Number of frequency bands of "spectral"."""
    timestep_bins: Annotated[int, Range(ge=1, le=1000)] = 8
    """Number of schedule ranges in which coefficients, and the matrices of "low_rank", are learned separately."""
    decay: Annotated[float, Range(gt=0, le=1)] = 0.999
    """Exponential forgetting of the regression and of "low_rank", per image observed in a timestep bin."""
    prior_observations: Annotated[float, Range(gt=0, le=1e9)] = 8.0
    """Pseudo-observations per timestep bin that regularize the regression toward SDS."""
    per_channel: bool = True
    """Whether the regression learns a coefficient per channel."""
    learning_rate: Annotated[float, Range(gt=0, le=100)] = 1e-2
    """Learning rate of Adam, for "second_moment"."""

    @property
    def needs_estimator(self) -> bool:
        return any(name in CONTROL_VARIATES and CONTROL_VARIATES[name].needs_estimator for name in self.baseline)

    def __post_init__(self) -> None:
        """Check the settings.

        Raises ValueError for unknown, repeated or missing baselines, and for a `variant` that is unknown or applies to
        none of the terms.
        """
        self._check_terms()

    def build(self, prior: Prior[Any, Condition], estimator: GeometryEstimator | None = None) -> Distiller[Condition]:
        """Build a distiller with these control variates.

        Raises ValueError for unknown, repeated or missing baselines, for one that lacks the estimator it needs, and for
        a `variant` that is unknown or applies to none of the terms.
        """
        variates = self._control_variates(prior, estimator)
        initial = [value for variate in variates for value in variate.initial]
        return _distiller(self, prior, variates, self._coefficients(initial, prior.schedule.steps))

    def _check_terms(self) -> None:
        names, known = list(self.baseline), CONTROL_VARIATES
        if not names or len(set(names)) != len(names) or not set(names) <= known.keys():
            raise ValueError(f"baseline must list some of {', '.join(known)}, each once; got {names}")
        if self.variant not in STEIN_VARIANTS:
            raise ValueError(f"unknown Stein variant {self.variant!r}: use one of {', '.join(STEIN_VARIANTS)}")
        stein = [name for name in known if known[name].is_stein]
        if self.variant != "corrected" and not set(names) & set(stein):
            raise ValueError(
                f"variant {self.variant!r} concerns Stein terms, and baseline={names} has none: "
                f"list one of {', '.join(stein)}"
            )
        odd = [name for name in names if known[name].is_odd]
        if odd and self.antithetic:
            raise ValueError(
                f"{odd[0]!r} predicts the odd part of the noise dependence, which cancels in antithetic pairs: "
                "set antithetic=false, or leave it out of the baseline"
            )

    def _control_variates(self, prior: Prior[Any, Any], estimator: GeometryEstimator | None) -> list[ControlVariate]:
        self._check_terms()
        initial = {name: self._start(name) for name in self.baseline}
        noise_share = float(any(initial.values()))

        def built(name: str) -> ControlVariate:
            settings = self.bands, self.timestep_bins, self.decay, self.variant
            return CONTROL_VARIATES[name].build(VariateContext(prior, estimator, initial[name], noise_share, *settings))

        return [built(name) for name in initial]

    def _start(self, name: str) -> float:
        """Initial coefficients with which the terms together are SDS: one carries -noise, or the Stein terms share it
        (as if phi were -1).
        """
        carriers = [known for known, entry in CONTROL_VARIATES.items() if entry.carries_noise]
        carrier = next((known for known in carriers if known in self.baseline), None)
        return 1 / len(self.baseline) if carrier is None else float(name == carrier)

    def _coefficients(self, initial: list[float], steps: int) -> Coefficients:
        if self.coefficients == "fixed":
            return FixedCoefficients(initial, steps)
        if self.coefficients == "second_moment":
            return SecondMomentDescent(initial, steps, self.timestep_bins, learning_rate=self.learning_rate)
        if self.coefficients == "regression":
            return RunningRegression(
                initial,
                steps,
                self.timestep_bins,
                decay=self.decay,
                prior_observations=self.prior_observations,
                per_channel=self.per_channel,
            )
        raise ValueError(f"unknown coefficients {self.coefficients!r}: use regression, second_moment or fixed")


@dataclass
class ResidualConfig(SSDConfig, ABC):
    """Base of the methods whose counterpart is not the noise: SSD's terms can be added, and coefficients start at 0."""

    baseline: list[str] = field(default_factory=list)
    """Names of SSD's terms to add; none: the method as published."""

    def __post_init__(self) -> None:
        if self.baseline:
            self._check_terms()

    @abstractmethod
    def residual(self) -> Residual:
        """The residual of this method. Raises ValueError for settings out of range."""

    def build(self, prior: Prior[Any, Condition], estimator: GeometryEstimator | None = None) -> Distiller[Condition]:
        """Build a distiller with this residual.

        Raises ValueError like `SSDConfig.build` and for settings out of range, TypeError if `residual` returns none.
        """
        residual: Any = self.residual()
        if not isinstance(residual, Residual):
            raise TypeError(f"{type(self).__name__}.residual must return a Residual, got a {type(residual).__name__}")
        variates = self._control_variates(prior, estimator) if self.baseline else []
        initial, steps = [value for variate in variates for value in variate.initial], prior.schedule.steps
        coefficients = self._coefficients(initial, steps) if initial else FixedCoefficients(initial, steps)
        return _distiller(self, prior, variates, coefficients, residual=residual)

    def _start(self, name: str) -> float:
        """Initial coefficients of zero, since the residual subtracts its own counterpart instead of the noise."""
        return 0.0


@dataclass
class CSDConfig(ResidualConfig):
    """Classifier score distillation (2310.19415): guidance alone.

    Weights of the negative prompt are those of its code for Stable Diffusion; the negative prompt is the run's, none by
    default. guidance_scale is 1 there; with Adam, it only matters relative to regularizers.
    """

    negative_weight: Annotated[float, Range(ge=-100, le=100)] = 1.0
    """Weight of the negative prompt in place of the null prompt at the start of the stage. It has no effect without
    negative_prompt."""
    final_negative_weight: Annotated[float, Range(ge=-100, le=100)] = 0.5
    """Weight of the negative prompt at the end of the stage; it changes linearly from `negative_weight`."""

    def residual(self) -> Residual:
        return Classifier(self.guidance_scale, self.negative_weight, self.final_negative_weight)


@dataclass
class NFSDConfig(ResidualConfig):
    """Noise-free score distillation (2310.17590), with the paper's guidance scale, threshold and negative prompt."""

    threshold: Annotated[float, Range(ge=0, le=1)] = 0.2
    """Fraction of the schedule below which the unconditional prediction is used without the negative one."""
    negative_prompt: str = (
        "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
    )
    """Description of out-of-distribution images, used if the run has no negative_prompt. Empty: above `threshold` only
    guidance is left."""

    def texts(self, prompt: str, negative_prompt: str) -> tuple[str, str]:
        return prompt, negative_prompt or self.negative_prompt

    def residual(self) -> Residual:
        return NoiseFree(self.guidance_scale, self.threshold)


@dataclass
class BridgeConfig(ResidualConfig):
    """The second stage of SDS-Bridge (2406.09417): from a description of the current images to the target.

    Prompts and guidance scale are the defaults of its code; the first stage is `sds`.
    """

    guidance_scale: Annotated[float, Range(ge=-1000, le=1000)] = 30.0
    target: str = ", detailed high resolution, high quality, sharp"
    """Text appended to the prompt as the target."""
    source: str = ", oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed"
    """Text appended to the prompt as the negative prompt. The run's negative_prompt, if given, is used instead."""

    def texts(self, prompt: str, negative_prompt: str) -> tuple[str, str]:
        return prompt + self.target, negative_prompt or prompt + self.source

    def residual(self) -> Residual:
        return Bridge(self.guidance_scale)


@dataclass
class ASDConfig(ResidualConfig):
    """Asynchronous score distillation (ScaleDreamer, 2407.02040): VSD without a LoRA denoiser, for any prior.

    Defaults are those of its code, except for the timestep range, which its code does not anneal.
    """

    shift: Annotated[float, Range(ge=0, le=10)] = 0.1
    """Shift of the counterpart to a noisier timestep, as a fraction of the distance from timesteps.minimum."""

    def residual(self) -> Residual:
        return Shifted(self.guidance_scale, self.shift, self.timesteps.minimum)


@dataclass
class ISMConfig(ResidualConfig):
    """Interval score matching (LucidDreamer, 2311.11284).

    Defaults are those of its code, except for the interval, which starts at 0.1 there.
    """

    timesteps: TimestepConfig = field(default_factory=lambda: TimestepConfig(anneal=0.3))
    weighting: WeightingName = "sigma_over_alpha"
    interval: Annotated[float, Range(gt=0, lt=1)] = 0.08
    """Interval between the two timesteps, a fraction of the schedule."""
    stride: Annotated[float, Range(ge=0.001, le=1)] = 0.2
    """Length of a DDIM step of the inversion, a fraction of the schedule; smaller values need more prior calls."""

    def residual(self) -> Residual:
        return Interval(self.guidance_scale, self.interval, self.stride)


@dataclass
class SDIConfig(ResidualConfig):
    """Score distillation via inversion (2405.15891): SDS with the noise that DDIM inversion finds.

    Defaults are threestudio's, except that no noise is added during the inversion (0.3 there).
    """

    timesteps: TimestepConfig = field(default_factory=lambda: TimestepConfig(order="linear"))
    weighting: WeightingName = "sigma_over_alpha"
    inversion_scale: Annotated[float, Range(ge=-1000, le=1000)] = -7.5
    """Guidance scale of the inversion."""
    stride: Annotated[float, Range(ge=0.001, le=1)] = 0.1
    """Length of a DDIM step of the inversion, a fraction of the schedule; smaller values need more prior calls."""

    def residual(self) -> Residual:
        return Inverted(self.guidance_scale, self.inversion_scale, self.stride)


@dataclass
class VSDConfig(SSDConfig):
    """Variational score distillation (ProlificDreamer): subtracts a LoRA denoiser's prediction instead of the noise.

    The LoRA denoiser is trained on the scene's own images. The method requires a text-to-image model. Defaults are
    threestudio's. SSD's terms can be added; their coefficients start at 0.
    """

    baseline: list[str] = field(default_factory=list)
    """Names of SSD's terms to add; none: VSD as published."""
    rank: Annotated[int, Range(ge=1, le=1024)] = 4
    """Rank of the low-rank updates of the LoRA denoiser."""
    copy_rate: Annotated[float, Range(gt=0, le=100)] = 1e-4
    """Learning rate of the LoRA denoiser (AdamW)."""
    copy_steps: Annotated[int, Range(ge=0, le=1000)] = 1
    """Training steps of the LoRA denoiser per step of the scene, each with its own noise."""
    camera: bool = True
    """Whether the LoRA denoiser is conditioned on the camera."""
    camera_weight: Annotated[float, Range(ge=-10, le=10)] = 1.0
    """Weight of the LoRA denoiser's camera-conditioned prediction; 1: VSD; 0: the unconditioned prediction alone.
    Values below 1 mix both (ESD, entropic score distillation), against multiple faces. Set prior.view_dependent=false
    with them, since view-dependent prompts determine the view as well."""
    camera_dropout: Annotated[float, Range(ge=0, le=1)] = 0.1
    """Fraction of images whose camera condition is dropped in training."""

    def __post_init__(self) -> None:
        if self.baseline:
            self._check_terms()

    def build(self, prior: Prior[Any, Condition], estimator: GeometryEstimator | None = None) -> Distiller[Condition]:
        """Build a distiller with a learned score.

        Raises ValueError like `SSDConfig.build`, for settings out of range, and for a prior without a denoiser to
        fine-tune.
        """
        if not isinstance(prior, LoRAPrior):
            raise ValueError(
                f"method vsd fine-tunes the prior's denoiser by LoRA, and {type(prior).__name__} has none: "
                "give a text-to-image model with --prior (docs/models.md), or choose --method ssd or sds"
            )
        score = LearnedScore(
            prior,
            rank=self.rank,
            learning_rate=self.copy_rate,
            steps=self.copy_steps,
            camera=self.camera,
            camera_weight=self.camera_weight,
            camera_dropout=self.camera_dropout,
        )
        variates = self._control_variates(prior, estimator) if self.baseline else []
        initial, steps = [value for variate in variates for value in variate.initial], prior.schedule.steps
        coefficients = self._coefficients(initial, steps) if initial else FixedCoefficients(initial, steps)
        return _distiller(self, prior, variates, coefficients, score)

    def _start(self, name: str) -> float:
        """Initial coefficients of zero, since the learned score is subtracted instead of the noise."""
        return 0.0


METHODS: Registry[type[SDSConfig]] = Registry(
    "method",
    {
        "sds": SDSConfig,
        "ssd": SSDConfig,
        "vsd": VSDConfig,
        "csd": CSDConfig,
        "nfsd": NFSDConfig,
        "bridge": BridgeConfig,
        "asd": ASDConfig,
        "ism": ISMConfig,
        "sdi": SDIConfig,
    },
)
"""Distillation methods by name: dataclasses that inherit `SDSConfig`."""

register_method = METHODS.register
list_methods = METHODS.names


def _distiller(
    config: SDSConfig,
    prior: Prior[Any, Condition],
    variates: list[ControlVariate],
    coefficients: Coefficients,
    learned_score: LearnedScore[Condition] | None = None,
    residual: Residual | None = None,
) -> Distiller[Condition]:
    return Distiller(
        prior,
        variates,
        coefficients,
        guidance_scale=config.guidance_scale,
        timesteps=config.timesteps,
        weighting=config.weighting,
        antithetic=config.antithetic,
        learned_score=learned_score,
        residual=residual,
    )
