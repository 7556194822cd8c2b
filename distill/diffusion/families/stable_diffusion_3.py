"""Stable Diffusion 3 and 3.5: a latent transformer that predicts a flow, told the prompt by two CLIPs and a T5."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

from torch import Tensor

from .base import FlowFamily, clip, t5


class StableDiffusion3(FlowFamily):
    name = "Stable Diffusion 3"
    denoiser_class = "SD3Transformer2DModel"
    text_encoders: ClassVar = {
        "text_encoder": clip(projected=True),
        "text_encoder_2": clip("text_encoder_2", projected=True),
        "text_encoder_3": t5("text_encoder_3", reads=256, optional=True),
    }

    def encode_text(self, pipeline: Any, prompts: list[str], device: Any) -> dict[str, Tensor]:
        """Without the T5, its tokens are zeros, as the model has seen them in training (2403.03206, section 5.3.3)."""
        if pipeline.text_encoder_3 is None:
            pipeline.transformer = SimpleNamespace(config=self.config)  # it asks how wide the zeros must be
        rows, _, pooled, _ = pipeline.encode_prompt(
            prompts, None, None, device=device, do_classifier_free_guidance=False
        )
        return {"encoder_hidden_states": rows, "pooled_projections": pooled}
