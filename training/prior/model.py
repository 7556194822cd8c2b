"""A small text- and camera-conditioned diffusion model of images, built from diffusers and transformers classes.

The U-Net takes pixel-unshuffled images and predicts x0 (`prediction_type="sample"`); predicting noise or velocity would
force patch^2 * 3 channels of noise through its narrow layers. The camera, the background, the modality and the pooled
text embedding are added to the timestep embedding, which scales and shifts every layer, because the appearance of a
view depends on the kind of object and the camera jointly. Individual tokens are used by cross-attention.
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

from steindreamer.distill.noise.schedule import NoiseSchedule
from steindreamer.distill.priors.diffusion.camera_pipeline import CameraConditionedPipeline
from steindreamer.distill.priors.diffusion.families.camera_conditioned import call_on_patches
from steindreamer.distill.priors.modalities import MODALITIES, modalities_of, view_feature_names
from steindreamer.distill.third_party.torchvision_compat import prepare_torchvision

from .wording import BEGIN, END, MAX_TOKENS, PAD, nouns

prepare_torchvision()

from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel  # noqa: E402
from diffusers.schedulers.scheduling_ddim import DDIMScheduler  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel  # noqa: E402

_HEAD = 32
_EMBEDDING = 256
"""Width of the embedding of the timestep, the view and the pooled text, which scales and shifts every layer."""
_BETA_START, _BETA_END = 0.00085, 0.012
"""First and last beta of Stable Diffusion's schedule."""
_REFERENCE_SIZE = 32
"""Image size, in pixels per side, at which Stable Diffusion's schedule is used."""


def beta_start(size: int) -> float:
    """Return the first beta of the scaled-linear schedule for images of `size` pixels per side.

    Averaging reduces independent noise, so the same noise hides less of a larger image: the signal-to-noise ratio has
    to fall with the number of pixels (Hoogeboom et al. 2023, "simple diffusion"). Over most of the schedule it is
    proportional to 1 / beta_start. A timestep then hides about the same amount of an object at every image size.
    """
    return _BETA_START * (size / _REFERENCE_SIZE) ** 2


def schedule_of(size: int) -> NoiseSchedule:
    """Return the noise schedule that a network for images of `size` pixels per side is trained with."""
    return NoiseSchedule.scaled_linear(start=beta_start(size), end=_BETA_END)


@dataclass(frozen=True)
class PriorShape:
    """Shape of the network.

    Raises ValueError unless the patch divides the image and the channels are multiples of 32.
    """

    patch: int = 8
    """Patch size of the pixel unshuffle, in pixels per side."""
    channels: tuple[int, ...] = (64, 128, 128)
    """Channels of the levels, from size / patch pixels downward; only the last level has attention."""
    text_width: int = 64
    text_layers: int = 2
    size: int = 64
    """Size of the images, in pixels per side."""
    modalities: tuple[str, ...] = MODALITIES
    crops: bool = False
    """Whether the network is conditioned on which part of the image it sees."""

    def __post_init__(self) -> None:
        if self.patch < 1 or self.size % self.patch or any(count < 1 or count % _HEAD for count in self.channels):
            raise ValueError(
                f"need a patch that divides {self.size} and channels that are multiples of {_HEAD}, got {self}"
            )


class TinyPrior(nn.Module):
    """U-Net and text encoder, trained jointly."""

    def __init__(self, shape: PriorShape, tokenizer: Any) -> None:
        super().__init__()
        self.patch, self.features = shape.patch, view_feature_names(shape.modalities, crops=shape.crops)
        pixels, plain = 3 * shape.patch**2, len(shape.channels) - 1
        # diffusers expects the numbers of heads in `attention_head_dim`, whose annotation is a single number.
        heads: Any = tuple(count // _HEAD for count in shape.channels)
        self.unet: Any = UNet2DConditionModel(
            sample_size=shape.size // shape.patch,
            in_channels=pixels,
            out_channels=pixels,
            block_out_channels=shape.channels,
            layers_per_block=1,
            down_block_types=(*["DownBlock2D"] * plain, "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", *["UpBlock2D"] * plain),
            cross_attention_dim=shape.text_width,
            attention_head_dim=heads,
            norm_num_groups=16,
            time_embedding_dim=_EMBEDDING,
            resnet_time_scale_shift="scale_shift",
            addition_embed_type="text",
            addition_embed_type_num_heads=4,
            class_embed_type="projection",
            projection_class_embeddings_input_dim=len(self.features),
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

    @property
    def size(self) -> int:
        """Image size that the network is trained with, in pixels per side."""
        return self.unet.config.sample_size * self.patch

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the modalities that the network is conditioned on."""
        return modalities_of(self.features)

    @property
    def schedule(self) -> NoiseSchedule:
        """Noise schedule that the network is trained with."""
        return schedule_of(self.size)

    def forward(
        self,
        noisy: Float[Tensor, "b 3 h w"],
        timestep: Int64[Tensor, " b"],
        tokens: Int64[Tensor, "b n"],
        features: Float[Tensor, "b f"],
    ) -> Float[Tensor, "b 3 h w"]:
        """Predict the clean images (x0).

        Args:
            noisy: Noisy images.
            timestep: Timestep of each image.
            tokens: Tokens of the prompts; see `tokenize`.
            features: Conditions of the views; see `modalities.view_features`.

        Returns:
            Predicted x0 in [-1, 1].
        """
        words = self.text_encoder(input_ids=tokens).last_hidden_state
        return call_on_patches(
            self.unet, noisy, timestep, self.patch, encoder_hidden_states=words, class_labels=features
        )


def tokenize(tokenizer: Any, texts: Sequence[str]) -> Int64[Tensor, "b n"]:
    """Tokenize texts, padded to the model's length; padding tokens are not masked."""
    encoded = tokenizer(list(texts), padding="max_length", truncation=True, return_tensors="pt")
    return encoded.input_ids


def save_tiny_prior(
    folder: Path,
    model: TinyPrior,
    tokenizer: Any,
    kinds: Iterable[str],
    held_out: Iterable[Sequence[str]] = (),
    training_steps: int = 0,
) -> None:
    """Save in diffusers' folder layout in half precision, for `CameraConditionedPipeline` and `DiffusersPrior`."""
    text_encoder, unet = (copy.deepcopy(part).half() for part in (model.text_encoder, model.unet))
    unet.register_to_config(_name_or_path="")  # of loaded weights the folder, which says something of one machine only
    scheduler = DDIMScheduler(
        beta_start=beta_start(model.size),
        beta_end=_BETA_END,
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
        camera_features=list(model.features),
        kinds={kind: list(nouns(kind)) for kind in kinds},
        held_out=[list(pair) for pair in held_out],
        training_steps=training_steps,
    ).save_pretrained(folder)


def load_pipeline(folder: Path) -> CameraConditionedPipeline:
    """Load a pipeline in float32, frozen.

    Raises:
        OSError: A file is missing.
        ValueError: The camera features differ from those of this version.
    """
    pipeline = CameraConditionedPipeline.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    try:
        modalities_of(pipeline.config["camera_features"])
    except ValueError as error:
        raise ValueError(f"{folder} {error}") from None
    for part in (pipeline.unet, pipeline.text_encoder):
        part.requires_grad_(False).eval()
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def network_of(pipeline: CameraConditionedPipeline) -> TinyPrior:
    """Return the trainable network of a pipeline; it shares the pipeline's weights."""
    model = TinyPrior.__new__(TinyPrior)
    nn.Module.__init__(model)
    model.patch, model.unet, model.text_encoder = pipeline.config["patch_size"], pipeline.unet, pipeline.text_encoder
    model.features = tuple(pipeline.config["camera_features"])
    return model.eval()


def load_tiny_prior(folder: Path) -> tuple[TinyPrior, Any]:
    """Load the frozen network and its tokenizer; see `load_pipeline`."""
    pipeline = load_pipeline(folder)
    return network_of(pipeline), pipeline.tokenizer
