"""The priors by name. A prior's config builds it; heavy libraries are imported only then."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
from annotated_types import Interval

from ..distill import Prior
from ..distill.diffusion import DiffusersPrior, FamilyOptions
from ..distill.diffusion.layouts import OTHER_FILES
from ..distill.diffusion.model_sources import MODELS, is_hub_id, local_path
from ..distill.diffusion.prior import PRECISIONS
from ..training.world.prior import WorldPriorConfig


@dataclass
class DiffusersPriorConfig:
    """A pretrained text-to-image model through diffusers; wants a CUDA GPU. Stable Diffusion 1.5, 2.1, XL and 3,
    FLUX.1, PixArt, DeepFloyd IF: docs/models.md.

    `--prior PATH` and `--prior OWNER/NAME` are short for `--prior diffusers prior.model=...`.
    """

    model: str = "stable-diffusion-2-1-base"
    """A name that docs/models.md lists, a hub id (owner/name, or owner/name@revision), or a folder in diffusers' layout
    with safetensors."""
    precision: Annotated[str, ("auto", *PRECISIONS)] = "auto"
    """Of the denoiser: float32, bfloat16, float16; auto is half precision on CUDA, float32 on the CPU."""
    view_dependent: bool = True
    """Whether the prompt tells the model which side it looks at."""
    perp_neg: bool = False
    """Whether the other sides are negative prompts (Perp-Neg, 2304.04968), against several faces: up to two more rows
    of the denoiser per view."""
    micro_batch: Annotated[int, Interval(ge=0, le=4096)] = 0
    """Views per call of the denoiser and the autoencoder; 0: all. Less memory, the same result; the autoencoder's
    layers are then computed twice."""
    picture_size: Annotated[int, Interval(ge=0, le=4096)] = 0
    """Pixels of the pictures that the model sees; 0: the size it was trained on."""
    embedded_guidance: Annotated[float, Interval(ge=0, le=1000)] = 1.0
    """The guidance that FLUX.1-dev takes as an input. Above 1 set method.guidance_scale=1, else it is guided twice."""
    shifted_noise: bool = False
    """Whether Stable Diffusion 3 and FLUX.1 space their noise levels as their samplers do; false: evenly."""
    decoder: str = ""
    """Folder or hub id of a small decoder (TAESD family) for the depth and normal baselines; empty: the model's own."""
    cache_text: bool = True
    """Whether text embeddings are kept in $STEINDREAMER_CACHE (default ~/.cache/steindreamer)."""
    compile: bool = False
    """Whether the denoiser goes through torch.compile: slow first steps, others not measured."""
    gradient_checkpointing: bool = False
    """Whether the autoencoder computes its layers twice to save memory."""

    def build(self, device: torch.device) -> Prior:
        """Raises ValueError for a model that cannot be found or used, ImportError without diffusers."""
        return DiffusersPrior(
            self.model,
            device,
            precision=self.precision,
            view_dependent=self.view_dependent,
            perp_neg=self.perp_neg,
            micro_batch=self.micro_batch,
            picture_size=self.picture_size,
            options=FamilyOptions(self.embedded_guidance, self.shifted_noise),
            decoder=self.decoder,
            cache_text=self.cache_text,
            compile=self.compile,
            gradient_checkpointing=self.gradient_checkpointing,
        )


@dataclass
class TinyPriorConfig:
    """A small diffusion model that ships, told the prompt and the camera: few kinds of objects at few pixels, on any
    machine. Its card: assets/tiny_world_prior.
    """

    model: str = ""
    """Folder of another one that `steindreamer.training.prior` made; empty: the one that ships."""
    precision: Annotated[str, ("auto", *PRECISIONS)] = "auto"
    """Of the denoiser: float32, bfloat16, float16; auto is half precision on CUDA, float32 on the CPU."""
    micro_batch: Annotated[int, Interval(ge=0, le=4096)] = 0
    """Views per call of the denoiser; 0: all."""
    cache_text: bool = True
    """Whether text embeddings are kept in $STEINDREAMER_CACHE (default ~/.cache/steindreamer)."""
    compile: bool = False
    """Whether the denoiser goes through torch.compile: slow first steps, others not measured."""

    def build(self, device: torch.device) -> Prior:
        """Raises ValueError for a model that cannot be found or used, ImportError without diffusers."""
        shipped = importlib.resources.files("steindreamer.assets") / "tiny_world_prior"
        return DiffusersPrior(
            self.model or str(shipped),
            device,
            precision=self.precision,
            view_dependent=False,
            micro_batch=self.micro_batch,
            cache_text=self.cache_text,
            compile=self.compile,
        )


PRIORS: dict[str, type] = {
    "world": WorldPriorConfig,
    "tiny": TinyPriorConfig,
    "diffusers": DiffusersPriorConfig,
    "stable-diffusion": DiffusersPriorConfig,
}
"""Name -> config with `.build(device) -> Prior`. To add one, add an entry, or call `register_prior` in a plugin;
`--prior NAME` and `prior.KEY=` follow."""


def register_prior(name: str, config: type) -> None:
    """Make `config`, a dataclass like the values of `PRIORS`, available under `name`.

    Raises ValueError if the name is taken.
    """
    if name in PRIORS:
        raise ValueError(f"a prior named {name!r} exists already: choose another name")
    PRIORS[name] = config


def names_a_model(name: str) -> bool:
    """Whether `name` is no entry of `PRIORS` but meant as a model for "diffusers": a known one, a hub id, a folder.

    So is a file, which the prior then refuses with the way out.
    """
    if not name or name in PRIORS:
        return False
    ending = Path(name).suffix.lower()
    return name in MODELS or is_hub_id(name) or local_path(name) is not None or ending in OTHER_FILES
