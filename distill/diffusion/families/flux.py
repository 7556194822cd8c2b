"""FLUX.1: a transformer on patches of 2 x 2 latents that predicts a flow, told the prompt by a T5 and a pooled CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...schedule import NoisySample
from .base import FlowFamily, clip, t5


class Flux(FlowFamily):
    name = "FLUX.1"
    denoiser_class = "FluxTransformer2DModel"
    text_encoders: ClassVar = {"text_encoder": clip(), "text_encoder_2": t5("text_encoder_2", reads=512)}

    def check_latents(self, channels: int) -> None:
        """Raises ValueError unless patches of latents go in and come out."""
        patch, given = 4 * channels, self.config.out_channels or self.config.in_channels
        if not self.config.in_channels == given == patch:
            raise ValueError(
                f"turns patches of {self.config.in_channels} channels into {given}, those of its latents have {patch}: "
                "a filling, depth or edge model; text-to-image models are accepted"
            )

    def picture_size(self, reduction: int) -> int:
        """The transformer does not say; FLUX.1 makes pictures of up to two megapixels, mostly of one."""
        return 128 * reduction

    def reads(self, encoder: str) -> int | None:
        """Without the guidance input it is FLUX.1-schnell, which reads half as much of a prompt."""
        return 256 if encoder == "text_encoder_2" and not self.config.guidance_embeds else super().reads(encoder)

    def encode_text(self, pipeline: Any, prompts: list[str], device: Any) -> dict[str, Tensor]:
        longest = self.reads("text_encoder_2")
        rows, pooled, _ = pipeline.encode_prompt(prompts, device=device, max_sequence_length=longest)
        return {"encoder_hidden_states": rows, "pooled_projections": pooled}

    def time(self, sample: NoisySample) -> Tensor:
        return sample.sigma.flatten()

    def call(
        self,
        denoiser: Any,
        noisy: Float[Tensor, "b c h w"],
        time: Tensor,
        text: Mapping[str, Tensor],
        picture_size: int,
    ) -> Float[Tensor, "b c h w"]:
        del picture_size
        rows, columns = noisy.shape[2] // 2, noisy.shape[3] // 2
        guidance = torch.full_like(time, self.options.embedded_guidance) if self.config.guidance_embeds else None
        output = denoiser(
            pack(noisy),
            timestep=time,
            guidance=guidance,
            txt_ids=noisy.new_zeros(text["encoder_hidden_states"].shape[1], 3),
            img_ids=positions(rows, columns).to(noisy),
            **text,
        ).sample
        return unpack(output, rows, columns)


def pack(latent: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n d"]:
    """Patches of 2 x 2 in reading order; a token holds the four values of a channel, then those of the next."""
    rows = latent.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # b c rows 2 columns 2
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(tokens: Float[Tensor, "b n d"], rows: int, columns: int) -> Float[Tensor, "b c h w"]:
    """The inverse of `pack` for so many rows and columns of patches."""
    patches = tokens.unflatten(2, (-1, 2, 2)).unflatten(1, (rows, columns))  # b rows columns c 2 2
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def positions(rows: int, columns: int) -> Float[Tensor, "n 3"]:
    """Of every patch: 0, its row, its column; text tokens stand at 0, 0, 0."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(x), y, x], -1).flatten(0, 1).float()
