"""A Stable Diffusion pipeline with the real classes and random weights, a thousandth of the size."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch

from steindreamer.distill.torchvision_compat import prepare_torchvision

PICTURE_SIZE = 64


def _untyped(name: str) -> Any:
    """A library whose annotations are narrower than what it accepts."""
    return importlib.import_module(name)


def save_tiny_stable_diffusion(folder: Path, prediction_type: str = "epsilon") -> Path:
    """Write it in diffusers' layout: latents of 4 x 8 x 8, a byte-level tokenizer without merges."""
    prepare_torchvision()
    diffusers, transformers = (_untyped(name) for name in ("diffusers", "transformers"))
    characters = [chr(code) for code in range(33, 127)]
    tokens = [*characters, *(f"{character}</w>" for character in characters), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=77
    )
    text_config = transformers.CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=len(tokens) - 2,
        eos_token_id=len(tokens) - 1,
        pad_token_id=len(tokens) - 1,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        parts: dict[str, Any] = {
            "tokenizer": tokenizer,
            "text_encoder": transformers.CLIPTextModel(text_config),
            "unet": diffusers.UNet2DConditionModel(
                sample_size=PICTURE_SIZE // 8,
                block_out_channels=(16, 32),
                layers_per_block=1,
                down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
                up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
                cross_attention_dim=16,
                attention_head_dim=4,
                norm_num_groups=4,
            ),
            "vae": diffusers.AutoencoderKL(
                block_out_channels=(8, 8, 16, 16),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                latent_channels=4,
                norm_num_groups=4,
                sample_size=PICTURE_SIZE,
            ),
            "scheduler": diffusers.DDIMScheduler(
                beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type=prediction_type
            ),
        }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    return folder


def edit_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
