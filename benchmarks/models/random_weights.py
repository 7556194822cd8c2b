"""Stable Diffusion 2.1-base and XL, TAESD and depth models with random weights, saved as the hub has them.

Time and memory do not depend on the weights' values. Tokenizers are CLIP's class with one token per letter.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .published import DEPTH_MODELS, TEXT_TO_IMAGE, DepthModel, TextToImage

sys.path.append(str(Path(__file__).parents[2] / "tests" / "support"))
from tiny_depth_models import save_depth_anything, save_hybrid_dpt
from tiny_diffusion_models import clip_tokenizer, library, save_tiny_model, scaled_linear

CLIP_TOKENS = 49408

SIZES = ("full", "tiny")
"""Sizes of the models: `tiny` is those of the tests, of the same classes, to see that all runs, not to measure."""
WITH_RANDOM_WEIGHTS = ("stable-diffusion-2-1-base", "stable-diffusion-xl")
"""Models of `TEXT_TO_IMAGE` that this module writes."""
_TINY_DEPTH = {"dpt-hybrid-midas": save_hybrid_dpt, "depth-anything-v2-small": save_depth_anything}


def text_to_image(work: Path, name: str, size: str, device: str) -> Path:
    """The folder of a model of `WITH_RANDOM_WEIGHTS`, made on `device` unless it is there; half precision if full."""
    shape = TEXT_TO_IMAGE[name]

    def save(folder: Path) -> None:
        if size == "tiny":
            save_tiny_model(folder, shape.pipeline)
        else:
            _save_text_to_image(shape, folder, device)

    return _saved(work / size / name, save)


def small_decoder(work: Path, size: str, device: str) -> Path:
    """The folder of an autoencoder of TAESD's shape, in float32 as published."""
    channels, blocks = ((8,) * 4, (1,) * 4) if size == "tiny" else ((64,) * 4, (1, 3, 3, 3))
    make = partial(
        library("diffusers").AutoencoderTiny,
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks[::-1],
    )
    return _saved(work / size / "taesd", lambda folder: randomized(make, device).save_pretrained(folder))


def depth_model(work: Path, name: str, size: str, device: str) -> Path:
    """The folder of a model of `DEPTH_MODELS`, in float32 as published."""

    def save(folder: Path) -> None:
        if size == "tiny":
            _TINY_DEPTH[name](folder)
        else:
            _save_depth_model(DEPTH_MODELS[name], folder, device)

    return _saved(work / size / name, save)


def denoiser(shape: TextToImage) -> Any:
    return library("diffusers").UNet2DConditionModel(**shape.denoiser)


def autoencoder(shape: TextToImage) -> Any:
    return library("diffusers").AutoencoderKL(**shape.vae)


def text_encoder(shape: TextToImage, index: int) -> Any:
    """With the vocabulary of `tokenizer`."""
    transformers, last = library("transformers"), len(tokenizer()) - 1
    projected = index > 0
    config = transformers.CLIPTextConfig(
        **shape.texts[index], bos_token_id=last - 1, eos_token_id=last, pad_token_id=last
    )
    return (transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel)(config)


def depth_estimator(shape: DepthModel) -> Any:
    transformers = library("transformers")
    return getattr(transformers, shape.model)(getattr(transformers, shape.configuration)(**shape.config))


def tokenizer() -> Any:
    """CLIP's class with as many tokens as CLIP's own, which spells single characters."""
    return clip_tokenizer(CLIP_TOKENS)


@torch.no_grad()
def randomized(make: Callable[[], Any], device: str, dtype: torch.dtype = torch.float32) -> Any:
    """A model that never held the slow weights of its class's own beginning: normal, of the layers' usual size."""
    with torch.device("meta"):
        model: nn.Module = make()
    model = model.to(dtype).to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    for name, value in model.named_parameters():
        if value.dim() > 1:
            value.normal_(std=value[0].numel() ** -0.5, generator=generator)
        else:
            value.fill_(0.0 if name.endswith("bias") else 1.0)
    return model


def _save_text_to_image(shape: TextToImage, folder: Path, device: str) -> None:
    diffusers = library("diffusers")
    parts: dict[str, Any] = {}
    for index in range(len(shape.texts)):
        suffix = f"_{index + 1}" if index else ""
        parts[f"tokenizer{suffix}"] = tokenizer()
        parts[f"text_encoder{suffix}"] = randomized(partial(text_encoder, shape, index), device, torch.float16)
    pipeline = getattr(diffusers, shape.pipeline)(
        **parts,
        **shape.pipeline_options,
        unet=randomized(partial(denoiser, shape), device, torch.float16),
        vae=randomized(partial(autoencoder, shape), device, torch.float16),
        scheduler=scaled_linear(),
    )
    pipeline.save_pretrained(folder, variant="fp16")


def _save_depth_model(shape: DepthModel, folder: Path, device: str) -> None:
    randomized(partial(depth_estimator, shape), device).save_pretrained(folder)
    preprocessing = {"image_processor_type": "DPTImageProcessor", **shape.preprocessing}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing))


def _saved(folder: Path, save: Callable[[Path], None]) -> Path:
    """All or nothing: an interrupted writer leaves no folder of this name."""
    if not folder.exists():
        print(f"writing {folder}", flush=True)
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        save(part)
        part.rename(folder)
    return folder
