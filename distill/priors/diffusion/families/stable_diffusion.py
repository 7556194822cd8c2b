"""Stable Diffusion 1.x and 2.x: a latent U-Net that predicts noise or v, conditioned on a CLIP prompt embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from .base import Family, FamilyOptions, clip


class StableDiffusion(Family):
    """Stable Diffusion 1.x and 2.x."""

    name = "Stable Diffusion"
    text_encoders: ClassVar = {"text_encoder": clip()}

    def __init__(self, config: Any, index: Mapping[str, Any], options: FamilyOptions) -> None:
        super().__init__(config, index, options)
        if config.addition_embed_type is not None or config.class_embed_type is not None:
            raise ValueError("needs more conditions than a text embedding; Stable Diffusion 1.x and 2.x do not")

    def encode_text(self, pipeline: Any, prompts: list[str], device: Any) -> dict[str, Tensor]:
        rows, _ = pipeline.encode_prompt(prompts, device, 1, False)
        return {"encoder_hidden_states": rows}
