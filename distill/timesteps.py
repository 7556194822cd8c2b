"""Which noise levels a step may draw, and how the range shrinks during a run."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor


@dataclass
class TimestepConfig:
    """Uniform in [minimum, maximum), as fractions of the schedule; the maximum falls linearly during the run.

    High noise first decides the layout; once it is there, high noise only undoes detail (ProlificDreamer, sec. 4.1).
    """

    minimum: float = 0.02
    maximum: float = 0.98
    """At the start of the run."""
    final_maximum: float = 0.5
    """At the end; equal to `maximum`: no annealing."""
    anneal: float = 0.8
    """The fraction of the run after which the final maximum is reached."""

    def __post_init__(self) -> None:
        if not 0 <= self.minimum < self.final_maximum <= self.maximum <= 1:
            raise ValueError(
                "timesteps need 0 <= minimum < final_maximum <= maximum <= 1, "
                f"got {self.minimum}, {self.final_maximum}, {self.maximum}"
            )
        if not 0 <= self.anneal <= 1:
            raise ValueError(f"timesteps.anneal is a fraction of the run in [0, 1], got {self.anneal}")

    def maximum_at(self, progress: float) -> float:
        """The current maximum; `progress` runs from 0 to 1 over the run."""
        fraction = min(max(progress / self.anneal, 0.0), 1.0) if self.anneal > 0 else 1.0
        return self.maximum + fraction * (self.final_maximum - self.maximum)

    def sample(self, steps: int, batch: int, progress: float, generator: torch.Generator) -> Int64[Tensor, " b"]:
        """One timestep per picture, on the generator's device, for a schedule of `steps` steps."""
        low = min(round(self.minimum * steps), steps - 1)
        high = max(low + 1, round(self.maximum_at(progress) * steps))
        return torch.randint(low, high, (batch,), generator=generator, device=generator.device)
