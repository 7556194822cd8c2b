"""A small text- and camera-conditioned diffusion model of pictures, in diffusers' and transformers' own classes.

The U-Net sees pixel-unshuffled pictures and predicts the clean picture (`prediction_type="sample"`); predicting noise
or velocity would force patch^2 * 3 channels of noise through its narrow layers. The camera, the background and the
pooled words are added to the timestep's embedding, which scales and shifts every layer: what a view looks like depends
on the kind of object and the camera together. Word by word, the text comes by cross-attention.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ...distill.camera_features import CAMERA_FEATURES
from ...distill.diffusion.camera_pipeline import CameraConditionedPipeline
from ...distill.diffusion.families.camera_conditioned import call_on_patches
from ...distill.torchvision_compat import prepare_torchvision
from ..world import KINDS
from .dataset import SIZE
from .wording import BEGIN, END, MAX_TOKENS, PAD

prepare_torchvision()

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # noqa: E402
from diffusers.schedulers.scheduling_ddim import DDIMScheduler  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel  # noqa: E402

_HEAD = 32


@dataclass(frozen=True)
class PriorShape:
    """Raises ValueError unless the patch divides the picture and the channels are multiples of 32."""

    patch: int = 4
    """Pixels per side that become channels."""
    channels: tuple[int, ...] = (64, 128, 128)
    """Of the levels, from SIZE / patch pixels downwards. Only the last one attends to words and other positions."""
    text_width: int = 64
    text_layers: int = 2

    def __post_init__(self) -> None:
        if self.patch < 1 or SIZE % self.patch or any(count < 1 or count % _HEAD for count in self.channels):
            raise ValueError(f"need a patch that divides {SIZE} and channels that are multiples of {_HEAD}, got {self}")


class TinyPrior(nn.Module):
    """The U-Net and its text encoder, trained together."""

    def __init__(self, shape: PriorShape, tokenizer: Any) -> None:
        super().__init__()
        self.patch = shape.patch
        pixels, plain = 3 * shape.patch**2, len(shape.channels) - 1
        # diffusers takes the numbers of heads as `attention_head_dim`, and annotates them as one.
        heads: Any = tuple(count // _HEAD for count in shape.channels)
        self.unet: Any = UNet2DConditionModel(
            sample_size=SIZE // shape.patch,
            in_channels=pixels,
            out_channels=pixels,
            block_out_channels=shape.channels,
            layers_per_block=1,
            down_block_types=(*["DownBlock2D"] * plain, "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", *["UpBlock2D"] * plain),
            cross_attention_dim=shape.text_width,
            attention_head_dim=heads,
            norm_num_groups=16,
            resnet_time_scale_shift="scale_shift",
            addition_embed_type="text",
            addition_embed_type_num_heads=4,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=len(CAMERA_FEATURES),
        )
        pad, begin, end = (tokenizer.convert_tokens_to_ids(token) for token in (PAD, BEGIN, END))
        self.text_encoder: Any = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=shape.text_width,
                intermediate_size=2 * shape.text_width,
                num_hidden_layers=shape.text_layers,
                num_attention_heads=2,
                max_position_embeddings=MAX_TOKENS,
                projection_dim=shape.text_width,
                pad_token_id=pad,
                bos_token_id=begin,
                eos_token_id=end,
            )
        )

    def forward(
        self,
        noisy: Float[Tensor, "b 3 h w"],
        timestep: Int64[Tensor, " b"],
        tokens: Int64[Tensor, "b n"],
        features: Float[Tensor, "b f"],
    ) -> Float[Tensor, "b 3 h w"]:
        """The estimate of the clean pictures, in [-1, 1], from noisy ones; `features`: see `camera_features`."""
        words = self.text_encoder(input_ids=tokens).last_hidden_state
        return call_on_patches(
            self.unet, noisy, timestep, self.patch, encoder_hidden_states=words, class_labels=features
        )


def tokenize(tokenizer: Any, texts: Sequence[str]) -> Int64[Tensor, "b n"]:
    """Padded to the model's length; padding is looked at like any word."""
    encoded = tokenizer(list(texts), padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt")
    return encoded.input_ids


def save_tiny_prior(
    folder: Path,
    model: TinyPrior,
    tokenizer: Any,
    kinds: Iterable[str],
    held_out: Iterable[Sequence[str]] = (),
    training_steps: int = 0,
) -> None:
    """diffusers' layout in half precision, for `CameraConditionedPipeline` and `DiffusersPrior`."""
    text_encoder, unet = (copy.deepcopy(part).half() for part in (model.text_encoder, model.unet))
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="sample",
        timestep_spacing="trailing",
        set_alpha_to_one=False,
    )
    CameraConditionedPipeline(
        tokenizer,
        text_encoder,
        unet,
        scheduler,
        patch_size=model.patch,
        camera_features=list(CAMERA_FEATURES),
        kinds={kind: [kind, *KINDS[kind].synonyms] for kind in kinds},
        held_out=[list(pair) for pair in held_out],
        training_steps=training_steps,
    ).save_pretrained(folder)


def load_pipeline(folder: Path) -> CameraConditionedPipeline:
    """In float32, frozen.

    Raises OSError if a file is missing, ValueError if the camera is described otherwise than here.
    """
    pipeline = CameraConditionedPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    described = pipeline.config["camera_features"]
    if tuple(described) != CAMERA_FEATURES:
        raise ValueError(f"{folder} wants the camera as {described}, not as {list(CAMERA_FEATURES)}")
    for part in (pipeline.unet, pipeline.text_encoder):
        part.requires_grad_(False).eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def network_of(pipeline: CameraConditionedPipeline) -> TinyPrior:
    """As it is trained; the weights are the pipeline's own."""
    model = TinyPrior.__new__(TinyPrior)
    nn.Module.__init__(model)
    model.patch, model.unet, model.text_encoder = pipeline.config["patch_size"], pipeline.unet, pipeline.text_encoder
    return model.eval()


def load_tiny_prior(folder: Path) -> tuple[TinyPrior, Any]:
    """The network as it is trained, frozen, and its tokenizer; see `load_pipeline`."""
    pipeline = load_pipeline(folder)
    return network_of(pipeline), pipeline.tokenizer
