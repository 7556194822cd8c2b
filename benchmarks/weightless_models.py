"""Text-to-image models of full size without weights: folders of configurations, loaded on the device "meta".

Stable Diffusion 2.1-base and XL are those of random_models.py; the others' sizes are those of the config.json files of
stable-diffusion-v1-5, stable-diffusion-3-medium-diffusers, FLUX.1-dev and PixArt-XL-2-512x512. With them the numbers of
parameters come out as published: 860M, 2.0B, 11.9B and 0.6B, 4.8B for T5-XXL's encoder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from random_models import TEXT_TO_IMAGE, TextToImage
from torch import nn

from steindreamer.distill.priors.diffusion import FAMILIES, DiffusersPrior, TextRows, ViewEmbedding
from steindreamer.distill.priors.diffusion.families.base import FlowFamily

VIEW_PROMPTS = 4
WEIGHTS = {"text": "model.safetensors", "part": "diffusion_pytorch_model.safetensors"}
"""Empty files of these names: the product wants to see that weights are there."""


@dataclass(frozen=True)
class Model:
    """Keywords of the parts' classes, and the shapes of the denoiser's further inputs."""

    pipeline: str
    denoiser: dict[str, Any]
    vae: dict[str, Any]
    texts: tuple[dict[str, Any], ...]
    inputs: dict[str, tuple[int, ...]]
    """Shapes for one prompt, by name."""


_CLIP_L = TEXT_TO_IMAGE["stable-diffusion-xl"].texts[0]
_CLIP_G = TEXT_TO_IMAGE["stable-diffusion-xl"].texts[1]
_T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
_VAE_4 = TEXT_TO_IMAGE["stable-diffusion-2-1-base"].vae
_VAE_16 = _VAE_4 | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}


def _of(shape: TextToImage, inputs: dict[str, tuple[int, ...]]) -> Model:
    return Model(shape.pipeline, shape.unet, shape.vae, shape.texts, inputs)


MODELS = {
    "stable-diffusion-1-5": Model(
        "StableDiffusionPipeline",
        {
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "attention_head_dim": 8,
            "cross_attention_dim": 768,
        },
        _VAE_4,
        (_CLIP_L,),
        {"encoder_hidden_states": (77, 768)},
    ),
    "stable-diffusion-2-1-base": _of(TEXT_TO_IMAGE["stable-diffusion-2-1-base"], {"encoder_hidden_states": (77, 1024)}),
    "stable-diffusion-xl": _of(
        TEXT_TO_IMAGE["stable-diffusion-xl"], {"encoder_hidden_states": (77, 2048), "text_embeds": (1280,)}
    ),
    "stable-diffusion-3-medium": Model(
        "StableDiffusion3Pipeline",
        {
            "sample_size": 128,
            "patch_size": 2,
            "in_channels": 16,
            "out_channels": 16,
            "num_layers": 24,
            "attention_head_dim": 64,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048,
            "pos_embed_max_size": 192,
        },
        _VAE_16 | {"scaling_factor": 1.5305, "shift_factor": 0.0609},
        (_CLIP_L, _CLIP_G, _T5_XXL),
        {"encoder_hidden_states": (77 + 256, 4096), "pooled_projections": (768 + 1280,)},
    ),
    "flux-1-dev": Model(
        "FluxPipeline",
        {
            "in_channels": 64,
            "num_layers": 19,
            "num_single_layers": 38,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 4096,
            "pooled_projection_dim": 768,
            "guidance_embeds": True,
        },
        _VAE_16 | {"scaling_factor": 0.3611, "shift_factor": 0.1159},
        (_CLIP_L, _T5_XXL),
        {"encoder_hidden_states": (512, 4096), "pooled_projections": (768,)},
    ),
    "pixart-alpha-512": Model(
        "PixArtAlphaPipeline",
        {
            "sample_size": 64,
            "patch_size": 2,
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": 28,
            "attention_head_dim": 72,
            "num_attention_heads": 16,
            "cross_attention_dim": 1152,
            "caption_channels": 4096,
        },
        _VAE_4,
        (_T5_XXL,),
        {"encoder_hidden_states": (120, 4096), "encoder_attention_mask": (120,)},
    ),
}
"""By the names of docs/models.md."""


def weightless_prior(model: Model, folder: Path, **settings: Any) -> DiffusersPrior:
    """The product's own prior on the device "meta"; its configurations are written to `folder`."""
    _write(model, folder)
    with patch("steindreamer.distill.priors.diffusion.prior.load_part", _without_weights):
        prior = DiffusersPrior(str(folder), torch.device("meta"), **settings)
        prior.denoiser  # noqa: B018 - loaded when it is first asked for
    return prior


def embedding(model: Model) -> ViewEmbedding:
    """What the text encoders would answer, without values."""

    def rows(count: int) -> TextRows:
        kinds = {name: torch.bool if name.endswith("mask") else torch.float32 for name in model.inputs}
        return TextRows(
            {name: torch.empty(count, *shape, dtype=kinds[name], device="meta") for name, shape in model.inputs.items()}
        )

    return ViewEmbedding(rows(VIEW_PROMPTS), rows(1))


def _write(model: Model, folder: Path) -> None:
    family = FAMILIES[model.pipeline]
    parts = {family.denoiser: (model.denoiser, "part"), "vae": (model.vae, "part")}
    parts |= {part: (config, "text") for part, config in zip(family.text_encoders, model.texts, strict=True)}
    for part, (config, kind) in parts.items():
        _put(folder / part / "config.json", config)
        (folder / part / WEIGHTS[kind]).touch()
    for encoder in family.text_encoders.values():
        _put(folder / encoder.tokenizer_folder / "tokenizer.json", {})
    sampler = "FlowMatchEulerDiscreteScheduler" if issubclass(family, FlowFamily) else "DDPMScheduler"
    _put(folder / "scheduler" / "scheduler_config.json", {"_class_name": sampler})
    _put(folder / "model_index.json", {"_class_name": model.pipeline})


def _put(path: Path, values: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def _without_weights(model: Any, files: Any, part: str, dtype: torch.dtype = torch.float32) -> Any:
    """In place of `load_part`."""
    with torch.device("meta"):
        made = model.from_config(model.load_config(files.folder / part))
    # diffusers' own `to` warns of parts to be kept in float32, even where there are none.
    return nn.Module.to(made, dtype).eval().requires_grad_(False)
