"""Settings of the control variates of a method."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Interval

from ..geometry.base import GeometryEstimator
from ..priors.base import Prior
from .coefficients import Coefficients, FixedCoefficients, RunningRegression, SecondMomentDescent
from .registry import CONTROL_VARIATES, VariateContext
from .terms import STEIN_VARIANTS, ControlVariate, SteinVariant


@dataclass
class ControlVariateConfig:
    """Control variates that are added to a method's residual, and how their coefficients are learned.

    Example:
        >>> from steindreamer.distill import ControlVariateConfig, SSDConfig
        >>> method = SSDConfig(control_variates=ControlVariateConfig(terms=["noise", "spectral"]))
    """

    terms: list[str] = field(default_factory=lambda: ["spectral"])
    """Names of `CONTROL_VARIATES`, which are fitted jointly: "spectral"; "noise" (SDS with a learned coefficient, the
    baseline for all others); "learned", a small network that learns an odd function of the noise; "low_rank", a
    matrix per range of timesteps, shared by all images; "depth" and "normal", the paper's Stein terms (used alone
    they may be worse than SDS); or one that you registered. Empty: none."""
    coefficients: Literal["regression", "second_moment", "fixed"] = "regression"
    """Learning rule of the coefficients: "regression" (running least squares), "second_moment" (the paper's Eq. 11) or
    "fixed" (initial values)."""
    variant: SteinVariant = "corrected"
    """Variant of the Stein terms; "paper" is the printed form, which is not zero-mean, for comparison only."""
    bands: Annotated[int, Interval(ge=1, le=1024)] = 12
    """Number of frequency bands of "spectral"."""
    timestep_bins: Annotated[int, Interval(ge=1, le=1000)] = 8
    """Number of schedule ranges in which coefficients, and the matrices of "low_rank", are learned separately."""
    decay: Annotated[float, Interval(gt=0, le=1)] = 0.999
    """Exponential forgetting of the regression and of "low_rank", per image observed in a timestep bin."""
    prior_observations: Annotated[float, Interval(gt=0, le=1e9)] = 8.0
    """Pseudo-observations per timestep bin that regularize the regression toward the initial coefficients."""
    per_channel: bool = True
    """Whether the regression learns a coefficient per channel."""
    learning_rate: Annotated[float, Interval(gt=0, le=100)] = 1e-2
    """Learning rate of Adam, for "second_moment"."""

    def __post_init__(self) -> None:
        """Check the settings.

        Raises ValueError for unknown or repeated terms, and for a `variant` that is unknown or applies to none of them.
        """
        self.check()

    @property
    def needs_estimator(self) -> bool:
        """Whether one of the terms requires a geometry estimator."""
        return any(name in CONTROL_VARIATES and CONTROL_VARIATES[name].needs_estimator for name in self.terms)

    def check(self, *, antithetic: bool = False) -> None:
        """Check the settings.

        Args:
            antithetic: whether the method pairs each draw with the one of negative noise.

        Raises ValueError for unknown or repeated terms, for a `variant` that is unknown or applies to none of them, and
        for a term that cancels in antithetic pairs.
        """
        known = CONTROL_VARIATES
        if len(set(self.terms)) != len(self.terms) or not set(self.terms) <= known.keys():
            raise ValueError(f"terms must list some of {', '.join(known)}, each once; got {self.terms}")
        if self.variant not in STEIN_VARIANTS:
            raise ValueError(f"unknown Stein variant {self.variant!r}: use one of {', '.join(STEIN_VARIANTS)}")
        stein = [name for name in known if known[name].is_stein]
        if self.variant != "corrected" and not set(self.terms) & set(stein):
            raise ValueError(
                f"variant {self.variant!r} applies to Stein terms, but terms={self.terms} has none: list one of "
                f"{', '.join(stein)}"
            )
        odd = [name for name in self.terms if known[name].is_odd]
        if odd and antithetic:
            raise ValueError(
                f"{odd[0]!r} predicts the odd part of the noise dependence, which cancels in antithetic pairs: "
                "set antithetic=false, or leave it out of control_variates.terms"
            )

    def build(
        self, prior: Prior[Any, Any], estimator: GeometryEstimator | None, *, starts_as_sds: bool
    ) -> tuple[list[ControlVariate], Coefficients]:
        """Build the control variates and their coefficients.

        Args:
            prior: the prior whose predictions they are added to.
            estimator: a depth and normal estimator, required if `needs_estimator`.
            starts_as_sds: whether the terms together start as SDS's -noise; otherwise all coefficients start at 0,
                since the method subtracts its own counterpart.

        Raises ValueError for settings that `check` refuses, and for a term that lacks the estimator it needs.
        """
        self.check()
        initial = {name: self._start(name) if starts_as_sds else 0.0 for name in self.terms}
        noise_share = float(any(initial.values()))

        def built(name: str) -> ControlVariate:
            settings = self.bands, self.timestep_bins, self.decay, self.variant
            return CONTROL_VARIATES[name].build(VariateContext(prior, estimator, initial[name], noise_share, *settings))

        variates = [built(name) for name in initial]
        start = [value for variate in variates for value in variate.initial]
        return variates, self._coefficients(start, prior.schedule.steps)

    def _start(self, name: str) -> float:
        """Initial coefficients with which the terms together are SDS: one carries -noise, or the Stein terms share it
        (as if phi were -1).
        """
        carriers = [known for known, entry in CONTROL_VARIATES.items() if entry.carries_noise]
        carrier = next((known for known in carriers if known in self.terms), None)
        return 1 / len(self.terms) if carrier is None else float(name == carrier)

    def _coefficients(self, initial: list[float], steps: int) -> Coefficients:
        if not initial or self.coefficients == "fixed":
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
