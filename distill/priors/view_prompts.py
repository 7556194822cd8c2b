"""View-dependent prompts: the prompt of a text-to-image model names the view (DreamFusion, section 3.2)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .base import CameraBatch

VIEWS = ("front view", "side view", "back view", "overhead view")
OVERHEAD_ELEVATION = 60.0
"""Elevation in degrees above which every azimuth is an overhead view."""


def view_prompts(prompt: str) -> list[str]:
    """The prompt with the text of each view, one per entry of `VIEWS`."""
    return [f"{prompt}, {view}" for view in VIEWS]


def view_weights(cameras: CameraBatch) -> Float[Tensor, "b 4"]:
    """Weight of each of `VIEWS` for each camera; rows sum to 1.

    Between front (azimuth 0), side (90) and back (180 degrees) the weights are linear in the azimuth.
    """
    position = cameras.azimuth.abs() / 90
    around = (1 - (position[:, None] - torch.arange(3, device=position.device)).abs()).clamp(min=0)
    overhead = (cameras.elevation > OVERHEAD_ELEVATION).to(around)[:, None]
    return torch.cat([around * (1 - overhead), overhead], 1)
