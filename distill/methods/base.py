"""The base of the distillation methods: plain dataclasses that build a `Distiller`.

Field docstrings are the documentation of the settings.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Interval

from ..control_variates.coefficients import Coefficients
from ..control_variates.config import ControlVariateConfig
from ..control_variates.terms import ControlVariate
from ..distiller import Distiller
from ..geometry.base import GeometryEstimator
from ..learned_score import LearnedScore
from ..noise.source import NoiseSource, independent_noise
from ..noise.timesteps import TimestepConfig
from ..noise.weighting import WeightingName
from ..priors.base import Condition, Prior
from ..residual import Residual

MAX_DRAWS = 64
"""Largest accepted number of draws per view."""


@dataclass
class MethodConfig(ABC):
    """The settings that all distillation methods share."""

    guidance_scale: Annotated[float, Interval(ge=-1000, le=1000)] = 7.5
    """Scale s of classifier-free guidance e_n + s (e_p - e_n); 1 uses the positive prompt alone. At 100, guidance and
    camera dominate the variance and little is left for control variates to remove."""
    timesteps: TimestepConfig = field(default_factory=TimestepConfig)
    """Timestep sampling."""
    weighting: WeightingName = "sigma_squared"
    """Name of the weighting w(t), see `noise.weighting`."""
    antithetic: bool = False
    """Whether each draw is averaged with the one of negative noise, at two calls of the prior per draw. Terms that are
    odd in the noise, among them "noise" and "spectral", cancel; learning their coefficients then has no effect."""
    draws: Annotated[int, Interval(ge=1, le=MAX_DRAWS)] | Literal["auto"] = 1
    """Draws of timestep and noise per view; the gradient is their mean. The view is rendered and encoded once, and each
    draw calls the prior, so that several draws pay where rendering is expensive or the views differ little. "auto":
    measured during the stage (not reproducible to the bit, since it depends on times)."""

    def __post_init__(self) -> None:
        """Check the draws. Raises ValueError for several draws with a deterministic order of timesteps."""
        self.timesteps.check_draws(self.draws)

    @property
    def needs_estimator(self) -> bool:
        """Whether `build` requires a geometry estimator."""
        return False

    def texts(self, prompt: str, negative_prompt: str) -> tuple[str, str]:
        """The prompt and negative prompt ("": none) that this method gives the prior, from the run's."""
        return prompt, negative_prompt

    def noise_source(self) -> NoiseSource:
        """The source of the noise of each draw; override it for noise of your own."""
        return independent_noise

    @abstractmethod
    def build(self, prior: Prior[Any, Condition], estimator: GeometryEstimator | None = None) -> Distiller[Condition]:
        """Build a distiller for this prior.

        Args:
            prior: the diffusion prior whose predictions are distilled.
            estimator: a depth and normal estimator, required if `needs_estimator`.

        Raises ValueError for settings that contradict each other or do not fit the prior.

        Example:
            >>> from steindreamer.distill import METHODS
            >>> distiller = METHODS["csd"](guidance_scale=1.0).build(prior)  # doctest: +SKIP
        """

    def distiller(
        self,
        prior: Prior[Any, Condition],
        control_variates: Sequence[ControlVariate],
        coefficients: Coefficients,
        *,
        residual: Residual | None = None,
        learned_score: LearnedScore[Condition] | None = None,
    ) -> Distiller[Condition]:
        """A distiller with the shared settings; the parameters are those of `Distiller`."""
        return Distiller(
            prior,
            control_variates,
            coefficients,
            guidance_scale=self.guidance_scale,
            timesteps=self.timesteps,
            weighting=self.weighting,
            antithetic=self.antithetic,
            draws=self.draws,
            learned_score=learned_score,
            residual=residual,
            noise=self.noise_source(),
        )


@dataclass
class ControlledMethodConfig(MethodConfig):
    """Base of the methods that take control variates; by default none: the method as published."""

    control_variates: ControlVariateConfig = field(default_factory=lambda: ControlVariateConfig(terms=[]))
    """Control variates that are added to the residual."""

    def __post_init__(self) -> None:
        """Check the draws and the control variates. Raises ValueError as `ControlVariateConfig.check`."""
        super().__post_init__()
        self.control_variates.check(antithetic=self.antithetic)

    @property
    def needs_estimator(self) -> bool:
        return self.control_variates.needs_estimator


@dataclass
class ResidualConfig(ControlledMethodConfig):
    """Base of the methods that consist of a residual; control variates can be added, with coefficients that start at 0.

    A method of your own is a dataclass that extends this class, with a method `residual`.
    """

    @abstractmethod
    def residual(self) -> Residual:
        """The residual of this method. Raises ValueError for settings out of range."""

    def build(self, prior: Prior[Any, Condition], estimator: GeometryEstimator | None = None) -> Distiller[Condition]:
        """Build a distiller with this residual.

        Raises ValueError as `ControlVariateConfig.build` and for settings out of range, TypeError if `residual` returns
        none.
        """
        residual: Any = self.residual()
        if not isinstance(residual, Residual):
            raise TypeError(f"{type(self).__name__}.residual must return a Residual, got a {type(residual).__name__}")
        variates = self.control_variates.build(prior, estimator, starts_as_sds=False)
        return self.distiller(prior, *variates, residual=residual)
