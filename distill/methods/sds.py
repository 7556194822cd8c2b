"""Score distillation sampling (DreamFusion, 2209.14988): the residual e_s - noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..control_variates.coefficients import FixedCoefficients
from ..control_variates.terms import NoiseTerm
from ..distiller import Distiller
from ..geometry.base import GeometryEstimator
from ..priors.base import Condition, Prior
from .base import MethodConfig


@dataclass
class SDSConfig(MethodConfig):
    """Score distillation sampling (DreamFusion): the residual eps_hat - noise."""

    def build(self, prior: Prior[Any, Condition], estimator: GeometryEstimator | None = None) -> Distiller[Condition]:
        """Build a distiller for this prior; the estimator is not used."""
        variate = NoiseTerm()
        return self.distiller(prior, [variate], FixedCoefficients(variate.initial, prior.schedule.steps))
