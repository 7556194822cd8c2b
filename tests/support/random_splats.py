"""Random Gaussians and cameras, their rendering in tests, and a scalar to differentiate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from steindreamer.representations import Cameras
from steindreamer.representations.gaussians.splatting import SplatOutput, splat

IMAGES = ("rgb", "opacity", "depth", "normal")
NAMES = ("means", "quaternions", "scales", "opacities", "colors")


def random_gaussians(count: int, seed: int = 0) -> list[Tensor]:
    """Anisotropic Gaussians in a ball of radius 0.8, about as dense as in a trained scene; some are opaque."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    means = 0.8 * directions * torch.rand(count, 1, generator=generator) ** (1 / 3)
    scales = 0.75 * max(count, 1) ** (-1 / 3) * torch.exp(0.5 * torch.randn(count, 3, generator=generator))
    opacities = torch.sigmoid(torch.randn(count, generator=generator))
    opacities[: count // 10] = 0.9995
    quaternions = torch.randn(count, 4, generator=generator)
    return [means, quaternions, scales, opacities, torch.rand(count, 3, generator=generator)]


def random_cameras(seed: int, batch: int, distance: float, height: int, width: int) -> Cameras:
    """Off-center cameras with non-square pixels."""
    generator = torch.Generator().manual_seed(seed)
    azimuth = 360 * torch.rand(batch, generator=generator)
    elevation = 180 * torch.rand(batch, generator=generator) - 90
    cameras = Cameras.orbit(azimuth, elevation, distance=distance, height=height, width=width)
    stretch = torch.ones(batch, 3, 3)
    stretch[:, 0, 0] = 0.7 + torch.rand(batch, generator=generator)
    intrinsics = cameras.intrinsics * stretch
    intrinsics[:, :2, 2] += 8 * torch.rand(batch, 2, generator=generator) - 4
    return Cameras(cameras.camera_to_world, intrinsics, height, width)


def draw(gaussians: Sequence[Tensor], cameras: Cameras, backend: str = "cpu") -> SplatOutput:
    means, quaternions, scales, opacities, colors = gaussians
    return splat(means, quaternions, scales, opacities, colors, cameras, backend=backend)


def weighted_sum(output: SplatOutput) -> Tensor:
    """A scalar that depends on every pixel of every image."""
    generator = torch.Generator().manual_seed(5)
    return torch.stack(
        [
            (getattr(output, name) * torch.randn(getattr(output, name).shape, generator=generator)).sum()
            for name in IMAGES
        ]
    ).sum()
