"""FLUX.1: a flow transformer on patches of 2 x 2 latents, conditioned on embeddings of a T5 and a pooled CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ....noise.schedule import NoisySample
from .base import FlowFamily, clip, t5


class Flux(FlowFamily):
    """FLUX.1-dev and FLUX.1-schnell."""

    name = "FLUX.1"
    denoiser_class = "FluxTransformer2DModel"
    text_encoders: ClassVar = {"text_encoder": clip(), "text_encoder_2": t5("text_encoder_2", reads=512)}

    def check_latents(self, channels: int) -> None:
        """Check the channels. Raises ValueError unless the transformer takes and predicts patches of latents."""
        patch, given = 4 * channels, self.config.out_channels or self.config.in_channels
        if not self.config.in_channels == given == patch:
            raise ValueError(
                f"maps patches of {self.config.in_channels} channels to {given}, but those of its latents have "
                f"{patch}: it is a filling, depth or edge model; text-to-image models are accepted"
            )

    def image_size(self, reduction: int) -> int:
        """Default image size, which the configuration lacks. FLUX.1 generates up to two megapixels, typically one."""
        return 128 * reduction

    def reads(self, encoder: str) -> int | None:
        """Number of T5 tokens. A model without the guidance input is FLUX.1-schnell, which reads half as many."""
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
        image_size: int,
    ) -> Float[Tensor, "b c h w"]:
        del image_size
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
    """Convert latents to tokens of 2 x 2 patches in reading order.

    A token holds the four values of a channel, then those of the next.
    """
    rows = latent.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # b c rows 2 columns 2
    return rows.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpack(tokens: Float[Tensor, "b n d"], rows: int, columns: int) -> Float[Tensor, "b c h w"]:
    """Convert tokens to latents of the given rows and columns of patches; the inverse of `pack`."""
    patches = tokens.unflatten(2, (-1, 2, 2)).unflatten(1, (rows, columns))  # b rows columns c 2 2
    return patches.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def positions(rows: int, columns: int) -> Float[Tensor, "n 3"]:
    """Positions of the patches: 0, row, column; text tokens have 0, 0, 0."""
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(x), y, x], -1).flatten(0, 1).float()
