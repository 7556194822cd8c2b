"""Stable Diffusion 3 and 3.5: a latent flow transformer, conditioned on prompt embeddings of two CLIPs and a T5."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor

from .base import FlowFamily, clip, t5


class StableDiffusion3(FlowFamily):
    """Stable Diffusion 3 and 3.5, with or without the T5."""

    name = "Stable Diffusion 3"
    denoiser_class = "SD3Transformer2DModel"
    text_encoders: ClassVar = {
        "text_encoder": clip(projected=True),
        "text_encoder_2": clip("text_encoder_2", projected=True),
        "text_encoder_3": t5("text_encoder_3", reads=256, optional=True),
    }

    def encode_text(self, pipeline: Any, prompts: list[str], device: Any) -> dict[str, Tensor]:
        """Encode prompts. Tokens of a missing T5 are zeros, as in the model's training (2403.03206, section 5.3.3)."""
        if pipeline.text_encoder_3 is None:
            pipeline.transformer = SimpleNamespace(config=self.config)  # for the width of the zeros
        rows, _, pooled, _ = pipeline.encode_prompt(
            prompts, None, None, device=device, do_classifier_free_guidance=False
        )
        return {"encoder_hidden_states": rows, "pooled_projections": pooled}
