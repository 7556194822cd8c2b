"""The priors by name. A prior's config builds it; heavy libraries are imported only then."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..distill import Prior
from ..distill.diffusers_prior import StableDiffusionPrior
from ..training.world.prior import WorldPriorConfig


@dataclass
class StableDiffusionPriorConfig:
    """Stable Diffusion 1.5 or 2.1 through diffusers: the weights come from a folder or the hub; wants a CUDA GPU."""

    model: str = "stable-diffusion-2-1-base"
    """stable-diffusion-2-1-base, stable-diffusion-2-1, stable-diffusion-1-5, a hub id (owner/name, or
    owner/name@revision), or a folder in diffusers' layout with safetensors."""
    precision: str = "auto"
    """Of the U-Net: float32, bfloat16, float16; auto is half precision on CUDA, float32 on the CPU."""
    view_dependent: bool = True
    """Whether the prompt tells the model which side it looks at."""

    def build(self, device: torch.device) -> Prior:
        """Raises ValueError for a model that cannot be found or used, ImportError without diffusers."""
        return StableDiffusionPrior(self.model, device, precision=self.precision, view_dependent=self.view_dependent)


PRIORS: dict[str, type] = {"world": WorldPriorConfig, "stable-diffusion": StableDiffusionPriorConfig}
"""Name -> config with `.build(device) -> Prior`. To add one, add an entry; `--prior NAME` and `prior.KEY=` follow."""
