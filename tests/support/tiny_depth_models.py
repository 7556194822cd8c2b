"""Depth models of transformers' real classes, tiny and with random weights, saved in the hub's layout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from steindreamer.distill.third_party.torchvision_compat import prepare_torchvision

SIDE = 32
"""Pixels of the models' input."""
NECK: dict[str, Any] = {"neck_hidden_sizes": [8] * 4, "fusion_hidden_size": 8}
TRANSFORMER: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": SIDE,
}


def save_dpt(folder: Path) -> Path:
    """As Intel/dpt-large."""
    prepare_torchvision()
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    config = DPTConfig(**TRANSFORMER, **NECK, patch_size=16, backbone_out_indices=[0, 1, 2, 3])
    sizes: dict[str, Any] = {"size": {"height": SIDE, "width": SIDE}, "ensure_multiple_of": 16}
    return _save(folder, DPTForDepthEstimation(config), DPTImageProcessor(**sizes, keep_aspect_ratio=True, resample=2))


def save_hybrid_dpt(folder: Path) -> Path:
    """As Intel/dpt-hybrid-midas: a convolutional network (BiT) before the transformer."""
    prepare_torchvision()
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    backbone = {
        "model_type": "bit",
        "global_padding": "same",
        "layer_type": "bottleneck",
        "depths": [1, 1, 1],
        "embedding_size": 32,
        "hidden_sizes": [32, 32, 32],
        "num_groups": 8,
        "out_features": ["stage1", "stage2", "stage3"],
        "embedding_dynamic_padding": True,
    }
    config = DPTConfig(
        **{**TRANSFORMER, "hidden_size": 32},
        neck_hidden_sizes=[32, 32, 8, 8],
        fusion_hidden_size=8,
        patch_size=16,
        backbone_out_indices=[0, 1, 2, 3],
        is_hybrid=True,
        backbone_config=backbone,
        backbone_featmap_shape=[1, 32, 2, 2],
    )
    sizes: dict[str, Any] = {"size": {"height": SIDE, "width": SIDE}}
    return _save(folder, DPTForDepthEstimation(config), DPTImageProcessor(**sizes))


def save_depth_anything(folder: Path, *, metric: bool = False) -> Path:
    """As depth-anything/Depth-Anything-V2-Small-hf, or its metric sibling."""
    prepare_torchvision()
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessor

    stages: dict[str, Any] = {"out_indices": [1, 2, 3, 4], "reshape_hidden_states": False}
    backbone = Dinov2Config(**{**TRANSFORMER, "image_size": 28}, **stages, mlp_ratio=2, patch_size=7)
    config = DepthAnythingConfig(
        **NECK,
        backbone_config=backbone,
        patch_size=7,
        reassemble_hidden_size=16,
        head_hidden_size=8,
        depth_estimation_type="metric" if metric else "relative",
        max_depth=20 if metric else 1,
    )
    processor: Any = DPTImageProcessor(
        size={"height": 28, "width": 28},  # pyright: ignore[reportCallIssue]
        ensure_multiple_of=7,
        keep_aspect_ratio=True,
        resample=3,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    return _save(folder, DepthAnythingForDepthEstimation(config), processor)


def save_zoedepth(folder: Path, heads: int = 1) -> Path:
    """As Intel/zoedepth-nyu, with two heads as Intel/zoedepth-nyu-kitti."""
    prepare_torchvision()
    from transformers import BeitConfig, ZoeDepthConfig, ZoeDepthForDepthEstimation, ZoeDepthImageProcessor

    stages: dict[str, Any] = {"out_features": [f"stage{i}" for i in range(1, 5)], "reshape_hidden_states": False}
    backbone = BeitConfig(**TRANSFORMER, **stages, patch_size=8, use_relative_position_bias=True)
    bins = [{"name": name, "n_bins": 4, "min_depth": 0.001, "max_depth": 10.0} for name in ("nyu", "kitti")[:heads]]
    several: dict[str, Any] = {
        "num_patch_transformer_layers": 1,
        "patch_transformer_hidden_size": 8,
        "patch_transformer_intermediate_size": 16,
        "patch_transformer_num_attention_heads": 2,
    }
    config = ZoeDepthConfig(
        **NECK,
        backbone_config=backbone,
        bottleneck_features=8,
        num_relative_features=8,
        num_attractors=[4, 2, 2, 1],
        bin_embedding_dim=8,
        bin_configurations=bins,
        **(several if heads > 1 else {}),
    )
    processor: Any = ZoeDepthImageProcessor(size={"height": SIDE, "width": SIDE}, ensure_multiple_of=8)  # pyright: ignore
    return _save(folder, ZoeDepthForDepthEstimation(config), processor)


def _save(folder: Path, model: Any, processor: Any) -> Path:
    _randomize(model)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _randomize(model: nn.Module) -> None:
    """Larger than the classes' own beginning: answers must differ from pixel to pixel, and not die at the last ReLU."""
    generator = torch.Generator().manual_seed(0)
    for name, value in model.named_parameters():
        if value.dim() > 1:
            fan_in = value[0].numel()
            value.data = torch.randn(value.shape, generator=generator) * (1.5 / fan_in**0.5)
        elif name.endswith("bias"):
            value.data = 0.1 * torch.randn(value.shape, generator=generator)
    _level(
        model, [module for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and "head" in name]
    )


def _level(model: Any, convolutions: list[nn.Conv2d]) -> None:
    """Give the values before the last activation the mean 1 and the standard deviation 0.3."""
    last, outputs = convolutions[-1], []
    if last.out_channels > 1 or last.bias is None:
        return
    hook = last.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    side = getattr(model.config.backbone_config, "image_size", SIDE) if model.config.backbone_config else SIDE
    with torch.no_grad():
        model.eval()(pixel_values=torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(1)))
        hook.remove()
        scale = 0.3 / outputs[0].std()
        last.weight.mul_(scale)
        last.bias.sub_(outputs[0].mean()).mul_(scale).add_(1)
