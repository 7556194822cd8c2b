"""Seeded noisy samples of one image, for tests of control variates that learn."""

from __future__ import annotations

import torch

from steindreamer.distill import NoiseSchedule, NoisySample, TimestepConfig

SCHEDULE = NoiseSchedule.scaled_linear()
MIDDLE = TimestepConfig(minimum=0.4, maximum=0.8, final_maximum=0.8)
SIZE = 8


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(
    batch: int, seed: int, channels: int = 3, height: int = SIZE, width: int = SIZE, *, timestep: int | None = None
) -> NoisySample:
    """Noisy copies of one random image in [-1, 1]; `timestep` None: random ones."""
    generator = seeded(seed)
    clean = torch.rand(1, channels, height, width, generator=seeded(5)).expand(batch, -1, -1, -1) * 2 - 1
    noise = torch.randn(clean.shape, generator=generator)
    random = timestep is None
    timesteps = torch.randint(1000, (batch,), generator=generator) if random else torch.full((batch,), timestep)
    return SCHEDULE.add_noise(clean, noise, timesteps)
