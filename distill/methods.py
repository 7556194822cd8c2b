"""The distillation methods by name: each is a configuration that builds a `Distiller`.

Plain dataclasses, usable as OmegaConf structured configs; field docstrings are their documentation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Interval as Range

from .baselines import BASELINES, BUILT_IN_TERMS, build_baseline, check_baseline_names
from .coefficients import Coefficients, FixedCoefficients, RunningRegression, SecondMomentDescent
from .control_variates import STEIN_VARIANTS, ControlVariate, NoiseTerm, SpectralTerm, SteinTerm
from .distiller import Distiller
from .estimator import GeometryEstimator
from .low_rank import LowRankTerm
from .prior import LowRankCopyable, Prior
from .residuals import Bridge, Classifier, Interval, Inverted, NoiseFree, Residual, Shifted
from .student import StudentTerm
from .timesteps import TimestepConfig
from .vsd import LearnedScore
from .weighting import WEIGHTINGS

COEFFICIENTS = ("regression", "second_moment", "fixed")


@dataclass
class SDSConfig:
    """Score distillation sampling (DreamFusion): the residual eps_hat - noise."""

    guidance_scale: Annotated[float, Range(ge=-1000, le=1000)] = 7.5
    """Classifier-free guidance e_0 + s (e_c - e_0); 1 is conditional only. At 100, guidance and camera dominate the
    variance and control variates have little left to remove."""
    timesteps: TimestepConfig = field(default_factory=TimestepConfig)
    weighting: Annotated[str, tuple(WEIGHTINGS)] = "sigma_squared"
    """One of `WEIGHTINGS`."""
    antithetic: bool = False
    """Average each draw with its mirror image -noise: two prior calls per step. What is odd in the noise cancels, among
    it the terms "noise" and "spectral": learning their coefficients has no effect then."""

    @property
    def needs_estimator(self) -> bool:
        """Whether `build` must be given a geometry estimator."""
        return False

    def validate(self) -> None:
        """Raises ValueError for settings that are in range but do not go together."""

    def texts(self, prompt: str, negative_prompt: str) -> tuple[str, str]:
        """The run's prompt and negative prompt ("": none) as this method puts them to the prior."""
        return prompt, negative_prompt

    def build(self, prior: Prior, estimator: GeometryEstimator | None = None) -> Distiller:
        """A distiller for this prior; the estimator is not used."""
        variate = NoiseTerm()
        return _distiller(self, prior, [variate], FixedCoefficients(variate.initial, prior.schedule.steps))


@dataclass
class SSDConfig(SDSConfig):
    """Stein score distillation (SteinDreamer): control variates with coefficients learned from past steps."""

    baseline: list[str] = field(default_factory=lambda: ["spectral"])
    """Fitted jointly, any of `control_variate_names()`: "spectral"; "noise" (SDS with a learned coefficient, which all
    others must beat); "student", a small network that learns what is odd in the noise; "low_rank", a matrix per range
    of timesteps that learns the same for all pictures; "depth" and "normal", the paper's Stein terms (alone they may be
    worse than SDS); your own."""
    coefficients: Annotated[str, COEFFICIENTS] = "regression"
    """"regression": running least squares; "second_moment": the paper's Eq. 11; "fixed": initial values throughout."""
    variant: Annotated[str, STEIN_VARIANTS] = "corrected"
    """Of the Stein terms; "paper" is the printed form, which is not zero-mean: for comparison only."""
    bands: Annotated[int, Range(ge=1, le=1024)] = 12
    """Frequency bands of "spectral"."""
    timestep_bins: Annotated[int, Range(ge=1, le=1000)] = 8
    """Coefficients, and the matrices of "low_rank", are learned separately in so many ranges of the schedule."""
    decay: Annotated[float, Range(gt=0, le=1)] = 0.999
    """Forgetting of the regression and of "low_rank", per picture seen in a timestep bin."""
    prior_observations: Annotated[float, Range(gt=0, le=1e9)] = 8.0
    """Imaginary pictures per timestep bin that hold the regression at SDS in the beginning."""
    per_channel: bool = True
    """Whether the regression learns each channel by itself."""
    learning_rate: Annotated[float, Range(gt=0, le=100)] = 1e-2
    """Adam's, for "second_moment"."""

    @property
    def needs_estimator(self) -> bool:
        return any(name in BASELINES and BASELINES[name].needs_estimator for name in self.baseline)

    def validate(self) -> None:
        """Raises ValueError for unknown, repeated or missing baselines, and for a `variant` that is unknown or concerns
        none of the terms."""
        self._check_terms()

    def build(self, prior: Prior, estimator: GeometryEstimator | None = None) -> Distiller:
        """Raises ValueError for unknown, repeated or missing baselines, for one that lacks the estimator it needs, and
        for a `variant` that is unknown or concerns none of the terms."""
        variates = self._control_variates(prior, estimator)
        initial = [value for variate in variates for value in variate.initial]
        return _distiller(self, prior, variates, self._coefficients(initial, prior.schedule.steps))

    def _check_terms(self) -> None:
        check_baseline_names()
        names, known = list(self.baseline), control_variate_names()
        if not names or len(set(names)) != len(names) or not set(names) <= set(known):
            raise ValueError(f"baseline must list some of {', '.join(known)}, each once; got {names}")
        if self.variant not in STEIN_VARIANTS:
            raise ValueError(f"unknown Stein variant {self.variant!r}: use one of {', '.join(STEIN_VARIANTS)}")
        if self.variant != "corrected" and not set(names) & BASELINES.keys():
            raise ValueError(
                f"variant {self.variant!r} concerns Stein terms, and baseline={names} has none: "
                f"list one of {', '.join(BASELINES)}"
            )
        odd = [name for name in names if name in ("student", "low_rank")]
        if odd and self.antithetic:
            raise ValueError(
                f"{odd[0]!r} foretells what is odd in the noise, and that cancels in antithetic pairs: "
                "set antithetic=false, or leave it out of the baseline"
            )

    def _control_variates(self, prior: Prior, estimator: GeometryEstimator | None) -> list[ControlVariate]:
        self._check_terms()
        names = list(self.baseline)
        noise_share = float(any(self._start(name) for name in names))
        variates: list[ControlVariate] = []
        for name in names:
            start = self._start(name)
            if name == "noise":
                variates.append(NoiseTerm(start))
            elif name == "spectral":
                variates.append(SpectralTerm(self.bands, start))
            elif name == "student":
                variates.append(StudentTerm(carries_noise=start > 0, noise_share=noise_share))
            elif name == "low_rank":
                variates.append(
                    LowRankTerm(
                        prior.schedule.steps,
                        self.timestep_bins,
                        decay=self.decay,
                        carries_noise=start > 0,
                        noise_share=noise_share,
                    )
                )
            else:
                variates.append(SteinTerm(name, build_baseline(name, prior, estimator), self.variant, start))
        return variates

    def _start(self, name: str) -> float:
        """Together the terms start as SDS: one carries -noise, or the Stein terms share it (as if phi were -1)."""
        carrier = next(
            (known for known in ("spectral", "noise", "student", "low_rank") if known in self.baseline), None
        )
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
    """What the methods share whose counterpart is not the noise: SSD's terms can be added, coefficients begin at 0."""

    baseline: list[str] = field(default_factory=list)
    """Of SSD's terms; none: the method as published."""

    def validate(self) -> None:
        if self.baseline:
            self._check_terms()

    @abstractmethod
    def residual(self) -> Residual:
        """Raises ValueError for settings out of range."""

    def build(self, prior: Prior, estimator: GeometryEstimator | None = None) -> Distiller:
        """Raises ValueError like SSD's, and for settings out of range; TypeError if `residual` returns none."""
        residual: Any = self.residual()
        if not isinstance(residual, Residual):
            raise TypeError(f"{type(self).__name__}.residual must return a Residual, got a {type(residual).__name__}")
        variates = self._control_variates(prior, estimator) if self.baseline else []
        initial, steps = [value for variate in variates for value in variate.initial], prior.schedule.steps
        coefficients = self._coefficients(initial, steps) if initial else FixedCoefficients(initial, steps)
        return _distiller(self, prior, variates, coefficients, residual=residual)

    def _start(self, name: str) -> float:
        """The counterpart has the noise's place already."""
        return 0.0


@dataclass
class CSDConfig(ResidualConfig):
    """Classifier score distillation (2310.19415): guidance alone. Weights of the negative prompt are those of its code
    for Stable Diffusion; the negative prompt is the run's, none by default.

    guidance_scale is 1 there; with Adam, only penalties notice.
    """

    negative_weight: Annotated[float, Range(ge=-100, le=100)] = 1.0
    """How far the negative prompt takes the place of no prompt at the start of the stage;"""
    final_negative_weight: Annotated[float, Range(ge=-100, le=100)] = 0.5
    """at its end, linearly between. Of no account without negative_prompt."""

    def residual(self) -> Residual:
        return Classifier(self.guidance_scale, self.negative_weight, self.final_negative_weight)


@dataclass
class NFSDConfig(ResidualConfig):
    """Noise-free score distillation (2310.17590), with the paper's guidance 7.5, threshold and negative prompt."""

    threshold: Annotated[float, Range(ge=0, le=1)] = 0.2
    """Share of the schedule below which the unconditional prediction is taken as it is."""
    negative_prompt: str = (
        "unrealistic, blurry, low quality, out of focus, ugly, low contrast, dull, dark, low-resolution, gloomy"
    )
    """What pictures far from the model's look like, if the run has no negative_prompt. Empty: above `threshold` only
    guidance is left."""

    def texts(self, prompt: str, negative_prompt: str) -> tuple[str, str]:
        return prompt, negative_prompt or self.negative_prompt

    def residual(self) -> Residual:
        return NoiseFree(self.guidance_scale, self.threshold)


@dataclass
class BridgeConfig(ResidualConfig):
    """The second stage of SDS-Bridge (2406.09417): from what the scene looks like to what it shall look like. Words and
    guidance are the defaults of its code; the first stage is `sds`."""

    guidance_scale: Annotated[float, Range(ge=-1000, le=1000)] = 30.0
    target: str = ", detailed high resolution, high quality, sharp"
    """Appended to the prompt."""
    source: str = ", oversaturated, smooth, pixelated, cartoon, foggy, hazy, blurry, bad structure, noisy, malformed"
    """Appended to the prompt, the negative prompt. The run's negative_prompt, if given, is taken instead."""

    def texts(self, prompt: str, negative_prompt: str) -> tuple[str, str]:
        return prompt + self.target, negative_prompt or prompt + self.source

    def residual(self) -> Residual:
        return Bridge(self.guidance_scale)


@dataclass
class ASDConfig(ResidualConfig):
    """Asynchronous score distillation (ScaleDreamer, 2407.02040): VSD without a copy of the model, for any prior.
    Defaults are those of its code, but for noise levels that do not fall during the run there."""

    shift: Annotated[float, Range(ge=0, le=10)] = 0.1
    """How much noisier the counterpart's pictures are: this share of the way from timesteps.minimum."""

    def residual(self) -> Residual:
        return Shifted(self.guidance_scale, self.shift, self.timesteps.minimum)


@dataclass
class ISMConfig(ResidualConfig):
    """Interval score matching (LucidDreamer, 2311.11284). Defaults are those of its code, but for an interval that is
    0.1 at first there."""

    timesteps: TimestepConfig = field(default_factory=lambda: TimestepConfig(anneal=0.3))
    weighting: Annotated[str, tuple(WEIGHTINGS)] = "sigma_over_alpha"
    interval: Annotated[float, Range(gt=0, lt=1)] = 0.08
    """Between the two noise levels, a share of the schedule."""
    stride: Annotated[float, Range(ge=0.001, le=1)] = 0.2
    """Of a move of the inversion, a share of the schedule: the smaller, the more calls of the prior."""

    def residual(self) -> Residual:
        return Interval(self.guidance_scale, self.interval, self.stride)


@dataclass
class SDIConfig(ResidualConfig):
    """Score distillation via inversion (2405.15891): SDS with the noise that DDIM inversion finds. Defaults are
    threestudio's, but that no noise is added on the way (0.3 there)."""

    timesteps: TimestepConfig = field(default_factory=lambda: TimestepConfig(order="linear"))
    weighting: Annotated[str, tuple(WEIGHTINGS)] = "sigma_over_alpha"
    inversion_scale: Annotated[float, Range(ge=-1000, le=1000)] = -7.5
    """Guidance of the inversion."""
    stride: Annotated[float, Range(ge=0.001, le=1)] = 0.1
    """Of a move of the inversion, a share of the schedule: the smaller, the more calls of the prior."""

    def residual(self) -> Residual:
        return Inverted(self.guidance_scale, self.inversion_scale, self.stride)


@dataclass
class VSDConfig(SSDConfig):
    """Variational score distillation (ProlificDreamer): a copy of the model, trained on the scene's own pictures, takes
    the noise's place in SDS. Wants a text-to-image model.

    Defaults are threestudio's. SSD's terms can be added to it; their coefficients begin at 0.
    """

    baseline: list[str] = field(default_factory=list)
    """Of SSD's terms; none: VSD as published."""
    rank: Annotated[int, Range(ge=1, le=1024)] = 4
    """Of the copy's low-rank updates (LoRA)."""
    copy_rate: Annotated[float, Range(gt=0, le=100)] = 1e-4
    """Learning rate of the copy (AdamW)."""
    copy_steps: Annotated[int, Range(ge=0, le=1000)] = 1
    """Training steps of the copy per step of the scene, each with noise of its own."""
    camera: bool = True
    """Whether the copy is told the camera."""
    camera_weight: Annotated[float, Range(ge=-10, le=10)] = 1.0
    """Below 1, the copy's prediction is mixed with the one that is not told the camera, down to that alone at 0 (ESD,
    entropic score distillation): against several faces. Set prior.view_dependent=false, for words tell the view too."""
    camera_dropout: Annotated[float, Range(ge=0, le=1)] = 0.1
    """Share of pictures whose camera is not told in training."""

    def validate(self) -> None:
        if self.baseline:
            self._check_terms()

    def build(self, prior: Prior, estimator: GeometryEstimator | None = None) -> Distiller:
        """Raises ValueError like SSD's, for settings out of range, and for a prior without a network to copy."""
        if not isinstance(prior, LowRankCopyable):
            raise ValueError(
                f"method vsd trains a copy of the prior's network, and {type(prior).__name__} has none to copy: "
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
        """The learned score has the noise's place already."""
        return 0.0


def control_variate_names() -> tuple[str, ...]:
    """What `SSDConfig.baseline` may list."""
    return (*BUILT_IN_TERMS, *BASELINES)


METHODS: dict[str, type[SDSConfig]] = {
    "sds": SDSConfig,
    "ssd": SSDConfig,
    "vsd": VSDConfig,
    "csd": CSDConfig,
    "nfsd": NFSDConfig,
    "bridge": BridgeConfig,
    "asd": ASDConfig,
    "ism": ISMConfig,
    "sdi": SDIConfig,
}


def register_method(name: str, config: type[SDSConfig]) -> None:
    """Make `config`, a dataclass that inherits `SDSConfig`, available under `name`.

    Raises ValueError if the name is taken.
    """
    if name in METHODS:
        raise ValueError(f"a method named {name!r} exists already: choose another name")
    METHODS[name] = config


def _distiller(
    config: SDSConfig,
    prior: Prior,
    variates: list[ControlVariate],
    coefficients: Coefficients,
    learned_score: LearnedScore | None = None,
    residual: Residual | None = None,
) -> Distiller:
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
