"""Pretrained text-to-image models as priors: one adapter over diffusers for every family of `FAMILIES`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..digests import checked_digests, fingerprint
from ..perp_neg import negative_view_weights, perp_neg
from ..predictions import noise_from_output, output_error
from ..prior import CameraBatch, CopyPrediction, NoisePrediction, Question
from ..schedule import NoiseSchedule, NoisySample
from ..view_prompts import view_prompts, view_weights
from .families import FAMILIES, FamilyOptions
from .libraries import import_libraries, load_config, load_frozen, load_part
from .live_bytes import on_meta
from .lora import LowRankDenoiser
from .micro_batches import in_micro_batches
from .model_sources import DECODER_FILES, find_decoder, find_model
from .picture_codec import LatentCodec, PictureCodec, PixelCodec
from .rehearsal import rehearse
from .samplers import read_sampler
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
    null: TextRows | None = None
    """A single row, of no prompt; None: the same as `negative`."""


@dataclass(frozen=True)
class TextCondition:
    """Text embeddings, one row per picture."""

    conditional: TextRows
    unconditional: TextRows
    views: TextRows
    """One row per view, whatever the pictures."""
    negative_weights: Float[Tensor, "b v"]
    """Perp-Neg's weights of the views, zero where a view is no negative."""
    camera: TextRows
    """What the denoiser is told of the view besides the text, one row per picture; no tensors if that is nothing."""
    null: TextRows | None = None
    """Told nothing; None: the same as `unconditional`."""

    def same(self, text: str) -> str:
        """Of `TEXTS`, the first that says the same."""
        return "unconditional" if text == "null" and self.null is None else text

    def told(self, text: str) -> TextRows:
        """The rows of one of `TEXTS`."""
        rows = {"prompt": self.conditional, "unconditional": self.unconditional, "null": self.null}[self.same(text)]
        assert rows is not None
        return rows

    def __getitem__(self, pictures: slice) -> TextCondition:
        return TextCondition(
            self.conditional[pictures],
            self.unconditional[pictures],
            self.views,
            self.negative_weights[pictures],
            self.camera[pictures],
            None if self.null is None else self.null[pictures],
        )


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
        perp_neg: bool = False,
        micro_batch: int = 0,
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
            view_dependent: whether the prompt tells the model which side it looks at; needless for a model that is told
                the camera.
            perp_neg: whether the other views are negatives, see `distill.perp_neg`; wants view_dependent.
            micro_batch: pictures per call of denoiser and autoencoder; 0: all of them.
            picture_size: pixels of the pictures that the denoiser sees; 0: what it was trained on.
            options: settings that only some families read.
            decoder: folder or hub id of a small autoencoder (TAESD family) that `decode` uses; "": the model's own.
            cache_text: whether text embeddings are kept on disk, see `text_cache`.
            compile: whether the denoiser goes through `torch.compile`: slow first steps, others not measured.
            gradient_checkpointing: whether the autoencoder computes twice to save memory.

        Raises ValueError for a model that cannot be found, is damaged or of another kind, ImportError without
        diffusers.
        """
        if perp_neg and not view_dependent:
            raise ValueError("perp_neg tells views apart by their words; set view_dependent=true or perp_neg=false")
        if micro_batch < 0:
            raise ValueError(f"micro_batch is {micro_batch}; 0 (all pictures at once) or more is accepted")
        self._dtype = _dtype(precision, device)
        diffusers, _ = import_libraries()
        self._device, self._view_dependent, self._perp_neg = device, view_dependent, perp_neg
        self.micro_batch = micro_batch
        self._cache_text, self._compile = cache_text, compile
        self._files = find_model(model, half=self._dtype is not torch.float32)
        self._files.digests  # noqa: B018 - what is not as it was written is to be found out before it is used
        family = FAMILIES[self._files.pipeline]
        self._denoiser_class: Any = getattr(diffusers, family.denoiser_class)
        self._codec = self._load_codec(family.has_vae, decoder, gradient_checkpointing)
        self._denoiser: Any = None
        self._rehearsed = False
        try:
            config = load_config(self._denoiser_class, self._files, family.denoiser)
            self.family = family(config, self._files.index, options or FamilyOptions())
            self.family.check_latents(self._codec.channels)
            self.picture_size: int = picture_size or self.family.picture_size(self._codec.reduction)
            """Pixels of the square pictures that `encode` makes."""
            sampler = read_sampler(self._files.folder, self._files.index)
            self._prediction_type = self.family.prediction_type(sampler)
            self._schedule = self.family.noise_schedule(sampler, self.picture_size // self._codec.reduction)
            multiple = self._codec.reduction * self.family.multiple
        except ValueError as error:
            raise ValueError(f"{self._files.label} {error}") from error
        if family.told_camera:
            if perp_neg:
                raise ValueError(f"{self._files.label} is told the camera, not in words; set perp_neg=false")
            self._view_dependent = False
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
        return f"{self._files.label}, {kind}, {self.picture_size} px, {precision}, sha256 {self.fingerprint[:16]}"

    @property
    def label(self) -> str:
        """Folder, or repository and revision."""
        return self._files.label

    @property
    def channels(self) -> int:
        """Of what the denoiser works on."""
        return self._codec.channels

    @property
    def reduction(self) -> int:
        """Pixels of a picture per pixel of what the denoiser works on, along a side."""
        return self._codec.reduction

    @property
    def fingerprint(self) -> str:
        """One SHA-256, in hexadecimal, for all files of the model that are used."""
        return fingerprint(self._files.digests)

    @property
    def denoiser(self) -> Any:
        """Loaded when it is first wanted."""
        if self._denoiser is None:
            self._denoiser = load_part(self._denoiser_class, self._files, self.family.denoiser, self._dtype)
            self._denoiser.to(self._device)
            if self._compile:
                self._denoiser.compile()
        return self._denoiser

    @property
    def parts(self) -> dict[str, Any]:
        """The networks that are held, by name."""
        return {"denoiser": self.denoiser, **self._codec.parts}

    def on_meta(self) -> DiffusersPrior:
        """A twin on the device "meta", whose weights have shapes only: its calls compute nothing, see `memory`."""
        twin = on_meta(self, self.parts.values())
        twin._device = torch.device("meta")
        return twin

    def embed(self, prompt: str, negative_prompt: str = "") -> ViewEmbedding:
        """Raises ValueError for a prompt longer than the text encoders read, and for parts that do not fit together."""
        prompts = view_prompts(prompt) if self._view_dependent else [prompt]

        def encode(prompts: list[str], negative: str) -> tuple[TextRows, TextRows]:
            return encode_prompts(
                self.family, self._files, prompts, negative, self._device, self._dtype, cached=self._cache_text
            )

        views, negative = encode(prompts, negative_prompt)
        null = encode(prompts[:1], "")[1] if negative_prompt else None
        embedding = ViewEmbedding(views, negative, null)
        if not self._rehearsed:  # what does not fit the text is to be found out before the first step
            rehearse(self, embedding)
            self._rehearsed = True
        return embedding

    def condition(
        self, embedding: ViewEmbedding, cameras: CameraBatch, background: Float[Tensor, "b 3"]
    ) -> TextCondition:
        """The prompt seen from each camera, and what else the family is told of the view."""
        weights = view_weights(cameras).to(self._device)
        if len(embedding.views) == 1:
            weights = weights.sum(1, keepdim=True)
        negative_weights = negative_view_weights(cameras) if self._perp_neg else torch.zeros(weights.shape)
        return TextCondition(
            embedding.views.blend(weights),
            embedding.negative.expand(len(weights)),
            embedding.views,
            negative_weights,
            TextRows(self.family.view(cameras, background)).to(self._device, torch.float32),
            None if embedding.null is None else embedding.null.expand(len(weights)),
        )

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hl wl"]:
        """The mode of the latent distribution, scaled as the denoiser wants it. Raises ValueError unless square."""
        if image.shape[-2] != image.shape[-1]:
            raise ValueError(
                f"{self.family.name} is distilled with square pictures, got {tuple(image.shape[-2:])} pixels"
            )
        size = (self.picture_size, self.picture_size)
        # Antialiasing makes shrinking an area average; enlarging stays bilinear.
        picture = F.interpolate(image.float(), size, mode="bilinear", antialias=True)
        return in_micro_batches(self._codec.encode, picture, self.micro_batch)

    def decode(self, latent: Float[Tensor, "b c hl wl"]) -> Float[Tensor, "b 3 h w"]:
        return in_micro_batches(self._codec.decode, latent, self.micro_batch)

    @torch.no_grad()
    def predict_noise(self, sample: NoisySample, condition: TextCondition, *, unconditional: bool) -> NoisePrediction:
        """All rows of the guidance in one call of the denoiser per micro-batch."""
        texts = ("prompt", "unconditional") if unconditional else ("prompt",)
        return NoisePrediction(*self._answer([Question(sample, text) for text in texts], condition))

    @torch.no_grad()
    def answer(self, questions: Sequence[Question], condition: TextCondition) -> list[Float[Tensor, "b c h w"]]:
        """All rows in one call of the denoiser per micro-batch."""
        return self._answer(questions, condition)

    def low_rank_copy(self, rank: int, *, camera: bool, generator: torch.Generator) -> LowRankDenoiser:
        """Of the denoiser, on its device. Raises ValueError unless rank >= 1, and for a denoiser without attention."""
        return LowRankDenoiser(self.denoiser, rank, camera=camera, generator=generator)

    def predict_with(
        self,
        copy: LowRankDenoiser,
        sample: NoisySample,
        condition: TextCondition,
        camera: Float[Tensor, "b 4 4"] | None,
    ) -> CopyPrediction:
        """One call of the copy per micro-batch; with several of them, each is computed again in the backward pass."""
        plain = replace(condition, negative_weights=torch.zeros_like(condition.negative_weights))

        def predict(rows: slice) -> Tensor:
            with copy.active(None if camera is None else camera[rows]):
                return self._answer_portion([(0, "prompt")], [sample[rows]], plain[rows])[0]

        portions = self._portions(len(sample.timestep))
        if torch.is_grad_enabled() and len(portions) > 1:
            parts = [checkpoint(predict, rows, use_reentrant=False, preserve_rng_state=False) for rows in portions]
        else:
            parts = [predict(rows) for rows in portions]
        noise = torch.cat(parts)
        return CopyPrediction(noise, output_error(noise, self._prediction_type, sample))

    def _portions(self, count: int) -> list[slice]:
        size = self.micro_batch or count
        return [slice(start, start + size) for start in range(0, count, size)]

    def _answer(self, questions: Sequence[Question], condition: TextCondition) -> list[Float[Tensor, "b c h w"]]:
        samples = list({id(each.sample): each.sample for each in questions}.values())
        places = {id(sample): place for place, sample in enumerate(samples)}
        asked = [(places[id(each.sample)], condition.same(each.text)) for each in questions]
        portions = [
            self._answer_portion(asked, [sample[rows] for sample in samples], condition[rows])
            for rows in self._portions(len(samples[0].timestep))
        ]
        return [torch.cat(parts) for parts in zip(*portions, strict=True)]

    def _answer_portion(
        self, asked: Sequence[tuple[int, str]], samples: Sequence[NoisySample], condition: TextCondition
    ) -> list[Float[Tensor, "b c h w"]]:
        """Of each (place among `samples`, text), all in one call of the denoiser; what is asked twice is there once."""
        count = len(samples[0].timestep)
        pictures, views = condition.negative_weights.nonzero(as_tuple=True)
        wary = [place for place, text in dict.fromkeys(asked) if text == "prompt"] if len(pictures) else []
        # Perp-Neg measures from the unconditional prediction, wanted or not.
        distinct = list(dict.fromkeys([*asked, *((place, "unconditional") for place in wary)]))
        every = torch.arange(count, device=pictures.device)
        rows = torch.cat(
            [*(place * count + every for place, _ in distinct), *(place * count + pictures for place in wary)]
        ).to(self._device)
        texts = [*(condition.told(text) for _, text in distinct), *(condition.views[views] for _ in wary)]
        told = TextRows.concatenate(texts) | condition.camera[rows % count]
        noise = self._predict_rows(NoisySample.concatenate(samples)[rows], told)
        parts = noise.split([count] * len(distinct) + [len(pictures)] * len(wary))
        found = dict(zip(distinct, parts, strict=False))
        weights = condition.negative_weights[pictures, views].to(self._device)
        for place, negatives in zip(wary, parts[len(distinct) :], strict=True):
            conditional, unconditional = found[place, "prompt"], found[place, "unconditional"]
            of = pictures.to(self._device)
            found[place, "prompt"] = perp_neg(conditional, unconditional, negatives, of, weights)
        return [found[key] for key in asked]

    def _predict_rows(self, sample: NoisySample, text: TextRows) -> Float[Tensor, "b c h w"]:
        """One text and view per row, in one call of the denoiser."""
        noisy, time = sample.noisy, self.family.time(sample)
        text = text.to(self._device, self._dtype)
        output = self.family.call(self.denoiser, noisy.to(self._dtype), time, text.tensors, self.picture_size)
        return noise_from_output(output[:, : noisy.shape[1]], self._prediction_type, sample)

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
