"""Depth and normals from the features of a timm backbone, fused from coarse to fine as in MiDaS (Ranftl et al. 2020).

It is made for training on noisy images: it is conditioned on the noise level and does not clamp. BatchNorm layers of a
backbone are loaded in evaluation mode and therefore act per image; all other layers use statistics per image only.
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

from steindreamer.optional import needed

from ..third_party.torchvision_compat import prepare_torchvision
from .base import GeometryEstimate
from .files import EstimatorConfig, load_saved, save_half
from .layers import (
    GROUP,
    Head,
    ResidualBlock,
    facing_camera,
    noise_embedding,
    noise_waves,
    padded,
    resized,
)


@dataclass(frozen=True)
class TimmEstimatorConfig(EstimatorConfig):
    """Configuration of a `TimmGeometryEstimator`.

    Raises ValueError unless every channel count is a positive multiple of 8.
    """

    backbone: str = "mobilenetv3_small_100"
    """Name of a convolutional timm model that supports `features_only`."""
    decoder_channels: int = 48
    """Channels of the fused features."""
    head_channels: int = 16
    """Channels of the head at full resolution."""
    embedding_channels: int = 32
    """Channels of the noise-level embedding."""
    noise_conditioned: bool = True
    """Whether the estimator is conditioned on the noise level; False: it is ignored."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Standard deviation of the backbone's input per channel; by default ImageNet's."""

    def __post_init__(self) -> None:
        counts = (self.decoder_channels, self.head_channels, self.embedding_channels)
        if any(count < 1 or count % GROUP for count in counts):
            raise ValueError(f"channel counts must be positive multiples of {GROUP}, got {self}")


class TimmGeometryEstimator(nn.Module):
    """A `GeometryEstimator` for images of any size; weights are random until trained or loaded.

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
        """Padding multiple: image height and width are padded to multiples of it."""
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
    """Load an estimator saved in a folder, in float32, frozen, in evaluation mode.

    Raises OSError if a file is missing, ValueError if one is damaged or they do not belong together.
    """
    return load_saved(folder, TimmEstimatorConfig, TimmGeometryEstimator)


def save_timm_estimator(folder: Path, config: TimmEstimatorConfig, state: Mapping[str, Tensor]) -> None:
    """Write `config.json` and the weights in half precision (running statistics in float32)."""
    save_half(folder, config, state)


def _features(name: str) -> Any:
    prepare_torchvision()
    timm = needed("timm", f"the backbone {name}", "estimators")
    # Names only: timm would also load from a hub or folder address.
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
