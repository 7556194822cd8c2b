"""The distillation methods by name: each is a configuration that builds a `Distiller`.

Plain dataclasses, usable as OmegaConf structured configs; field docstrings are their documentation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .baselines import BASELINES, build_baseline
from .coefficients import Coefficients, FixedCoefficients, RunningRegression, SecondMomentDescent
from .control_variates import STEIN_VARIANTS, ControlVariate, NoiseTerm, SpectralTerm, SteinTerm
from .distiller import Distiller
from .estimator import GeometryEstimator
from .prior import Prior
from .timesteps import TimestepConfig


@dataclass
class SDSConfig:
    """Score distillation sampling (DreamFusion): the residual eps_hat - noise."""

    guidance_scale: float = 7.5
    """Classifier-free guidance e_0 + s (e_c - e_0); 1 is conditional only. At 100, guidance and camera dominate the
    variance and control variates have little left to remove."""
    timesteps: TimestepConfig = field(default_factory=TimestepConfig)
    weighting: str = "sigma_squared"
    """One of `WEIGHTINGS`."""
    antithetic: bool = False
    """Average each draw with its mirror image -noise: two prior calls per step. What is odd in the noise cancels, among
    it the terms "noise" and "spectral": learning their coefficients has no effect then."""

    @property
    def needs_estimator(self) -> bool:
        """Whether `build` must be given a geometry estimator."""
        return False

    def build(self, prior: Prior, estimator: GeometryEstimator | None = None) -> Distiller:
        """A distiller for this prior; the estimator is not used."""
        variate = NoiseTerm()
        return _distiller(self, prior, [variate], FixedCoefficients(variate.initial, prior.schedule.steps))


@dataclass
class SSDConfig(SDSConfig):
    """Stein score distillation (SteinDreamer): control variates with coefficients learned from past steps."""

    baseline: list[str] = field(default_factory=lambda: ["spectral"])
    """Fitted jointly, any of `control_variate_names()`: "spectral"; "noise" (SDS with a learned coefficient, which all
    others must beat); "depth" and "normal", the paper's Stein terms (alone they may be worse than SDS); your own."""
    coefficients: str = "regression"
    """"regression": running least squares; "second_moment": the paper's Eq. 11; "fixed": initial values throughout."""
    variant: str = "corrected"
    """Of the Stein terms; "paper" is the printed form, which is not zero-mean: for comparison only."""
    bands: int = 12
    """Frequency bands of "spectral"."""
    timestep_bins: int = 8
    """Coefficients are learned separately in so many ranges of the schedule."""
    decay: float = 0.999
    """Forgetting of the regression, per picture seen in a timestep bin."""
    prior_observations: float = 8.0
    """Imaginary pictures per timestep bin that hold the regression at SDS in the beginning."""
    per_channel: bool = True
    """Whether the regression learns each channel by itself."""
    learning_rate: float = 1e-2
    """Adam's, for "second_moment"."""

    @property
    def needs_estimator(self) -> bool:
        return any(name in BASELINES and BASELINES[name].needs_estimator for name in self.baseline)

    def build(self, prior: Prior, estimator: GeometryEstimator | None = None) -> Distiller:
        """Raises ValueError for unknown, repeated or missing baselines, for one that lacks the estimator it needs, and
        for a `variant` that is unknown or concerns none of the terms."""
        variates = self._control_variates(prior, estimator)
        initial = [value for variate in variates for value in variate.initial]
        return _distiller(self, prior, variates, self._coefficients(initial, prior.schedule.steps))

    def _control_variates(self, prior: Prior, estimator: GeometryEstimator | None) -> list[ControlVariate]:
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
        # Together the terms start as SDS: one of them carries -noise, or the Stein terms share it (as if phi were -1).
        carrier = next((name for name in ("spectral", "noise") if name in names), None)
        variates: list[ControlVariate] = []
        for name in names:
            start = 1 / len(names) if carrier is None else float(name == carrier)
            if name == "noise":
                variates.append(NoiseTerm(start))
            elif name == "spectral":
                variates.append(SpectralTerm(self.bands, start))
            else:
                variates.append(SteinTerm(name, build_baseline(name, prior, estimator), self.variant, start))
        return variates

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


def control_variate_names() -> tuple[str, ...]:
    """What `SSDConfig.baseline` may list."""
    return ("noise", "spectral", *BASELINES)


METHODS: dict[str, type[SDSConfig]] = {"sds": SDSConfig, "ssd": SSDConfig}


def _distiller(
    config: SDSConfig, prior: Prior, variates: list[ControlVariate], coefficients: Coefficients
) -> Distiller:
    return Distiller(
        prior,
        variates,
        coefficients,
        guidance_scale=config.guidance_scale,
        timesteps=config.timesteps,
        weighting=config.weighting,
        antithetic=config.antithetic,
    )
