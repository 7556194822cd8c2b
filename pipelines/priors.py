"""The registry of priors. A prior's config builds it; large libraries are imported only then."""

from __future__ import annotations

import importlib.resources
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, runtime_checkable

import torch
from annotated_types import Interval

from steindreamer.distill import Prior
from steindreamer.distill.priors.diffusion import DiffusersPrior, FamilyOptions
from steindreamer.distill.priors.diffusion.layouts import OTHER_FILES
from steindreamer.distill.priors.diffusion.model_sources import MODELS, is_hub_id, local_path
from steindreamer.distill.priors.diffusion.prior import Precision, ViewEmbedding
from steindreamer.registry import Registry
from steindreamer.world.mixture_prior import SceneMixtureConfig
from steindreamer.world.prior import WorldPriorConfig
from steindreamer.world.wording import model_wording


@runtime_checkable
class PriorConfig(Protocol):
    """Protocol of a prior's settings: a dataclass that builds the prior."""

    def build(self, device: torch.device) -> Prior:
        """Load the prior. Raises ValueError for settings that it cannot be built with."""
        ...


@dataclass
class DiffusersPriorConfig:
    """A pretrained text-to-image model through diffusers; needs a CUDA GPU. Stable Diffusion 1.5, 2.1, XL and 3,
    FLUX.1, PixArt, DeepFloyd IF: docs/models.md.

    `--prior PATH` and `--prior OWNER/NAME` are short for `--prior diffusers prior.model=...`.
    """

    model: str = "stable-diffusion-2-1-base"
    """The model: a name listed in docs/models.md, a hub id (owner/name, or owner/name@revision), or a folder in the
    diffusers layout with safetensors."""
    precision: Precision = "auto"
    """Precision of the denoiser: `float32`, `bfloat16` or `float16`; `auto` is half precision on CUDA, float32 on the
    CPU."""
    view_dependent: bool = True
    """Whether a view direction (front, side, back, overhead) is added to the prompt of each view."""
    perp_neg: bool = False
    """Whether the other view directions are negative prompts (Perp-Neg, 2304.04968), which reduces the Janus problem.
    Adds up to two rows of the denoiser batch per view."""
    micro_batch: Annotated[int, Interval(ge=0, le=4096)] = 0
    """Views per call of the denoiser and the autoencoder; 0: all. Smaller values save memory and give the same result;
    the autoencoder's activations are then recomputed."""
    image_size: Annotated[int, Interval(ge=0, le=4096)] = 0
    """Size of the model's input images in pixels; 0: the size it was trained on."""
    embedded_guidance: Annotated[float, Interval(ge=0, le=1000)] = 1.0
    """Guidance scale that FLUX.1-dev takes as an input. Above 1, set method.guidance_scale=1, else guidance is applied
    twice."""
    shifted_noise: bool = False
    """Whether the timesteps of Stable Diffusion 3 and FLUX.1 are spaced as in their samplers; false: uniformly."""
    decoder: str = ""
    """Folder or hub id of a small decoder (TAESD family) for the depth and normal baselines; empty: the model's own
    decoder."""
    cache_text: bool = True
    """Whether text embeddings are cached in $STEINDREAMER_CACHE (default ~/.cache/steindreamer)."""
    compile: bool = False
    """Whether the denoiser is compiled with torch.compile. The first steps are slow; the speed of later ones is not
    measured."""
    gradient_checkpointing: bool = False
    """Whether the autoencoder uses gradient checkpointing, which saves memory and computes its activations twice."""

    def build(self, device: torch.device) -> Prior:
        """Load the model. Raises ValueError for a model that cannot be found or used, ImportError without diffusers."""
        return DiffusersPrior(
            self.model,
            device,
            precision=self.precision,
            view_dependent=self.view_dependent,
            perp_neg=self.perp_neg,
            micro_batch=self.micro_batch,
            image_size=self.image_size,
            options=FamilyOptions(self.embedded_guidance, self.shifted_noise),
            decoder=self.decoder,
            cache_text=self.cache_text,
            compile=self.compile,
            gradient_checkpointing=self.gradient_checkpointing,
        )


class TinyPrior(DiffusersPrior):
    """A model trained on captions of the procedural world, which reads free text as one of them.

    Text for a model whose kinds are not of this world is passed on as it is.
    """

    def __init__(self, model: str, device: torch.device, *, strict_words: bool = False, **options: Any) -> None:
        """Load the model; see `DiffusersPrior`.

        Args:
            model: Folder of the model.
            device: Device of the networks.
            strict_words: Whether words without effect are refused.
            **options: Options of `DiffusersPrior`.
        """
        super().__init__(model, device, **options)
        self.wording = model_wording(self.folder, strict=strict_words)

    def embed(self, prompt: str, negative_prompt: str = "") -> ViewEmbedding:
        """Embed the captions that the prompts mean. Raises ValueError for a text without a known object."""
        if self.wording is None:
            return super().embed(prompt, negative_prompt)
        reading, negative = self.wording.read_both(prompt, negative_prompt)
        return super().embed(reading.caption.text, negative.caption.text if negative else "")

    def prompt_notes(self, prompt: str, negative_prompt: str = "") -> Sequence[str]:
        """Return how the prompts are read, a line each. Raises ValueError for a text without a known object."""
        return self.wording.notes(prompt, negative_prompt) if self.wording else []


@dataclass
class TinyPriorConfig:
    """A small shipped diffusion model, conditioned on prompt and camera: few kinds of objects at few pixels, on any
    machine. Its card: assets/tiny_world_prior.
    """

    model: str = ""
    """Folder of a model trained with `steindreamer.training.prior`; empty: the shipped model."""
    precision: Precision = "auto"
    """Precision of the denoiser: `float32`, `bfloat16` or `float16`; `auto` is half precision on CUDA, float32 on the
    CPU."""
    micro_batch: Annotated[int, Interval(ge=0, le=4096)] = 0
    """Views per call of the denoiser; 0: all."""
    cache_text: bool = True
    """Whether text embeddings are cached in $STEINDREAMER_CACHE (default ~/.cache/steindreamer)."""
    compile: bool = False
    """Whether the denoiser is compiled with torch.compile. The first steps are slow; the speed of later ones is not
    measured."""
    strict_words: bool = False
    """Whether a prompt with words that have no effect is rejected; false: they are logged at the start and ignored."""

    def build(self, device: torch.device) -> Prior:
        """Load the model. Raises ValueError for a model that cannot be found or used, ImportError without diffusers."""
        shipped = importlib.resources.files("steindreamer.assets") / "tiny_world_prior"
        return TinyPrior(
            self.model or str(shipped),
            device,
            strict_words=self.strict_words,
            precision=self.precision,
            view_dependent=False,
            micro_batch=self.micro_batch,
            cache_text=self.cache_text,
            compile=self.compile,
        )


PRIORS: Registry[type[PriorConfig]] = Registry(
    "prior",
    {
        "world": WorldPriorConfig,
        "mixture": SceneMixtureConfig,
        "tiny": TinyPriorConfig,
        "diffusers": DiffusersPriorConfig,
        "stable-diffusion": DiffusersPriorConfig,
    },
)
"""Priors by name: dataclasses with `build(device) -> Prior`, selected by `--prior NAME` and set by
`prior.KEY=VALUE`."""

register_prior = PRIORS.register
list_priors = PRIORS.names


def names_a_model(name: str) -> bool:
    """Whether `name` is not in `PRIORS` but names a model for "diffusers": a known model, a hub id or a folder.

    True also for a file, which the prior then rejects with a message that says what to do.
    """
    if not name or name in PRIORS:
        return False
    ending = Path(name).suffix.lower()
    return name in MODELS or is_hub_id(name) or local_path(name) is not None or ending in OTHER_FILES
