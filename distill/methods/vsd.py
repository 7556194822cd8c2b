"""Variational score distillation (ProlificDreamer, 2305.16213): the residual e_s - e_phi.

e_phi is the prediction of a LoRA denoiser of the prior, trained on the scene's own images, see `learned_score`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Interval

from ..distiller import Distiller
from ..geometry.base import GeometryEstimator
from ..learned_score import LearnedScore
from ..priors.base import Condition, LoRAPrior, Prior
from .base import ControlledMethodConfig


@dataclass
class VSDConfig(ControlledMethodConfig):
    """Variational score distillation (ProlificDreamer): subtracts a LoRA denoiser's prediction instead of the noise.

    The LoRA denoiser is trained on the scene's own images. The method requires a text-to-image model. Defaults are
    threestudio's. Control variates can be added; their coefficients start at 0.
    """

    rank: Annotated[int, Interval(ge=1, le=1024)] = 4
    """Rank of the low-rank updates of the LoRA denoiser."""
    lora_rate: Annotated[float, Interval(gt=0, le=100)] = 1e-4
    """Learning rate of the LoRA denoiser (AdamW)."""
    lora_steps: Annotated[int, Interval(ge=0, le=1000)] = 1
    """Training steps of the LoRA denoiser per step of the scene, each with its own noise."""
    camera: bool = True
    """Whether the LoRA denoiser is conditioned on the camera."""
    camera_weight: Annotated[float, Interval(ge=-10, le=10)] = 1.0
    """Weight of the LoRA denoiser's camera-conditioned prediction; 1: VSD; 0: the unconditioned prediction alone.
    Values below 1 mix both (ESD, entropic score distillation), against multiple faces. Set prior.view_dependent=false
    with them, since view-dependent prompts determine the view as well."""
    camera_dropout: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Fraction of images whose camera condition is dropped in training."""

    def build(self, prior: Prior[Any, Condition], estimator: GeometryEstimator | None = None) -> Distiller[Condition]:
        """Build a distiller with a learned score.

        Raises ValueError as `ControlVariateConfig.build`, for settings out of range, and for a prior without a denoiser
        to fine-tune.
        """
        if not isinstance(prior, LoRAPrior):
            raise ValueError(
                f"method vsd fine-tunes the prior's denoiser by LoRA, and {type(prior).__name__} has none: "
                "give a text-to-image model with --prior (docs/models.md), or choose --method ssd or sds"
            )
        score = LearnedScore(
            prior,
            rank=self.rank,
            learning_rate=self.lora_rate,
            steps=self.lora_steps,
            camera=self.camera,
            camera_weight=self.camera_weight,
            camera_dropout=self.camera_dropout,
        )
        variates = self.control_variates.build(prior, estimator, starts_as_sds=False)
        return self.distiller(prior, *variates, learned_score=score)
