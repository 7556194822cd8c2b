"""Stable Diffusion 2.1-base and XL, TAESD and depth models with random weights, saved as the hub has them.

The sizes are those of the config.json files of stable-diffusion-2-1-base, stable-diffusion-xl-base-1.0, taesd,
dpt-hybrid-midas and Depth-Anything-V2-Small-hf; what is left out there is left out here. Time and memory do not depend
on the weights' values. Tokenizers are CLIP's class with one token per letter.
"""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from steindreamer.distill.third_party.torchvision_compat import prepare_torchvision

SIZES = ("full", "tiny")
"""`tiny` has the same blocks with a few channels, for 64 px: to see that all runs, not to measure."""
TINY_PIXELS = 64
LATENT_SCALE = 8


@dataclass(frozen=True)
class TextToImage:
    """Keywords of the parts' classes, in diffusers and transformers."""

    pipeline: str
    unet: dict[str, Any]
    vae: dict[str, Any]
    texts: tuple[dict[str, Any], ...]
    """The last one of several has a projection."""
    pipeline_options: dict[str, Any] = field(default_factory=dict)

    def shrunk(self) -> TextToImage:
        width, time = 16, 4
        unet = {
            "sample_size": TINY_PIXELS // LATENT_SCALE,
            "block_out_channels": (width,) * len(self.unet["block_out_channels"]),
            "attention_head_dim": 2,
            "norm_num_groups": 4,
            "cross_attention_dim": width * len(self.texts),
        }
        if "addition_embed_type" in self.unet:
            unet |= {"addition_time_embed_dim": time, "projection_class_embeddings_input_dim": width + 6 * time}
        text = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
        return TextToImage(
            self.pipeline,
            self.unet | unet,
            self.vae | {"block_out_channels": (8, 8, 16, 16), "norm_num_groups": 4},
            tuple(one | text | {"projection_dim": width} for one in self.texts),
            self.pipeline_options,
        )


@dataclass(frozen=True)
class DepthModel:
    """Class and configuration in transformers, and what the image is resized to."""

    model: str
    configuration: str
    config: dict[str, Any]
    tiny: dict[str, Any]
    """What differs at the tiny size."""
    preprocessing: dict[str, Any]
    tiny_pixels: int


_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
_VIT_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
_VIT_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16}
_VIT_BIGG = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}

TEXT_TO_IMAGE = {
    "stable-diffusion-2-1-base": TextToImage(
        "StableDiffusionPipeline",
        unet={
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "attention_head_dim": (5, 10, 20, 20),
            "cross_attention_dim": 1024,
            "use_linear_projection": True,
        },
        vae=_VAE,
        texts=(_VIT_H | {"hidden_act": "gelu", "projection_dim": 512},),
        pipeline_options={"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    ),
    "stable-diffusion-xl": TextToImage(
        "StableDiffusionXLPipeline",
        unet={
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "attention_head_dim": (5, 10, 20),
            "transformer_layers_per_block": (1, 2, 10),
            "cross_attention_dim": 2048,
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        vae=_VAE | {"scaling_factor": 0.13025},
        texts=(_VIT_L | {"projection_dim": 768}, _VIT_BIGG | {"hidden_act": "gelu", "projection_dim": 1280}),
        pipeline_options={"add_watermarker": False},
    ),
}
"""By the names of docs/models.md."""

_BIT = {
    "model_type": "bit",
    "global_padding": "same",
    "layer_type": "bottleneck",
    "depths": [3, 4, 9],
    "out_features": ["stage1", "stage2", "stage3"],
    "embedding_dynamic_padding": True,
}
_DINOV2 = {
    "model_type": "dinov2",
    "hidden_size": 384,
    "num_attention_heads": 6,
    "image_size": 518,
    "patch_size": 14,
    "out_indices": [3, 6, 9, 12],
    "reshape_hidden_states": False,
}
DEPTH_MODELS = {
    "dpt-hybrid-midas": DepthModel(
        "DPTForDepthEstimation",
        "DPTConfig",
        {
            "is_hybrid": True,
            "backbone_config": _BIT,
            "neck_hidden_sizes": [256, 512, 768, 768],
            "reassemble_factors": [1, 1, 1, 0.5],
        },
        {
            "hidden_size": 32,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "image_size": 32,
            "backbone_out_indices": [0, 1, 2, 3],
            "backbone_featmap_shape": [1, 32, 2, 2],
            "backbone_config": _BIT
            | {"depths": [1, 1, 1], "embedding_size": 32, "hidden_sizes": [32, 32, 32], "num_groups": 8},
            "neck_hidden_sizes": [32, 32, 8, 8],
            "fusion_hidden_size": 8,
        },
        {"size": {"height": 384, "width": 384}, "keep_aspect_ratio": False, "ensure_multiple_of": 1, "resample": 3},
        tiny_pixels=32,
    ),
    "depth-anything-v2-small": DepthModel(
        "DepthAnythingForDepthEstimation",
        "DepthAnythingConfig",
        {
            "backbone_config": _DINOV2,
            "neck_hidden_sizes": [48, 96, 192, 384],
            "reassemble_hidden_size": 384,
            "fusion_hidden_size": 64,
        },
        {
            "backbone_config": _DINOV2
            | {
                "hidden_size": 16,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "image_size": 28,
                "out_indices": [1, 2, 3, 4],
            },
            "neck_hidden_sizes": [8] * 4,
            "reassemble_hidden_size": 16,
            "fusion_hidden_size": 8,
            "head_hidden_size": 8,
        },
        {"size": {"height": 518, "width": 518}, "keep_aspect_ratio": True, "ensure_multiple_of": 14, "resample": 3},
        tiny_pixels=28,
    ),
}


def text_to_image(work: Path, name: str, size: str, device: str) -> Path:
    """The folder of a model of `TEXT_TO_IMAGE` with half-precision weights; made on `device` unless it is there."""
    shape = TEXT_TO_IMAGE[name] if size == "full" else TEXT_TO_IMAGE[name].shrunk()
    return _saved(work / size / name, lambda folder: _save_text_to_image(shape, folder, device))


def small_decoder(work: Path, size: str, device: str) -> Path:
    """The folder of an autoencoder of TAESD's shape, in float32 as published."""
    channels, blocks = ((8,) * 4, (1,) * 4) if size == "tiny" else ((64,) * 4, (1, 3, 3, 3))
    make = partial(
        _library("diffusers").AutoencoderTiny,
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        num_encoder_blocks=blocks,
        num_decoder_blocks=blocks[::-1],
    )
    return _saved(work / size / "taesd", lambda folder: randomized(make, device).save_pretrained(folder))


def depth_model(work: Path, name: str, size: str, device: str) -> Path:
    """The folder of a model of `DEPTH_MODELS`, in float32 as published."""
    return _saved(work / size / name, lambda folder: _save_depth_model(DEPTH_MODELS[name], size, folder, device))


def denoiser(shape: TextToImage) -> Any:
    return _library("diffusers").UNet2DConditionModel(**shape.unet)


def autoencoder(shape: TextToImage) -> Any:
    return _library("diffusers").AutoencoderKL(**shape.vae)


def text_encoder(shape: TextToImage, index: int) -> Any:
    """With the vocabulary of `tokenizer`."""
    transformers, last = _library("transformers"), len(tokenizer()) - 1
    projected = index > 0
    config = transformers.CLIPTextConfig(
        **shape.texts[index], bos_token_id=last - 1, eos_token_id=last, pad_token_id=last
    )
    return (transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel)(config)


def depth_estimator(shape: DepthModel, size: str) -> Any:
    transformers = _library("transformers")
    config = getattr(transformers, shape.configuration)(**shape.config | (shape.tiny if size == "tiny" else {}))
    return getattr(transformers, shape.model)(config)


CLIP_TOKENS = 49408


def tokenizer() -> Any:
    """Spells single characters; as many tokens as CLIP's own, the others unused."""
    characters = [chr(code) for code in range(33, 127)]
    used = [*characters, *(f"{character}</w>" for character in characters)]
    unused = [chr(0x20000 + index) for index in range(CLIP_TOKENS - len(used) - 2)]
    tokens = [*used, *unused, "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return _library("transformers").CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


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
    diffusers = _library("diffusers")
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
        scheduler=diffusers.DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
    )
    pipeline.save_pretrained(folder, variant="fp16")


def _save_depth_model(shape: DepthModel, size: str, folder: Path, device: str) -> None:
    randomized(partial(depth_estimator, shape, size), device).save_pretrained(folder)
    preprocessing = {"image_processor_type": "DPTImageProcessor", **shape.preprocessing}
    if size == "tiny":
        preprocessing["size"] = {"height": shape.tiny_pixels, "width": shape.tiny_pixels}
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


def _library(name: str) -> Any:
    """diffusers or transformers, whose annotations are narrower than what they accept."""
    prepare_torchvision()
    return importlib.import_module(name)
