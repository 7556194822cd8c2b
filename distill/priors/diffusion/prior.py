"""Pretrained text-to-image models as priors: one adapter over diffusers for every family of `FAMILIES`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ...files.digests import checked_digests, fingerprint
from ...noise.parameterization import noise_from_output, output_error
from ...noise.schedule import NoiseSchedule, NoisySample
from ..base import CameraBatch, LoRAPrediction, NoiseRequest, Prompt
from ..guidance import NegativeViewRequest, NegativeViews, negative_view_weights, predict_with_perp_neg
from ..view_prompts import view_prompts, view_weights
from .families import FAMILIES, Family, FamilyOptions
from .image_codec import ImageCodec, PixelCodec
from .libraries import import_libraries, load_config, load_frozen, load_part
from .live_bytes import on_meta
from .lora import LoRADenoiser
from .micro_batches import in_micro_batches
from .model_check import rehearse
from .model_sources import DECODER_FILES, find_decoder, find_model
from .samplers import read_sampler
from .text_embeddings import TextRows
from .text_encoding import encode_prompts

Precision = Literal["auto", "float32", "bfloat16", "float16"]
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class ViewEmbedding:
    """Text embeddings of a run's prompts, float32."""

    views: TextRows
    """The embedding of the positive prompt, one row per entry of `view_prompts.VIEWS`, or one row for all views."""
    negative: TextRows
    """The embedding of the negative prompt, a single row."""
    null: TextRows | None = None
    """The embedding of no text, a single row; None: the same as `negative`."""


@dataclass(frozen=True)
class TextCondition:
    """Text and camera embeddings, one row per image."""

    positive: TextRows
    negative: TextRows
    views: TextRows
    """Text embeddings of the view-dependent prompts, one row per view, independent of the images."""
    negative_weights: Float[Tensor, "b v"]
    """Perp-Neg's weights of the views, zero for a view that is no negative."""
    camera: TextRows
    """The denoiser's other conditions on the view, one row per image; without tensors if there are none."""
    null: TextRows | None = None
    """Text embeddings of no text; None: the same as `negative`."""

    def resolve(self, prompt: Prompt) -> Prompt:
        """The prompt whose rows are used for this one: "negative" for "null" if they are the same."""
        return "negative" if prompt == "null" and self.null is None else prompt

    def text(self, prompt: Prompt) -> TextRows:
        """The text embeddings of a prompt."""
        rows = {"positive": self.positive, "negative": self.negative, "null": self.null}[self.resolve(prompt)]
        assert rows is not None
        return rows

    def __getitem__(self, images: slice) -> TextCondition:
        return TextCondition(
            self.positive[images],
            self.negative[images],
            self.views,
            self.negative_weights[images],
            self.camera[images],
            None if self.null is None else self.null[images],
        )


class DiffusersPrior:
    """A prior of a frozen denoiser and its autoencoder; images are encoded at the model's own size.

    The text encoders are in memory only during `embed`, and the denoiser is loaded after they are freed. The denoiser
    runs in `precision`; the autoencoder stays in float32, since the gradient passes through it.
    """

    def __init__(
        self,
        model: str,
        device: torch.device,
        *,
        precision: str = "auto",
        view_dependent: bool = True,
        perp_neg: bool = False,
        micro_batch: int = 0,
        image_size: int = 0,
        options: FamilyOptions | None = None,
        decoder: str = "",
        cache_text: bool = True,
        compile: bool = False,
        gradient_checkpointing: bool = False,
    ) -> None:
        """Load all parts except the denoiser and the text encoders, which are loaded on demand.

        Args:
            model: see `model_sources.find_model`.
            precision: one of `PRECISIONS`, or "auto": half on CUDA.
            view_dependent: whether the prompt names the view; unnecessary for a camera-conditioned model.
            perp_neg: whether the other views are negative prompts, see `priors.guidance`; requires view_dependent.
            micro_batch: images per call of denoiser and autoencoder; 0: all of them.
            image_size: side in pixels of the denoiser's images; 0: the size it was trained on.
            options: settings that only some families use.
            decoder: folder or hub id of a small autoencoder (TAESD family) that `decode` uses; "": the model's own.
            cache_text: whether text embeddings are kept on disk, see `text_cache`.
            compile: whether the denoiser is compiled by `torch.compile`; the first steps are slow, and the speed of the
                others was not measured.
            gradient_checkpointing: whether the autoencoder recomputes activations to save memory.

        Raises ValueError for a model that cannot be found, is damaged or of another kind, ImportError without
        diffusers.
        """
        if perp_neg and not view_dependent:
            raise ValueError("perp_neg needs view-dependent prompts; set view_dependent=true or perp_neg=false")
        if micro_batch < 0:
            raise ValueError(f"micro_batch is {micro_batch}; 0 (all images at once) or more is accepted")
        self._dtype = _dtype(precision, device)
        diffusers, _ = import_libraries()
        self._device, self._view_dependent, self._perp_neg = device, view_dependent, perp_neg
        self.micro_batch = micro_batch
        self._cache_text, self._compile = cache_text, compile
        self._files = find_model(model, half=self._dtype is not torch.float32)
        self._files.digests  # noqa: B018 - what is not as it was written is to be found out before it is used
        family = FAMILIES[self._files.pipeline]
        self._denoiser_class: Any = getattr(diffusers, family.denoiser_class)
        self._codec = self._load_codec(family, decoder, gradient_checkpointing)
        self._denoiser: Any = None
        self._rehearsed = False
        try:
            config = load_config(self._denoiser_class, self._files, family.denoiser)
            self.family = family(config, self._files.index, options or FamilyOptions())
            self.family.check_latents(self._codec.channels)
            self.image_size: int = image_size or self.family.image_size(self._codec.reduction)
            """Pixels of the square images that `encode` makes."""
            sampler = read_sampler(self._files.folder, self._files.index)
            self._prediction_type = self.family.prediction_type(sampler)
            self._schedule = self.family.noise_schedule(sampler, self.image_size // self._codec.reduction)
            multiple = self._codec.reduction * self.family.multiple
        except ValueError as error:
            raise ValueError(f"{self._files.label} {error}") from error
        if family.camera_conditioned:
            if perp_neg:
                raise ValueError(
                    f"{self._files.label} is camera-conditioned and has no view prompts; set perp_neg=false"
                )
            self._view_dependent = False
        if self.image_size % multiple or self.image_size < 0:
            raise ValueError(f"image_size is {image_size}; {self.family.name} takes multiples of {multiple}")

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise schedule of the model."""
        return self._schedule

    @property
    def device(self) -> torch.device:
        """The device of the networks."""
        return self._device

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities that the model was trained on."""
        return self.family.modalities

    @property
    def crops(self) -> bool:
        """Whether the model was trained on parts of images, and is conditioned on which part it sees."""
        return self.family.crops

    @property
    def description(self) -> str:
        """Description of the weights, by which they can be found again, and of how they are used."""
        precision = str(self._dtype).removeprefix("torch.")
        kind = f"{self.family.name}, {self._prediction_type}"
        return f"{self._files.label}, {kind}, {self.image_size} px, {precision}, sha256 {self.fingerprint[:16]}"

    @property
    def label(self) -> str:
        """Folder, or repository and revision, of the model."""
        return self._files.label

    @property
    def folder(self) -> Path:
        """Folder of the model's files."""
        return self._files.folder

    @property
    def channels(self) -> int:
        """Channels of the denoiser's input."""
        return self._codec.channels

    @property
    def reduction(self) -> int:
        """Image pixels per pixel of the denoiser's input, along a side."""
        return self._codec.reduction

    @property
    def fingerprint(self) -> str:
        """One SHA-256, in hexadecimal, for all files of the model that are used."""
        return fingerprint(self._files.digests)

    @property
    def denoiser(self) -> Any:
        """The denoiser, loaded on first use."""
        if self._denoiser is None:
            self._denoiser = load_part(self._denoiser_class, self._files, self.family.denoiser, self._dtype)
            self._denoiser.to(self._device)
            if self._compile:
                self._denoiser.compile()
        return self._denoiser

    @property
    def parts(self) -> dict[str, Any]:
        """The loaded networks, by name."""
        return {"denoiser": self.denoiser, **self._codec.parts}

    def on_meta(self) -> DiffusersPrior:
        """A copy on the device "meta", whose calls propagate shapes and compute no values, see `memory`."""
        meta = on_meta(self, self.parts.values())
        meta._device = torch.device("meta")
        return meta

    def embed(self, prompt: str, negative_prompt: str = "") -> ViewEmbedding:
        """Text embeddings of the prompts.

        Raises ValueError for a prompt longer than the text encoders read, and for parts that do not fit together.
        """
        prompts = view_prompts(prompt) if self._view_dependent else [prompt]

        def encode(prompts: list[str], negative: str) -> tuple[TextRows, TextRows]:
            return encode_prompts(
                self.family, self._files, prompts, negative, self._device, self._dtype, cached=self._cache_text
            )

        views, negative = encode(prompts, negative_prompt)
        null = encode(prompts[:1], "")[1] if negative_prompt else None
        embedding = ViewEmbedding(views, negative, null)
        if not self._rehearsed:  # detects a mismatch before the first step
            rehearse(self, embedding)
            self._rehearsed = True
        return embedding

    def condition(
        self,
        embedding: ViewEmbedding,
        cameras: CameraBatch,
        background: Float[Tensor, "b 3"],
        modality: str = "color",
    ) -> TextCondition:
        """The text embeddings of each view, and the family's other conditions on the camera and the modality.

        Raises ValueError for a modality that the model was not trained on.
        """
        if modality not in self.modalities:
            raise ValueError(
                f"{self._files.label} does not support {modality} images; it supports {', '.join(self.modalities)}"
            )
        # A family of color alone may define `view` without a modality.
        of_modality = () if modality == "color" else (modality,)
        weights = view_weights(cameras).to(self._device)
        if len(embedding.views) == 1:
            weights = weights.sum(1, keepdim=True)
        negative_weights = negative_view_weights(cameras) if self._perp_neg else torch.zeros(weights.shape)
        return TextCondition(
            embedding.views.blend(weights),
            embedding.negative.expand(len(weights)),
            embedding.views,
            negative_weights,
            TextRows(self.family.view(cameras, background, *of_modality)).to(self._device, torch.float32),
            None if embedding.null is None else embedding.null.expand(len(weights)),
        )

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hl wl"]:
        """Encode square images as the mode of the latent distribution, scaled for the denoiser.

        Raises ValueError for images that are not square.
        """
        if image.shape[-2] != image.shape[-1]:
            raise ValueError(
                f"{self.family.name} is distilled with square images, got {tuple(image.shape[-2:])} pixels"
            )
        size = (self.image_size, self.image_size)
        # With antialiasing, downsampling averages over areas; upsampling stays bilinear.
        resized = F.interpolate(image.float(), size, mode="bilinear", antialias=True)
        return in_micro_batches(self._codec.encode, resized, self.micro_batch)

    def decode(self, latent: Float[Tensor, "b c hl wl"]) -> Float[Tensor, "b 3 h w"]:
        """Decode latents to images, not clamped."""
        return in_micro_batches(self._codec.decode, latent, self.micro_batch)

    @torch.no_grad()
    def predict_noise(
        self, requests: Sequence[NoiseRequest], condition: TextCondition
    ) -> list[Float[Tensor, "b c h w"]]:
        """Predict noise, in one call of the denoiser per micro-batch; repeated requests are computed once."""
        samples = dict.fromkeys(request.sample for request in requests)
        parts = []
        for rows in self._micro_batches(len(requests[0].sample.timestep)):
            part = {sample: sample[rows] for sample in samples}
            resolved = [NoiseRequest(part[each.sample], condition.resolve(each.prompt)) for each in requests]
            parts.append(self._predict_micro_batch(resolved, condition[rows]))
        return [torch.cat(each) for each in zip(*parts, strict=True)]

    def lora_denoiser(self, rank: int, *, camera: bool, generator: torch.Generator) -> LoRADenoiser:
        """Create a LoRA denoiser on the denoiser's device.

        Raises ValueError unless rank >= 1, and for a denoiser without attention.
        """
        return LoRADenoiser(self.denoiser, rank, camera=camera, generator=generator)

    def predict_lora(
        self,
        denoiser: LoRADenoiser,
        sample: NoisySample,
        condition: TextCondition,
        camera: Float[Tensor, "b 4 4"] | None,
    ) -> LoRAPrediction:
        """Predict noise with a LoRA denoiser, one call per micro-batch; several are recomputed in the backward pass."""

        def predict(rows: slice) -> Tensor:
            with denoiser.active(None if camera is None else camera[rows]):
                part = condition[rows]
                return self._predict_rows(sample[rows], part.positive | part.camera)

        micro_batches = self._micro_batches(len(sample.timestep))
        if torch.is_grad_enabled() and len(micro_batches) > 1:
            parts = [checkpoint(predict, rows, use_reentrant=False, preserve_rng_state=False) for rows in micro_batches]
        else:
            parts = [predict(rows) for rows in micro_batches]
        noise = torch.cat(parts)
        return LoRAPrediction(noise, output_error(noise, self._prediction_type, sample))

    def _micro_batches(self, count: int) -> list[slice]:
        size = self.micro_batch or count
        return [slice(start, start + size) for start in range(0, count, size)]

    def _predict_micro_batch(
        self, requests: Sequence[NoiseRequest], condition: TextCondition
    ) -> list[Float[Tensor, "b c h w"]]:
        """Predict all requests, and those that Perp-Neg adds, in one call of the denoiser."""
        views = NegativeViews.from_weights(condition.negative_weights)
        on_device = views.to(self._device)

        def rows(request: NoiseRequest | NegativeViewRequest) -> tuple[NoisySample, TextRows]:
            if isinstance(request, NegativeViewRequest):
                return request.sample[on_device.image], condition.views[views.view] | condition.camera[on_device.image]
            return request.sample, condition.text(request.prompt) | condition.camera

        def predict(requests: Sequence[NoiseRequest | NegativeViewRequest]) -> Sequence[Tensor]:
            samples, text = zip(*map(rows, requests), strict=True)
            noise = self._predict_rows(NoisySample.concatenate(samples), TextRows.concatenate(text))
            return noise.split([len(sample.timestep) for sample in samples])

        return predict_with_perp_neg(requests, on_device, predict)

    def _predict_rows(self, sample: NoisySample, text: TextRows) -> Float[Tensor, "b c h w"]:
        """Predicted noise, one text and view per row, in one call of the denoiser."""
        noisy, time = sample.noisy, self.family.time(sample)
        text = text.to(self._device, self._dtype)
        output = self.family.call(self.denoiser, noisy.to(self._dtype), time, text.tensors, self.image_size)
        return noise_from_output(output[:, : noisy.shape[1]], self._prediction_type, sample)

    def _load_codec(self, family: type[Family], decoder: str, gradient_checkpointing: bool) -> ImageCodec:
        diffusers, _ = import_libraries()
        if family.autoencoder_class is None:
            if decoder:
                raise ValueError(
                    f"{self._files.label} works on pixels; decoder is for models with latents, got {decoder!r}"
                )
            return PixelCodec()
        vae = load_part(getattr(diffusers, family.autoencoder_class), self._files, "vae").to(self._device)
        small = self._load_decoder(decoder).to(self._device) if decoder else None
        if gradient_checkpointing:
            vae.enable_gradient_checkpointing()
        try:
            return family.codec(vae, small)
        except ValueError as error:
            raise ValueError(f"{decoder or self._files.label} {error}") from error

    def _load_decoder(self, name: str) -> Any:
        diffusers, _ = import_libraries()
        folder, _ = find_decoder(name)
        weights = [folder / file for file in DECODER_FILES if file.endswith(".safetensors")]
        checked_digests(folder, DECODER_FILES)
        return load_frozen(diffusers.AutoencoderTiny, folder, weights, torch.float32)


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: use auto, {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]
