"""Sizes of published text-to-image and depth models: those of their config.json files.

Text-to-image: stable-diffusion-v1-5, stable-diffusion-2-1-base, stable-diffusion-xl-base-1.0,
stable-diffusion-3-medium-diffusers, FLUX.1-dev and PixArt-XL-2-512x512. Depth: dpt-hybrid-midas and
Depth-Anything-V2-Small-hf. What is left out there is left out here. The numbers of parameters come out as published.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TextToImage:
    """Keywords of the parts' classes in diffusers and transformers, and the shapes of the denoiser's inputs."""

    pipeline: str
    denoiser: dict[str, Any]
    vae: dict[str, Any]
    texts: tuple[dict[str, Any], ...]
    inputs: dict[str, tuple[int, ...]]
    """Shapes of the denoiser's further inputs for one prompt, by name."""
    pipeline_options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DepthModel:
    """Class and configuration in transformers, and what the image is resized to."""

    model: str
    configuration: str
    config: dict[str, Any]
    preprocessing: dict[str, Any]


_VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
_CLIP_L = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
_CLIP_H = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
}
_CLIP_G = {
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
_T5_XXL = {
    "vocab_size": 32128,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
}
_VAE_16 = _VAE | {"latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False}


TEXT_TO_IMAGE = {
    "stable-diffusion-1-5": TextToImage(
        "StableDiffusionPipeline",
        {
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "attention_head_dim": 8,
            "cross_attention_dim": 768,
        },
        _VAE,
        (_CLIP_L,),
        {"encoder_hidden_states": (77, 768)},
    ),
    "stable-diffusion-2-1-base": TextToImage(
        "StableDiffusionPipeline",
        {
            "sample_size": 64,
            "block_out_channels": (320, 640, 1280, 1280),
            "attention_head_dim": (5, 10, 20, 20),
            "cross_attention_dim": 1024,
            "use_linear_projection": True,
        },
        _VAE,
        (_CLIP_H,),
        {"encoder_hidden_states": (77, 1024)},
        {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False},
    ),
    "stable-diffusion-xl": TextToImage(
        "StableDiffusionXLPipeline",
        {
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
        _VAE | {"scaling_factor": 0.13025},
        (_CLIP_L, _CLIP_G),
        {"encoder_hidden_states": (77, 2048), "text_embeds": (1280,)},
        {"add_watermarker": False},
    ),
    "stable-diffusion-3-medium": TextToImage(
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
    "flux-1-dev": TextToImage(
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
    "pixart-alpha-512": TextToImage(
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
        _VAE,
        (_T5_XXL,),
        {"encoder_hidden_states": (120, 4096), "encoder_attention_mask": (120,)},
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
        {"size": {"height": 384, "width": 384}, "keep_aspect_ratio": False, "ensure_multiple_of": 1, "resample": 3},
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
        {"size": {"height": 518, "width": 518}, "keep_aspect_ratio": True, "ensure_multiple_of": 14, "resample": 3},
    ),
}
