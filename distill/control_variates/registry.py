"""Registry of control variates: names that `ControlVariateConfig.terms` may list, and how each is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from steindreamer.registry import Registry

from ..geometry.base import GeometryEstimator
from ..priors.base import Prior
from .baselines import Baseline, DepthBaseline, NormalBaseline
from .learned import LearnedTerm
from .low_rank import LowRankTerm
from .terms import ControlVariate, NoiseTerm, SpectralTerm, SteinTerm


@dataclass(frozen=True)
class VariateContext:
    """The inputs from which a control variate is built."""

    prior: Prior
    estimator: GeometryEstimator | None
    """The depth and normal estimator; never None for an entry with `needs_estimator`."""
    initial: float
    """The initial coefficient; the terms of a method together start as SDS."""
    noise_share: float
    """1 if one of the method's terms starts as SDS's -noise, else 0."""
    bands: int
    """`ControlVariateConfig.bands`. The next three fields are the settings of the same names."""
    timestep_bins: int
    decay: float
    variant: str


@dataclass(frozen=True)
class ControlVariateEntry:
    """A control variate's factory and the properties that a method needs before it is built."""

    build: Callable[[VariateContext], ControlVariate]
    needs_estimator: bool = False
    """Whether building it requires a geometry estimator."""
    carries_noise: bool = False
    """Whether it is SDS's -noise with coefficient 1. The first registered one of a method starts that way."""
    is_odd: bool = False
    """Whether it is odd in the noise and therefore cancels in antithetic pairs."""
    is_stein: bool = False
    """Whether it is a Stein term, to which `ControlVariateConfig.variant` applies."""


def stein_entry(
    name: str, build: Callable[[VariateContext], Baseline], *, needs_estimator: bool = False
) -> ControlVariateEntry:
    """The entry of the Stein term of a baseline function.

    Example:
        >>> from steindreamer.distill import CONTROL_VARIATES, stein_entry
        >>> from steindreamer.distill.control_variates.baselines import ConstantBaseline
        >>> CONTROL_VARIATES.register("constant", stein_entry("constant", lambda context: ConstantBaseline(-0.5)))
    """

    def term(context: VariateContext) -> ControlVariate:
        return SteinTerm(name, build(context), context.variant, context.initial)

    return ControlVariateEntry(term, needs_estimator, is_stein=True)


def _on_estimates(name: str, kind: type[DepthBaseline] | type[NormalBaseline]) -> ControlVariateEntry:
    def baseline(context: VariateContext) -> Baseline:
        if context.estimator is None:
            raise ValueError(
                f"the control variate {name!r} needs a geometry estimator and none was given: "
                'pass one to build(prior, estimator), or choose terms: ["spectral"] or ["noise"]'
            )
        return kind(context.estimator, context.prior.decode)

    return stein_entry(name, baseline, needs_estimator=True)


def _learned(context: VariateContext) -> LearnedTerm:
    return LearnedTerm(carries_noise=context.initial > 0, noise_share=context.noise_share)


def _low_rank(context: VariateContext) -> LowRankTerm:
    return LowRankTerm(
        context.prior.schedule.steps,
        context.timestep_bins,
        decay=context.decay,
        carries_noise=context.initial > 0,
        noise_share=context.noise_share,
    )


def _adopted(name: str, given: Any) -> ControlVariateEntry:
    """Convert a registered object to an entry: an entry itself, a class of control variates, or a baseline function."""
    if isinstance(given, ControlVariateEntry):
        return given
    if isinstance(given, type) and callable(getattr(given, "terms", None)):
        return ControlVariateEntry(lambda context: given())
    if callable(given) and not isinstance(given, type):
        baseline: Any = given
        return stein_entry(name, lambda context: baseline)
    raise ValueError(
        f"control variate {name!r} must be a function of (noisy, level, geometry), a class with names, initial and "
        f"terms(sample, geometry), or a ControlVariateEntry; got {given!r}"
    )


CONTROL_VARIATES: Registry[ControlVariateEntry] = Registry(
    "control variate",
    {
        "spectral": ControlVariateEntry(
            lambda context: SpectralTerm(context.bands, context.initial), carries_noise=True
        ),
        "noise": ControlVariateEntry(lambda context: NoiseTerm(context.initial), carries_noise=True),
        "learned": ControlVariateEntry(_learned, carries_noise=True, is_odd=True),
        "low_rank": ControlVariateEntry(_low_rank, carries_noise=True, is_odd=True),
        "depth": _on_estimates("depth", DepthBaseline),
        "normal": _on_estimates("normal", NormalBaseline),
    },
    _adopted,
)
"""Control variates by name. `register_control_variate` takes a baseline function phi(noisy, level, geometry), a
class with the protocol `ControlVariate` that is created without arguments, or a `ControlVariateEntry`."""

register_control_variate = CONTROL_VARIATES.register
list_control_variates = CONTROL_VARIATES.names
