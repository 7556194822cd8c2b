"""PixArt-alpha and PixArt-Sigma: latent transformers that predict noise and its variance, conditioned on a T5
embedding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from .base import LARGEST_SIDE, Family, t5


class PixArtAlpha(Family):
    """PixArt-alpha, which reads 120 tokens of a prompt."""

    name = "PixArt-alpha"
    denoiser = "transformer"
    denoiser_class = "PixArtTransformer2DModel"
    text_encoders: ClassVar = {"text_encoder": t5(reads=120)}

    @property
    def multiple(self) -> int:
        patch = self.config.patch_size
        if not isinstance(patch, int) or isinstance(patch, bool) or not 1 <= patch <= LARGEST_SIDE:
            raise ValueError(f"has patch_size={patch!r} (transformer/config.json); a positive whole number is accepted")
        return patch

    def encode_text(self, pipeline: Any, prompts: list[str], device: Any) -> dict[str, Tensor]:
        """Encode prompts as they are, without the pipeline's cleaning of captions scraped from web pages."""
        rows, mask, _, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, device=device)
        return {"encoder_hidden_states": rows, "encoder_attention_mask": mask.bool()}

    def call(
        self,
        denoiser: Any,
        noisy: Float[Tensor, "b c h w"],
        time: Tensor,
        text: Mapping[str, Tensor],
        image_size: int,
    ) -> Float[Tensor, "b d h w"]:
        """Call the denoiser; models for 1024 px are also conditioned on the size and aspect ratio of the image."""
        size = noisy.new_full((len(noisy), 2), image_size)
        added = {"resolution": size, "aspect_ratio": size[:, :1] / image_size} if self._is_told_sizes else {}
        return denoiser(
            noisy, timestep=time, **text, added_cond_kwargs={"resolution": None, "aspect_ratio": None, **added}
        ).sample

    @property
    def _is_told_sizes(self) -> bool:
        conditions = self.config.use_additional_conditions
        return self.config.sample_size == 128 if conditions is None else conditions


class PixArtSigma(PixArtAlpha):
    """PixArt-Sigma, which reads 300 tokens of a prompt."""

    name = "PixArt-Sigma"
    text_encoders: ClassVar = {"text_encoder": t5(reads=300)}
