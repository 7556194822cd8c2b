"""Stable Diffusion XL: a latent U-Net conditioned on the prompt embeddings of two CLIPs and the image size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from .base import Family, FamilyOptions, clip

_ZEROS = "force_zeros_for_empty_prompt"


class StableDiffusionXL(Family):
    """Stable Diffusion XL."""

    name = "Stable Diffusion XL"
    text_encoders: ClassVar = {"text_encoder": clip(), "text_encoder_2": clip("text_encoder_2", projected=True)}

    def __init__(self, config: Any, index: Mapping[str, Any], options: FamilyOptions) -> None:
        super().__init__(config, index, options)
        if config.addition_embed_type != "text_time":
            raise ValueError(f"takes {config.addition_embed_type!r}; Stable Diffusion XL takes 'text_time'")
        zeros = index.get(_ZEROS, True)
        if not isinstance(zeros, bool):
            raise ValueError(f"has {_ZEROS}={zeros!r} (model_index.json); true and false are accepted")

    def encode_text(self, pipeline: Any, prompts: list[str], device: Any) -> dict[str, Tensor]:
        rows, _, pooled, _ = pipeline.encode_prompt(prompts, device=device, do_classifier_free_guidance=False)
        return {"encoder_hidden_states": rows, "text_embeds": pooled}

    def encode_negative(self, pipeline: Any, prompt: str, device: Any) -> dict[str, Tensor]:
        """Encode a negative prompt. An empty one is zeros, instead of its embedding, if the model was trained that
        way.
        """
        rows = self.encode_text(pipeline, [prompt], device)
        if prompt or not pipeline.config.force_zeros_for_empty_prompt:
            return rows
        return {name: torch.zeros_like(tensor) for name, tensor in rows.items()}

    def call(
        self,
        denoiser: Any,
        noisy: Float[Tensor, "b c h w"],
        time: Tensor,
        text: Mapping[str, Tensor],
        image_size: int,
    ) -> Float[Tensor, "b d h w"]:
        # Size before cropping, corner of the crop, size after it (2307.01952, section 2.2).
        sizes = noisy.new_tensor([[image_size, image_size, 0, 0, image_size, image_size]])
        added = {"text_embeds": text["text_embeds"], "time_ids": sizes.expand(len(noisy), -1)}
        return denoiser(
            noisy, timestep=time, encoder_hidden_states=text["encoder_hidden_states"], added_cond_kwargs=added
        ).sample
