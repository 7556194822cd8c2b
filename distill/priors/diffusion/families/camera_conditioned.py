"""Small camera-conditioned models: a U-Net on unshuffled pixels, trained by `training/prior`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...base import CameraBatch
from ...modalities import background_of, knows_crops, modalities_of, view_features
from .base import Family, FamilyOptions, TextEncoder

_LARGEST_PATCH = 64


class CameraConditioned(Family):
    """The family of `CameraConditionedPipeline`, with camera and background as class labels and text by
    cross-attention.
    """

    name = "camera-conditioned U-Net"
    autoencoder_class = None
    camera_conditioned = True
    text_encoders: ClassVar = {"text_encoder": TextEncoder("CLIPTextModel", "tokenizer", "PreTrainedTokenizerFast")}

    def __init__(self, config: Any, index: Mapping[str, Any], options: FamilyOptions) -> None:
        super().__init__(config, index, options)
        features = index.get("camera_features")
        try:
            self.modalities = modalities_of(
                features if features is None or isinstance(features, list) else [str(features)]
            )
        except ValueError as error:
            raise ValueError(
                f"{error}: train it again (steindreamer.training.prior.train), or use the release that it was trained "
                "with"
            ) from None
        self._features = tuple(features or ())
        self.crops = knows_crops(self._features)
        self._patch = _patch_size(index)
        self._kinds = _kinds(index)

    @staticmethod
    def pipeline_class(name: str) -> Any:
        from ..camera_pipeline import CameraConditionedPipeline

        del name
        return CameraConditionedPipeline

    def check_latents(self, channels: int) -> None:
        wanted = channels * self._patch**2
        if (self.config.in_channels, self.config.out_channels) != (wanted, wanted):
            raise ValueError(
                f"maps {self.config.in_channels} channels to {self.config.out_channels}; images in patches of "
                f"{self._patch} x {self._patch} pixels have {wanted}"
            )

    def image_size(self, reduction: int) -> int:
        return self.sample_size * self._patch * reduction

    @property
    def multiple(self) -> int:
        return self._patch * super().multiple

    def encode_text(self, pipeline: Any, prompts: list[str], device: Any) -> dict[str, Tensor]:
        """Encode prompts. Raises ValueError for words that training did not have, and for prompts without a known
        object.
        """
        for prompt in prompts:
            self._check_words(prompt, pipeline.tokenizer)
            self._check_kind(prompt)
        return {"encoder_hidden_states": pipeline.encode_prompt(prompts, device)}

    def encode_negative(self, pipeline: Any, prompt: str, device: Any) -> dict[str, Tensor]:
        """Encode a negative prompt, which need not name a trained object."""
        self._check_words(prompt, pipeline.tokenizer)
        return {"encoder_hidden_states": pipeline.encode_prompt([prompt], device)}

    def view(
        self, cameras: CameraBatch, background: Float[Tensor, "b 3"], modality: str = "color"
    ) -> dict[str, Tensor]:
        """The class labels of each view. Raises ValueError for a modality that the model was not trained on."""
        behind = background_of(modality, background)
        return {"class_labels": view_features(self._features, cameras, behind, modality)}

    def call(
        self,
        denoiser: Any,
        noisy: Float[Tensor, "b c h w"],
        time: Tensor,
        text: Mapping[str, Tensor],
        image_size: int,
    ) -> Float[Tensor, "b d h w"]:
        del image_size
        return call_on_patches(denoiser, noisy, time, self._patch, **text)

    def _check_words(self, prompt: str, tokenizer: Any) -> None:
        known = tokenizer.get_vocab()
        unknown = [repr(word) for word in _words(prompt) if word not in known]
        if unknown:
            raise ValueError(
                f"{prompt!r} contains words that the model was not trained on: {', '.join(unknown)}. {self._knows}"
            )

    def _check_kind(self, prompt: str) -> None:
        named = named_kinds(prompt, self._kinds)
        if len(named) != 1:
            raise ValueError(f"{prompt!r} names {' and '.join(named) or 'no object'}; name one. {self._knows}")

    @property
    def _knows(self) -> str:
        return f"It knows {', '.join(sorted(self._kinds))}, and their colors"


def _patch_size(index: Mapping[str, Any]) -> int:
    patch = index.get("patch_size")
    if not isinstance(patch, int) or isinstance(patch, bool) or not 1 <= patch <= _LARGEST_PATCH:
        raise ValueError(
            f"has patch_size={patch!r} (model_index.json); whole numbers in [1, {_LARGEST_PATCH}] are accepted"
        )
    return patch


def _kinds(index: Mapping[str, Any]) -> dict[str, list[str]]:
    kinds = index.get("kinds")
    lists = list(kinds.values()) if isinstance(kinds, dict) else []
    if not lists or not all(
        isinstance(nouns, list) and all(isinstance(noun, str) for noun in nouns) for nouns in lists
    ):
        raise ValueError(
            f"has kinds={str(kinds)[:100]} (model_index.json); names, each with a list of words, are accepted"
        )
    return kinds  # pyright: ignore[reportReturnType]


def named_kinds(prompt: str, kinds: Mapping[str, Sequence[str]]) -> list[str]:
    """The kinds that a prompt names, sorted; the longest of overlapping names counts ("rocket ship" is no ship)."""
    text, found = f" {' '.join(_words(prompt))} ", set()
    nouns = sorted(((noun, kind) for kind, nouns in kinds.items() for noun in nouns), key=lambda pair: -len(pair[0]))
    for noun, kind in nouns:
        if f" {noun} " in text:
            found.add(kind)
            text = text.replace(f" {noun} ", " | ")
    return sorted(found)


def call_on_patches(
    unet: Any, noisy: Float[Tensor, "b c h w"], time: Tensor, patch: int, **conditions: Tensor
) -> Float[Tensor, "b c h w"]:
    """The output of a U-Net whose input channels are patches of `patch` x `patch` pixels."""
    return F.pixel_shuffle(unet(F.pixel_unshuffle(noisy, patch), time, **conditions).sample, patch)


def _words(text: str) -> list[str]:
    """Words as the tokenizer splits them: lower case, without punctuation."""
    return re.findall("[a-z0-9]+", text.lower())
