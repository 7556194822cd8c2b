"""The priors by name. A prior's config builds it; heavy libraries are imported only then."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..distill import Prior
from ..training.world import WorldPrior
from .errors import UserError


@dataclass
class WorldPriorConfig:
    """The exact score of the captioned procedural world: a test bench and an offline demonstration, no learned model.

    It holds renders of the objects it is asked for, so what it shows is the estimator and the pipeline at work,
    not what a text-to-image model would imagine.
    """

    objects: int = 8
    """Objects of the caption in the mixture."""
    bandwidth: float = 0.15
    """Standard deviation of a pixel around each object's picture, in [-1, 1] units."""
    seed: int = 0
    """Which objects."""

    def validate(self) -> None:
        if self.objects < 1 or self.bandwidth <= 0:
            raise UserError("prior.objects must be at least 1 and prior.bandwidth positive")

    def build(self, device: torch.device) -> Prior:
        return WorldPrior(objects=self.objects, bandwidth=self.bandwidth, seed=self.seed)


PRIORS: dict[str, type] = {"world": WorldPriorConfig}
"""Name -> config with `.build(device) -> Prior`. To add one, add an entry; `--prior NAME` and `prior.KEY=` follow."""
