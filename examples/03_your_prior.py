"""A custom prior: from every side the object looks like one image, within a standard deviation.

python pipelines/run.py --plugin examples/03_your_prior.py --prior one-image prior.file=logo.png --no-refine
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
from annotated_types import Interval
from jaxtyping import Float
from PIL import Image
from torch import Tensor

import steindreamer
from steindreamer.distill import ExactPrior, GaussianMixture, MixtureCondition, NoiseSchedule


@steindreamer.register_prior("one-image")
@dataclass
class OneImageConfig:
    """The exact score of images around a given one, whatever the prompt."""

    file: str = ""
    """The image; empty: a white disc on black."""
    deviation: Annotated[float, Interval(gt=0, le=1)] = 0.1
    """Standard deviation of a pixel in [-1, 1]."""
    size: Annotated[int, Interval(ge=8, le=512)] = 64
    """Pixels of a side."""

    def build(self, device: torch.device) -> OneImage:
        axis = torch.linspace(-1, 1, self.size)
        image = ((axis[:, None] ** 2 + axis**2) < 0.5).float().expand(3, -1, -1)
        if self.file:
            pixels = Image.open(Path(self.file)).convert("RGB").resize((self.size, self.size))
            image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1) / 255
        return OneImage(image[None].to(device) * 2 - 1, self.deviation)


class OneImage(ExactPrior):
    def __init__(self, image: Float[Tensor, "1 3 h w"], deviation: float) -> None:
        super().__init__(NoiseSchedule.scaled_linear(), image.device)
        self.mixture, self.size = GaussianMixture.isotropic(image, deviation), image.shape[-1]

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 hl wl"]:
        return super().encode(F.interpolate(image, (self.size, self.size), mode="bilinear", antialias=True))

    def embed(self, prompt: str, negative_prompt: str = "") -> None:
        """Nothing: every prompt means the same image."""

    def condition(self, embedding: None, cameras: object, background: Float[Tensor, "b 3"]) -> MixtureCondition:
        return MixtureCondition(self.mixture, lambda: self.mixture)
