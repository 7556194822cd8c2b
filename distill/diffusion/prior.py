"""Pretrained text-to-image models as priors: one adapter over diffusers for every family of `FAMILIES`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ..predictions import noise_from_output
from ..prior import CameraBatch, NoisePrediction
from ..schedule import NoiseSchedule, NoisySample
from ..view_prompts import view_prompts, view_weights
from .families import FAMILIES, FamilyOptions
from .libraries import import_libraries, load_config, load_part
from .model_sources import find_decoder, find_model
from .picture_codec import LatentCodec, PictureCodec, PixelCodec
from .text_encoding import encode_prompts
from .text_rows import TextRows

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ViewEmbedding:
    """A prompt as the text encoders left it, in float32."""

    views: TextRows
    """One row per entry of `view_prompts.VIEWS`, or a single row for all views."""
    negative: TextRows
    """A single row."""


@dataclass(frozen=True)
class TextCondition:
    """Text embeddings, one row per picture."""

    conditional: TextRows
    unconditional: TextRows


class DiffusersPrior:
    """A frozen denoiser and its autoencoder; pictures are encoded at the model's own size.

    The text encoders live only during `embed`, and the denoiser is loaded after they are gone. The denoiser runs in
    `precision`; the autoencoder stays in float32, since the gradient passes through it.
    """

    def __init__(
        self,
        model: str,
        device: torch.device,
        *,
        precision: str = "auto",
        view_dependent: bool = True,
        picture_size: int = 0,
        options: FamilyOptions | None = None,
        decoder: str = "",
        cache_text: bool = True,
        compile: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Everything but the denoiser and the text encoders is loaded here.

        Args:
            model: see `model_sources.find_model`.
            precision: one of `PRECISIONS`, or "auto": half on CUDA.
            view_dependent: whether the prompt tells the model which side it looks at.
            picture_size: pixels of the pictures that the denoiser sees; 0: what it was trained on.
            options: settings that only some families read.
            decoder: folder or hub id of a small autoencoder (TAESD family) that `decode` uses; "": the model's own.
            cache_text: whether text embeddings are kept on disk, see `text_cache`.
            compile: whether the denoiser goes through `torch.compile`: slow first steps, faster later ones.
            gradient_checkpointing: whether the autoencoder computes twice to save memory.

        Raises ValueError for a model that cannot be found or is of another kind, ImportError without diffusers.
        """
        self._dtype = _dtype(precision, device)
        diffusers, _ = import_libraries()
        self._device, self._view_dependent = device, view_dependent
        self._cache_text, self._compile = cache_text, compile
        self._files = find_model(model, half=self._dtype is not torch.float32)
        family = FAMILIES[self._files.pipeline]
        self._denoiser_class: Any = getattr(diffusers, family.denoiser_class)
        self._codec = self._load_codec(family.has_vae, decoder, gradient_checkpointing)
        self._denoiser: Any = None
        try:
            config = load_config(self._denoiser_class, self._files, family.denoiser)
            self.family = family(config, self._files.index, options or FamilyOptions())
            self.family.check_latents(self._codec.channels)
            self.picture_size: int = picture_size or self.family.picture_size(self._codec.reduction)
            """Pixels of the square pictures that `encode` makes."""
            scheduler = diffusers.DDPMScheduler.load_config(self._files.folder / "scheduler")
            self._prediction_type = self.family.prediction_type(scheduler)
            self._schedule = self.family.noise_schedule(scheduler, self.picture_size // self._codec.reduction)
        except ValueError as error:
            raise ValueError(f"{self._files.label} {error}") from None
        multiple = self._codec.reduction * self.family.multiple
        if self.picture_size % multiple or self.picture_size < 0:
            raise ValueError(f"picture_size is {picture_size}; {self.family.name} takes multiples of {multiple}")

    @property
    def schedule(self) -> NoiseSchedule:
        return self._schedule

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def description(self) -> str:
        """The weights, so that they can be found again, and how they are used."""
        precision = str(self._dtype).removeprefix("torch.")
        kind = f"{self.family.name}, {self._prediction_type}"
        return f"{self._files.label}, {kind}, {self.picture_size} px, {precision}"

    @property
    def denoiser(self) -> Any:
        """Loaded when it is first wanted."""
        if self._denoiser is None:
            self._denoiser = load_part(self._denoiser_class, self._files, self.family.denoiser, self._dtype)
            self._denoiser.to(self._device)
            if self._compile:
                self._denoiser.compile()
        return self._denoiser

    def embed(self, prompt: str, negative_prompt: str = "") -> ViewEmbedding:
        """Raises ValueError for a prompt longer than the text encoders read."""
        prompts = view_prompts(prompt) if self._view_dependent else [prompt]
        rows = encode_prompts(
            self.family, self._files, prompts, negative_prompt, self._device, self._dtype, cached=self._cache_text
        )
        self.denoiser  # noqa: B018 - weights that cannot be loaded are to be found out before the first step
        return ViewEmbedding(*rows)

    def condition(
        self, embedding: ViewEmbedding, cameras: CameraBatch, background: Float[Tensor, "b 3"]
    ) -> TextCondition:
        """The prompt seen from each camera. The background is not the prompt's business."""
        weights = view_weights(cameras).to(self._device)
        if len(embedding.views) == 1:
            weights = weights.sum(1, keepdim=True)
        return TextCondition(embedding.views.blend(weights), embedding.negative.expand(len(weights)))

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hl wl"]:
        """The mode of the latent distribution, scaled as the denoiser wants it. Raises ValueError unless square."""
        if image.shape[-2] != image.shape[-1]:
            raise ValueError(
                f"{self.family.name} is distilled with square pictures, got {tuple(image.shape[-2:])} pixels"
            )
        size = (self.picture_size, self.picture_size)
        # Antialiasing makes shrinking an area average; enlarging stays bilinear.
        return self._codec.encode(F.interpolate(image.float(), size, mode="bilinear", antialias=True))

    def decode(self, latent: Float[Tensor, "b c hl wl"]) -> Float[Tensor, "b 3 h w"]:
        return self._codec.decode(latent)

    @torch.no_grad()
    def predict_noise(self, sample: NoisySample, condition: TextCondition, *, unconditional: bool) -> NoisePrediction:
        """All rows of the guidance in one call of the denoiser."""
        groups = [condition.conditional, condition.unconditional] if unconditional else [condition.conditional]
        noisy, time, count = sample.noisy, self.family.time(sample), len(groups)
        output = self.family.call(
            self.denoiser,
            noisy.to(self._dtype).repeat(count, 1, 1, 1),
            time.repeat(count),
            TextRows.concatenate(groups).to(self._device, self._dtype).tensors,
            self.picture_size,
        )[:, : noisy.shape[1]]
        predictions = [noise_from_output(rows, self._prediction_type, sample) for rows in output.chunk(count)]
        return NoisePrediction(*predictions)

    def _load_codec(self, has_vae: bool, decoder: str, gradient_checkpointing: bool) -> PictureCodec:
        diffusers, _ = import_libraries()
        if not has_vae:
            if decoder:
                raise ValueError(
                    f"{self._files.label} works on pixels; decoder is for models with latents, got {decoder!r}"
                )
            return PixelCodec()
        vae = load_part(diffusers.AutoencoderKL, self._files, "vae").to(self._device)
        small = self._load_decoder(decoder).to(self._device) if decoder else None
        if gradient_checkpointing:
            vae.enable_gradient_checkpointing()
        try:
            return LatentCodec(vae, small)
        except ValueError as error:
            raise ValueError(f"{decoder or self._files.label} {error}") from None

    def _load_decoder(self, name: str) -> Any:
        diffusers, _ = import_libraries()
        folder, _ = find_decoder(name)
        tiny = diffusers.AutoencoderTiny.from_pretrained(folder, use_safetensors=True, local_files_only=True)
        return tiny.eval().requires_grad_(False)


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: use auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]
