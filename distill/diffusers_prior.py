"""Stable Diffusion 1.5 and 2.1 as priors, through diffusers: latent U-Nets that predict noise or v."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from .model_sources import ModelFiles, find_model
from .predictions import PREDICTION_TYPES, noise_from_output
from .prior import CameraBatch, NoisePrediction
from .schedule import NoiseSchedule, NoisySample
from .torchvision_compat import prepare_torchvision
from .view_prompts import view_prompts, view_weights

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ViewEmbedding:
    """A prompt as the text encoder left it, in float32."""

    views: Float[Tensor, "v tokens channels"]
    """One row per entry of `view_prompts.VIEWS`, or a single row for all views."""
    negative: Float[Tensor, "1 tokens channels"]


@dataclass(frozen=True)
class TextCondition:
    """Text embeddings, one row per picture."""

    conditional: Float[Tensor, "b tokens channels"]
    unconditional: Float[Tensor, "b tokens channels"]


class StableDiffusionPrior:
    """A frozen Stable Diffusion U-Net and its autoencoder; pictures are encoded at the model's own size.

    The text encoder lives only during `embed`. The U-Net runs in `precision`; the autoencoder stays in float32, since
    the gradient passes through it, at magnitudes (a loss per pixel) that vanish in float16.
    """

    def __init__(
        self,
        model: str,
        device: torch.device,
        *,
        precision: str = "auto",
        view_dependent: bool = True,
    ) -> None:
        """`model`: see `model_sources.find_model`. `precision`: one of `PRECISIONS`, or "auto": half on CUDA.

        Raises ValueError for a model that cannot be found or is of another kind, ImportError without diffusers.
        """
        dtype = _dtype(precision, device)
        diffusers = _import_libraries()
        self._files = find_model(model, half=dtype is not torch.float32)
        self._device = device
        self._view_dependent = view_dependent
        self._unet: Any = _load(diffusers.UNet2DConditionModel, self._files, "unet", dtype)
        self._vae: Any = _load(diffusers.AutoencoderKL, self._files, "vae")
        scheduler: Any = diffusers.DDPMScheduler.from_pretrained(self._files.folder, subfolder="scheduler")
        _check_kind(self._unet.config, self._vae.config, self._files)
        self._unet.to(device)
        self._vae.to(device)
        self._prediction_type: str = scheduler.config.prediction_type
        if self._prediction_type not in PREDICTION_TYPES:
            raise ValueError(f"{self._files.label} predicts {self._prediction_type!r}; known: {PREDICTION_TYPES}")
        self._schedule = NoiseSchedule.from_alphas_cumprod(scheduler.alphas_cumprod)
        reduction = 2 ** (len(self._vae.config.block_out_channels) - 1)
        self.picture_size: int = self._unet.config.sample_size * reduction
        """Pixels of the square pictures that the model was trained on, and that `encode` makes."""

    @property
    def schedule(self) -> NoiseSchedule:
        return self._schedule

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def description(self) -> str:
        """The weights, so that they can be found again, and how they are used."""
        precision = str(self._unet.dtype).removeprefix("torch.")
        return f"{self._files.label}, {self._prediction_type}, {self.picture_size} px, {precision}"

    def embed(self, prompt: str, negative_prompt: str = "") -> ViewEmbedding:
        """Raises ValueError for a prompt longer than the text encoder reads."""
        prompts = view_prompts(prompt) if self._view_dependent else [prompt]
        rows = _encode_text([*prompts, negative_prompt], self._files, self._device)
        return ViewEmbedding(rows[:-1], rows[-1:])

    def condition(
        self, embedding: ViewEmbedding, cameras: CameraBatch, background: Float[Tensor, "b 3"]
    ) -> TextCondition:
        """The prompt seen from each camera. The background is not the prompt's business."""
        weights = view_weights(cameras).to(self._device)
        if len(embedding.views) == 1:
            weights = weights.sum(1, keepdim=True)
        conditional = torch.einsum("bv,vtc->btc", weights, embedding.views)
        return TextCondition(conditional, embedding.negative.expand_as(conditional))

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hl wl"]:
        """The mode of the latent distribution, scaled as the U-Net wants it. Raises ValueError unless square."""
        if image.shape[-2] != image.shape[-1]:
            raise ValueError(
                f"Stable Diffusion is distilled with square pictures, got {tuple(image.shape[-2:])} pixels"
            )
        size = (self.picture_size, self.picture_size)
        # Antialiasing makes shrinking an area average; enlarging stays bilinear.
        resized = F.interpolate(image.float(), size, mode="bilinear", align_corners=False, antialias=True)
        return self._vae.encode(resized * 2 - 1).latent_dist.mode() * self._vae.config.scaling_factor

    def decode(self, latent: Float[Tensor, "b c hl wl"]) -> Float[Tensor, "b 3 h w"]:
        return (self._vae.decode(latent.float() / self._vae.config.scaling_factor).sample + 1) / 2

    @torch.no_grad()
    def predict_noise(self, sample: NoisySample, condition: TextCondition, *, unconditional: bool) -> NoisePrediction:
        """Both rows of the guidance in one call of the U-Net."""
        text = [condition.conditional, condition.unconditional] if unconditional else [condition.conditional]
        output = self._unet(
            sample.noisy.to(self._unet.dtype).repeat(len(text), 1, 1, 1),
            sample.timestep.repeat(len(text)),
            encoder_hidden_states=torch.cat(text).to(self._unet.dtype),
        ).sample
        predictions = [noise_from_output(rows, self._prediction_type, sample) for rows in output.chunk(len(text))]
        return NoisePrediction(*predictions)


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: use auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def _import_libraries() -> Any:
    """diffusers, once it is certain that transformers is there too."""
    prepare_torchvision()
    try:
        import diffusers
        import transformers  # noqa: F401
    except ModuleNotFoundError as error:
        raise ImportError(
            f"Stable Diffusion needs the package {error.name!r}: pip install 'steindreamer[diffusion]'"
        ) from None
    return diffusers


def _load(model: Any, files: ModelFiles, part: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    """A frozen part of the pipeline, from the files that were chosen and no others."""
    loaded = model.from_pretrained(
        files.folder,
        subfolder=part,
        variant=files.variants[part],
        use_safetensors=True,
        local_files_only=True,
        dtype=dtype,
    )
    return loaded.eval().requires_grad_(False)


def _check_kind(unet: Any, vae: Any, files: ModelFiles) -> None:
    """Refuse what shares Stable Diffusion's layout but wants other inputs: XL, inpainting, depth, upscaling."""
    if unet.addition_embed_type is not None or unet.class_embed_type is not None:
        raise ValueError(
            f"{files.label} wants more than a text embedding (SDXL?); only Stable Diffusion 1.x and 2.x do"
        )
    if not unet.in_channels == unet.out_channels == vae.latent_channels:
        raise ValueError(
            f"{files.label} turns {unet.in_channels} channels into {unet.out_channels}, its latents have "
            f"{vae.latent_channels}: an inpainting, depth or upscaling model; text-to-image models are accepted"
        )


def _encode_text(prompts: list[str], files: ModelFiles, device: torch.device) -> Float[Tensor, "p tokens channels"]:
    """Last hidden states. The text encoder is loaded for this and gone afterwards."""
    from transformers import CLIPTextModel, CLIPTokenizer

    tokenizer: Any = CLIPTokenizer.from_pretrained(files.folder, subfolder="tokenizer", local_files_only=True)
    longest, limit = max(len(ids) for ids in tokenizer(prompts).input_ids), tokenizer.model_max_length
    if longest > limit:
        # Cutting it off would silently drop the words about the view, which come last.
        raise ValueError(
            f"the prompt makes {longest} tokens with the words about the view, the text encoder reads {limit}; "
            "shorten the prompt or the negative prompt"
        )
    tokens = tokenizer(prompts, padding="max_length", max_length=limit, return_tensors="pt").input_ids
    encoder: Any = _load(CLIPTextModel, files, "text_encoder").to(device)
    with torch.no_grad():
        return encoder(tokens.to(device)).last_hidden_state
