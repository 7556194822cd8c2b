"""Text-to-image models of the real classes with random weights, a thousandth of the size, in diffusers' layout."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from steindreamer.distill.priors.diffusion.camera_pipeline import CameraConditionedPipeline
from steindreamer.distill.priors.modalities import view_feature_names
from steindreamer.distill.third_party.torchvision_compat import prepare_torchvision
from steindreamer.training.prior.wording import build_tokenizer

IMAGE_SIZE = 64
LONGEST = 77


def library(name: str) -> Any:
    """A library whose annotations are narrower than what it accepts."""
    prepare_torchvision()
    return importlib.import_module(name)


def clip_tokenizer(count: int | None = None) -> Any:
    """CLIP's own class, byte-level, without merges; with `count` tokens, most of them unused, if it is given."""
    characters = [chr(code) for code in range(33, 127)]
    used = [*characters, *(f"{character}</w>" for character in characters)]
    unused = [chr(0x20000 + index) for index in range(count - len(used) - 2)] if count else []
    tokens = [*used, *unused, "<|startoftext|>", "<|endoftext|>"]
    return library("transformers").CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=LONGEST
    )


def clip(*, projected: bool = False, width: int = 16) -> Any:
    transformers = library("transformers")
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
    return library("diffusers").AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=IMAGE_SIZE,
        **config,
    )


def unet(**config: Any) -> Any:
    small = {
        "sample_size": IMAGE_SIZE // 8,
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": 16,
        "attention_head_dim": 4,
        "norm_num_groups": 4,
    }
    return library("diffusers").UNet2DConditionModel(**{**small, **config})


def t5_tokenizer() -> Any:
    """T5's own class, one token per letter."""
    letters = [(letter, -3.0) for letter in "abcdefghijklmnopqrstuvwxyz,."]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters]
    return library("transformers").T5TokenizerFast(vocab=vocabulary, extra_ids=0)


def t5(width: int = 16) -> Any:
    transformers = library("transformers")
    config = transformers.T5Config(
        vocab_size=len(t5_tokenizer()), d_model=width, d_kv=4, d_ff=16, num_layers=2, num_heads=2
    )
    return transformers.T5EncoderModel(config)


def scaled_linear(**config: Any) -> Any:
    """Stable Diffusion's noise levels."""
    return library("diffusers").DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        **config,
    )


def stable_diffusion(prediction_type: str = "epsilon") -> Any:
    return library("diffusers").StableDiffusionPipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=clip(),
        unet=unet(),
        vae=vae(),
        scheduler=scaled_linear(prediction_type=prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def latent_consistency() -> Any:
    """Stable Diffusion's parts; the denoiser is conditioned on the guidance scale."""
    parts = stable_diffusion().components
    return library("diffusers").LatentConsistencyModelPipeline(
        **{**parts, "unet": unet(time_cond_proj_dim=8)}, requires_safety_checker=False
    )


def stable_diffusion_xl(force_zeros_for_empty_prompt: bool = True) -> Any:
    return library("diffusers").StableDiffusionXLPipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=clip(),
        tokenizer_2=clip_tokenizer(),
        text_encoder_2=clip(projected=True),
        unet=unet(
            cross_attention_dim=32,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=8 + 6 * 4,
        ),
        vae=vae(scaling_factor=0.13025),
        scheduler=scaled_linear(),
        force_zeros_for_empty_prompt=force_zeros_for_empty_prompt,
        add_watermarker=False,
    )


def deepfloyd_if() -> Any:
    diffusers = library("diffusers")
    blocks = unet(
        sample_size=16,
        in_channels=3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        cross_attention_dim=32,
        encoder_hid_dim=16,
        encoder_hid_dim_type="text_proj",
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        resnet_time_scale_shift="scale_shift",
        cross_attention_norm="group_norm",
        act_fn="gelu",
    )
    return diffusers.IFPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(),
        unet=blocks,
        scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range"),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )


def stable_diffusion_3(with_t5: bool = True) -> Any:
    diffusers = library("diffusers")
    return diffusers.StableDiffusion3Pipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=clip(projected=True),
        tokenizer_2=clip_tokenizer(),
        text_encoder_2=clip(projected=True),
        tokenizer_3=t5_tokenizer() if with_t5 else None,
        text_encoder_3=t5(width=32) if with_t5 else None,
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=IMAGE_SIZE // 8,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=32,
            caption_projection_dim=16,
            pooled_projection_dim=16,
            pos_embed_max_size=8,
        ),
        vae=vae(scaling_factor=1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def flux(guidance_embeds: bool = True) -> Any:
    diffusers = library("diffusers")
    return diffusers.FluxPipeline(
        tokenizer=clip_tokenizer(),
        text_encoder=clip(),
        tokenizer_2=t5_tokenizer(),
        text_encoder_2=t5(),
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 4, 8),
        ),
        vae=vae(scaling_factor=0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )


def pixart(pipeline: str, sample_size: int) -> Any:
    diffusers = library("diffusers")
    return getattr(diffusers, pipeline)(
        tokenizer=t5_tokenizer(),
        text_encoder=t5(),
        transformer=diffusers.PixArtTransformer2DModel(
            sample_size=sample_size,
            patch_size=2,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            attention_head_dim=12,
            num_attention_heads=2,
            cross_attention_dim=24,
            caption_channels=16,
        ),
        vae=vae(scaling_factor=0.13025),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )


def pixart_alpha() -> Any:
    """Of the kind for 1024 px, which is conditioned on the image size."""
    return pixart("PixArtAlphaPipeline", 128)


def pixart_sigma() -> Any:
    return pixart("PixArtSigmaPipeline", IMAGE_SIZE // 8)


def camera_conditioned() -> Any:
    return camera_conditioned_of(("color",))


def camera_conditioned_of(modalities: Sequence[str]) -> Any:
    """As `training/prior` makes them, with the tokens of its wording."""
    features = view_feature_names(modalities)
    kinds = {"mug": ["mug", "cup"], "rocket": ["rocket", "rocket ship"], "sailboat": ["sailboat", "ship"]}
    tokenizer = build_tokenizer(sorted({"a", "red", "blurry", "mug", "cup", "rocket", "ship", "sailboat"}))
    transformers = library("transformers")
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=8,
    )
    blocks = unet(
        sample_size=4,
        in_channels=48,
        out_channels=48,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=len(features),
        resnet_time_scale_shift="scale_shift",
    )
    return CameraConditionedPipeline(
        tokenizer,
        transformers.CLIPTextModel(config),
        blocks,
        scaled_linear(prediction_type="sample"),
        patch_size=4,
        camera_features=list(features),
        kinds=kinds,
    )


PIPELINES: dict[str, Callable[..., Any]] = {
    "StableDiffusionPipeline": stable_diffusion,
    "StableDiffusionXLPipeline": stable_diffusion_xl,
    "StableDiffusion3Pipeline": stable_diffusion_3,
    "FluxPipeline": flux,
    "PixArtAlphaPipeline": pixart_alpha,
    "PixArtSigmaPipeline": pixart_sigma,
    "IFPipeline": deepfloyd_if,
    "CameraConditionedPipeline": camera_conditioned,
}
"""By the name of their family."""

OTHERS: dict[str, Callable[..., Any]] = {"LatentConsistencyModelPipeline": latent_consistency}
"""Of no family that ships."""


def save_tiny_model(folder: Path, pipeline: str = "StableDiffusionPipeline", **options: Any) -> Path:
    """Write a model of the family as the hub has it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = (PIPELINES | OTHERS)[pipeline](**options)
    made.save_pretrained(folder)
    return folder


def edit_json(path: Path, **values: Any) -> None:
    """Replace some values of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
