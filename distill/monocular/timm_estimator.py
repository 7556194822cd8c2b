"""Depth and normals from the features of a timm backbone, fused from coarse to fine as in MiDaS (Ranftl et al. 2020).

For training on noisy pictures: it is told the noise level, and does not clamp. BatchNorm of a backbone is per picture
in evaluation mode, as loaded; everything else has statistics per picture only.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..estimator import GeometryEstimate
from ..estimator_files import EstimatorConfig, load_saved, save_half
from ..estimator_layers import (
    GROUP,
    Head,
    ResidualBlock,
    facing_camera,
    noise_embedding,
    noise_waves,
    padded,
    resized,
)
from ..torchvision_compat import prepare_torchvision


@dataclass(frozen=True)
class TimmEstimatorConfig(EstimatorConfig):
    """Raises ValueError unless every channel count is a positive multiple of 8."""

    backbone: str = "mobilenetv3_small_100"
    """A convolutional model of timm that offers `features_only`."""
    decoder_channels: int = 48
    """Of the fused features."""
    head_channels: int = 16
    """At full resolution."""
    embedding_channels: int = 32
    """Of the noise level."""
    noise_conditioned: bool = True
    """False: the noise level is ignored."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Of the backbone's input, per channel; ImageNet's statistics."""

    def __post_init__(self) -> None:
        counts = (self.decoder_channels, self.head_channels, self.embedding_channels)
        if any(count < 1 or count % GROUP for count in counts):
            raise ValueError(f"channel counts must be positive multiples of {GROUP}, got {self}")


class TimmGeometryEstimator(nn.Module):
    """Implements `GeometryEstimator` for pictures of any size. Random weights until trained or loaded.

    Raises ValueError for a backbone that timm does not have, ImportError without timm.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: TimmEstimatorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TimmEstimatorConfig()
        width, embedding = config.decoder_channels, config.embedding_channels
        self.backbone = _features(config.backbone)
        self.embed = noise_embedding(embedding)
        self.project = nn.ModuleList(nn.Conv2d(c, width, 1) for c in self.backbone.feature_info.channels())
        self.fuse = nn.ModuleList(ResidualBlock(width, embedding) for _ in self.project)
        self.head = Head(width, config.head_channels, embedding)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(config, name))[:, None, None], persistent=False)

    @property
    def stride(self) -> int:
        """Pictures are padded to a multiple of this."""
        return max(self.backbone.feature_info.reduction())

    def forward(self, image: Float[Tensor, "b 3 h w"], noise_level: Float[Tensor, " b"]) -> GeometryEstimate:
        height, width = image.shape[-2:]
        whole = padded(image, self.stride)
        embedding = self.embed(noise_waves(noise_level.to(image) * self.config.noise_conditioned))
        features = self.backbone((whole - self.mean) / self.std)
        levels = [project(x) for project, x in zip(self.project, features, strict=True)]  # from fine to coarse
        fused = torch.zeros_like(levels[-1])
        for fuse, level in zip(reversed(self.fuse), reversed(levels), strict=True):
            fused = fuse(level + resized(fused, level), embedding)
        disparity, normal = self.head(fused, 2 * whole - 1, embedding).split([1, 3], 1)
        return GeometryEstimate(disparity[..., :height, :width], facing_camera(normal[..., :height, :width]))


def load_timm_estimator(folder: Traversable) -> TimmGeometryEstimator:
    """The estimator saved in a folder, in float32, frozen, in evaluation mode.

    Raises OSError if a file is missing, ValueError if one is damaged or they do not belong together.
    """
    return load_saved(folder, TimmEstimatorConfig, TimmGeometryEstimator)


def save_timm_estimator(folder: Path, config: TimmEstimatorConfig, state: Mapping[str, Tensor]) -> None:
    """Write `config.json` and the weights in half precision (running statistics in full)."""
    save_half(folder, config, state)


def _features(name: str) -> Any:
    prepare_torchvision()
    try:
        import timm
    except ModuleNotFoundError as error:
        raise ImportError(
            f"the backbone {name} needs the package {error.name!r}: pip install 'steindreamer[estimators]'"
        ) from None
    # By name alone: timm would also follow the address of a hub or of a folder.
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        raise ValueError(f"timm has no backbone '{name}'{hint}; it has, for example, mobilenetv3_small_100")
    try:
        backbone: Any = timm.create_model(name, features_only=True, pretrained=False)
        with torch.no_grad():
            maps = backbone.eval()(torch.zeros(1, 3, 64, 96))
    except (AssertionError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"the backbone '{name}' has no feature maps at any size: {error}") from error
    if [found.shape[1] for found in maps] != backbone.feature_info.channels():
        raise ValueError(f"the backbone '{name}' does not put the channels first: use a convolutional one")
    return backbone.train()
