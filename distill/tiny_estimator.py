"""A small monocular depth and normal estimator for noisy pictures, and how it is loaded.

A U-Net on pixel-unshuffled input, conditioned on the noise level by FiLM (Perez et al. 2018). Everything in it is
smooth, and the only statistics are per picture (GroupNorm): Stein's identity holds for baselines built on it.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from .estimator import GeometryEstimate

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_GROUP = 8
_WAVES = 8


@dataclass(frozen=True)
class TinyEstimatorConfig:
    """Raises ValueError unless every channel count is a positive multiple of 8."""

    channels: tuple[int, ...] = (24, 48, 80, 112)
    """Of the levels, at 1/2, 1/4, 1/8, ... of the picture's size."""
    head_channels: int = 16
    """At full resolution."""
    embedding_channels: int = 32
    """Of the noise level."""

    def __post_init__(self) -> None:
        counts = (*self.channels, self.head_channels, self.embedding_channels)
        if not self.channels or any(count < 1 or count % _GROUP for count in counts):
            raise ValueError(f"channel counts must be positive multiples of {_GROUP}, got {self}")

    @classmethod
    def from_json(cls, text: str | bytes) -> TinyEstimatorConfig:
        """Raises ValueError for anything but a JSON object with exactly these fields."""
        fields = json.loads(text)
        if not isinstance(fields, dict) or fields.keys() != cls.__dataclass_fields__.keys():
            raise ValueError(
                f"expected a JSON object with the keys {', '.join(cls.__dataclass_fields__)}, got {fields}"
            )
        return cls(**{**fields, "channels": tuple(fields["channels"])})

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


class TinyGeometryEstimator(nn.Module):
    """Implements `GeometryEstimator` for pictures of any size; trained at 64 and 128 pixels.

    `disparity` is about 0 on the background and grows towards the camera, about 1 at the near end of the unit ball.
    """

    def __init__(self, config: TinyEstimatorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or TinyEstimatorConfig()
        channels, embedding = config.channels, config.embedding_channels
        pairs = list(itertools.pairwise(channels))
        self.embed = nn.Sequential(
            nn.Linear(2 * _WAVES, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        self.stem = nn.Conv2d(12, channels[0], 3, padding=1)
        self.encoder = nn.ModuleList(ResidualBlock(width, embedding) for width in channels)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairs)
        self.middle = ResidualBlock(channels[-1], embedding)
        self.up = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairs)
        self.decoder = nn.ModuleList(ResidualBlock(width, embedding) for width in channels[:-1])
        self.head = Head(channels[0], config.head_channels, embedding)

    @property
    def stride(self) -> int:
        """Pictures are padded to a multiple of this."""
        return 2 ** len(self.config.channels)

    def forward(self, image: Float[Tensor, "b 3 h w"], noise_level: Float[Tensor, " b"]) -> GeometryEstimate:
        height, width = image.shape[-2:]
        centred = _padded(2 * image - 1, self.stride)
        embedding = self.embed(_waves(noise_level.to(image)))
        features = self.stem(F.pixel_unshuffle(centred, 2))
        skips = []
        for level, block in enumerate(self.encoder):
            features = block(self.down[level - 1](features) if level else features, embedding)
            skips.append(features)
        features = self.middle(features, embedding)
        for level in reversed(range(len(self.decoder))):
            features = self.decoder[level](_doubled(self.up[level](features)) + skips[level], embedding)
        disparity, normal = self.head(features, centred, embedding).split([1, 3], 1)
        return GeometryEstimate(disparity[..., :height, :width], _facing_camera(normal[..., :height, :width]))


class ResidualBlock(nn.Module):
    """x + conv(silu(film(norm(conv(silu(norm(x)))))))."""

    def __init__(self, channels: int, embedding_channels: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.GroupNorm(channels // _GROUP, channels) for _ in range(2))
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
        self.film = nn.Linear(embedding_channels, 2 * channels)

    def forward(self, x: Float[Tensor, "b c h w"], embedding: Float[Tensor, "b e"]) -> Float[Tensor, "b c h w"]:
        hidden = self.convolutions[0](F.silu(self.norms[0](x)))
        hidden = _modulated(self.norms[1](hidden), self.film(embedding))
        return x + self.convolutions[1](F.silu(hidden))


class Head(nn.Module):
    """Full resolution. Features come by bilinear interpolation: pixel shuffling would leave a checkerboard."""

    def __init__(self, channels: int, head_channels: int, embedding_channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(channels // _GROUP, channels)
        self.reduce = nn.Conv2d(channels, head_channels, 3, padding=1)
        self.mix = nn.Conv2d(head_channels + 3, head_channels, 3, padding=1)
        self.film = nn.Linear(embedding_channels, 2 * head_channels)
        self.out = nn.Conv2d(head_channels, 4, 3, padding=1)

    def forward(
        self,
        features: Float[Tensor, "b c half_h half_w"],
        image: Float[Tensor, "b 3 h w"],
        embedding: Float[Tensor, "b e"],
    ) -> Float[Tensor, "b 4 h w"]:
        reduced = _doubled(self.reduce(F.silu(self.norm(features))))
        mixed = self.mix(torch.cat([reduced, image], 1))
        return self.out(F.silu(_modulated(mixed, self.film(embedding))))


def load_tiny_estimator(folder: Traversable) -> TinyGeometryEstimator:
    """The estimator saved in a folder, in float32, frozen.

    Raises OSError if a file is missing, ValueError if one is damaged or they do not belong together.
    """
    try:
        model = TinyGeometryEstimator(TinyEstimatorConfig.from_json(folder.joinpath(CONFIG_FILE).read_bytes()))
        tensors = load(folder.joinpath(WEIGHTS_FILE).read_bytes())
        model.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    except (SafetensorError, RuntimeError, TypeError) as error:
        raise ValueError(f"not a geometry estimator: {error}") from error
    # Channels last: a quarter faster on the CPU.
    return model.to(memory_format=torch.channels_last).requires_grad_(False).eval()  # pyright: ignore[reportCallIssue]


def save_tiny_estimator(folder: Path, config: TinyEstimatorConfig, state: Mapping[str, Tensor]) -> None:
    """Write `config.json` and the weights in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG_FILE).write_text(config.to_json())
    (folder / WEIGHTS_FILE).write_bytes(save({name: tensor.half().contiguous() for name, tensor in state.items()}))


def _waves(noise_level: Float[Tensor, " b"]) -> Float[Tensor, "b waves"]:
    """Cosines and sines of the noise level, from half a period over [0, 1] upwards."""
    harmonics = torch.arange(1, _WAVES + 1, device=noise_level.device, dtype=noise_level.dtype)
    phase = 0.5 * math.pi * noise_level[:, None] * harmonics
    return torch.cat([phase.cos(), phase.sin()], 1)


def _modulated(x: Float[Tensor, "b c h w"], film: Float[Tensor, "b c2"]) -> Float[Tensor, "b c h w"]:
    scale, shift = film[:, :, None, None].chunk(2, 1)
    return x * (1 + scale) + shift


def _doubled(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _padded(image: Float[Tensor, "b 3 h w"], multiple: int) -> Float[Tensor, "b 3 hp wp"]:
    bottom, right = (-size % multiple for size in image.shape[-2:])
    return F.pad(image, (0, right, 0, bottom), mode="replicate") if bottom or right else image


def _facing_camera(raw: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Any vectors to unit vectors with z < 0, smoothly."""
    x, y, z = raw.split(1, 1)
    facing = torch.cat([x, y, -F.softplus(z) - 1e-2], 1)
    return facing * facing.square().sum(1, keepdim=True).rsqrt()
