"""The priors by name. A prior's config builds it; heavy libraries are imported only then."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..distill import Prior
from ..training.world import prior as world


@dataclass
class WorldPriorConfig:
    """The exact score of a small procedural world: a test bench and an offline demonstration, not a learned model."""

    objects: int = 8
    """Objects of the caption in the mixture: how varied the prior is."""
    bandwidth: float = 0.15
    """Standard deviation of a picture around each object, in [-1, 1] pixels."""
    seed: int = 0
    """Which objects."""

    def build(self, device: torch.device) -> Prior:
        """The world draws on the CPU, whatever `device` is. Raises ValueError for values out of range."""
        del device
        return world.WorldPrior(world.WorldPriorConfig(self.objects, bandwidth=self.bandwidth, seed=self.seed))


PRIORS: dict[str, type] = {"world": WorldPriorConfig}
"""Name -> config with `.build(device) -> Prior`. To add one, add an entry; `--prior NAME` and `prior.KEY=` follow."""
