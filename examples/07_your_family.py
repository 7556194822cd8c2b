"""A family of text-to-image models added by a plugin: latent consistency models (2310.04378).

python pipelines/run.py --plugin examples/07_your_family.py --prior SimianLuo/LCM_Dreamshaper_v7 \
    prior.embedded_guidance=7.5 method.guidance_scale=1 --preset stable_diffusion
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from steindreamer.distill.priors.diffusion import register_family
from steindreamer.distill.priors.diffusion.families import StableDiffusion


@register_family("LatentConsistencyModelPipeline")
class LatentConsistency(StableDiffusion):
    """Stable Diffusion's U-Net with a further input: the guidance scale that it imitates in one call."""

    name = "Latent consistency model"

    def call(
        self,
        denoiser: Any,
        noisy: Float[Tensor, "b c h w"],
        time: Tensor,
        text: Mapping[str, Tensor],
        image_size: int,
    ) -> Float[Tensor, "b c h w"]:
        scale = torch.full((len(noisy),), self.options.embedded_guidance - 1)
        guidance = sinusoids(1000 * scale, self.config.time_cond_proj_dim).to(noisy)
        return denoiser(noisy, timestep=time, timestep_cond=guidance, **text).sample


def sinusoids(value: Float[Tensor, " b"], count: int) -> Float[Tensor, "b {count}"]:
    """Sines, then cosines, of frequencies from 1 down to 1/10000."""
    half = count // 2
    angle = value[:, None] * torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half))
    return torch.cat([angle.sin(), angle.cos()], dim=1)
