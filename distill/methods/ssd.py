"""Stein score distillation (SteinDreamer, 2401.00604): the residual e_s + sum_k mu_k h_k.

The control variates h_k have zero mean, and their coefficients mu_k are learned from past steps. Together they start
as -noise, which is SDS.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..control_variates.config import ControlVariateConfig
from ..control_variates.registry import CONTROL_VARIATES
from ..distiller import Distiller
from ..geometry.base import GeometryEstimator
from ..priors.base import Condition, Prior
from .base import ControlledMethodConfig


@dataclass
class SSDConfig(ControlledMethodConfig):
    """Stein score distillation (SteinDreamer): control variates with coefficients learned from past steps."""

    control_variates: ControlVariateConfig = field(default_factory=ControlVariateConfig)
    """Control variates that take the place of SDS's noise; at least one term."""

    def __post_init__(self) -> None:
        """Check the control variates. Raises ValueError as `ControlVariateConfig.check`, and without any term."""
        super().__post_init__()
        if not self.control_variates.terms:
            raise ValueError(f"control_variates.terms must list some of {', '.join(CONTROL_VARIATES)}; got []")

    def build(self, prior: Prior[Any, Condition], estimator: GeometryEstimator | None = None) -> Distiller[Condition]:
        """Build a distiller with these control variates. Raises ValueError as `ControlVariateConfig.build`.

        Example:
            >>> from steindreamer.distill import ControlVariateConfig, SSDConfig
            >>> terms = ControlVariateConfig(terms=["noise", "spectral"])
            >>> distiller = SSDConfig(control_variates=terms).build(prior)  # doctest: +SKIP
        """
        return self.distiller(prior, *self.control_variates.build(prior, estimator, starts_as_sds=True))
