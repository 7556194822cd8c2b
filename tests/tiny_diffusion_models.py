"""Text-to-image models of the real classes with random weights, a thousandth of the size, in diffusers' layout."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from steindreamer.distill.torchvision_compat import prepare_torchvision

PICTURE_SIZE = 64
LONGEST = 77


def _untyped(name: str) -> Any:
    """A library whose annotations are narrower than what it accepts."""
    prepare_torchvision()
    return importlib.import_module(name)


def clip_tokenizer() -> Any:
    """CLIP's own class, byte-level, without merges."""
    characters = [chr(code) for code in range(33, 127)]
    tokens = [*characters, *(f"{character}</w>" for character in characters), "<|startoftext|>", "<|endoftext|>"]
    return _untyped("transformers").CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=LONGEST
    )


def clip(*, projected: bool = False, width: int = 16) -> Any:
    transformers = _untyped("transformers")
    size = len(clip_tokenizer())
    config = transformers.CLIPTextConfig(
        vocab_size=size,
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LONGEST,
        bos_token_id=size - 2,
        eos_token_id=size - 1,
        pad_token_id=size - 1,
        projection_dim=8,
    )
    return (transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel)(config)


def vae(channels: int = 4, **config: Any) -> Any:
    return _untyped("diffusers").AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=PICTURE_SIZE,
        **config,
    )


def unet(**config: Any) -> Any:
    small = {
        "sample_size": PICTURE_SIZE // 8,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
    }
    return _untyped("diffusers").UNet2DConditionModel(**{**small, **config})


def stable_diffusion(prediction_type: str = "epsilon") -> Any:
    diffusers = _untyped("diffusers")
    return diffusers.StableDiffusionPipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=clip(),
        unet=unet(),
        vae=vae(),
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
            prediction_type=prediction_type,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


PIPELINES: dict[str, Callable[[], Any]] = {"StableDiffusionPipeline": stable_diffusion}
"""By the name of their family."""


def save_tiny_model(folder: Path, pipeline: str = "StableDiffusionPipeline", **options: Any) -> Path:
    """Write a model of the family as the hub has it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = PIPELINES[pipeline](**options)
    made.save_pretrained(folder)
    return folder


def edit_json(path: Path, **values: Any) -> None:
    """Replace some values of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
