"""DeepFloyd IF, first stage: a U-Net on pixels of 64 x 64 images, conditioned on a T5 prompt embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from .base import Family, FamilyOptions, t5


class DeepFloydIF(Family):
    """The first stage of DeepFloyd IF, which predicts noise and its variance on pixels."""

    name = "DeepFloyd IF"
    autoencoder_class = None
    text_encoders: ClassVar = {"text_encoder": t5(reads=77)}

    def __init__(self, config: Any, index: Mapping[str, Any], options: FamilyOptions) -> None:
        super().__init__(config, index, options)
        if config.class_embed_type is not None:
            raise ValueError("is an upscaling model; only the first stage of DeepFloyd IF generates images from text")

    def encode_text(self, pipeline: Any, prompts: list[str], device: Any) -> dict[str, Tensor]:
        rows, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, device=device)
        return {"encoder_hidden_states": rows}
