"""A small scene as the renderer would describe it, an exact prior and a differentiable geometry estimator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from steindreamer.distill import (
    GeometryBuffers,
    GeometryEstimate,
    GeometryEstimator,
    NoiseRequest,
    NoiseSchedule,
    NoisySample,
)

SIZE = 8


class TwoModes:
    """A `Prior` with the exact score of 0.5 N(m, s^2) + 0.5 N(-m, s^2): nonlinear, but in closed form.

    Without the prompt it is that of one Gaussian.
    """

    def __init__(self, size: int = SIZE) -> None:
        self.mode = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(7))
        self.schedule = NoiseSchedule.scaled_linear()
        self.device = torch.device("cpu")

    def embed(self, prompt: str, negative_prompt: str = "") -> None:
        return None

    def condition(self, embedding: None, cameras: object, background: Tensor) -> None:
        return None

    def encode(self, image: Tensor) -> Tensor:
        return image * 2 - 1

    def decode(self, latent: Tensor) -> Tensor:
        return (latent + 1) / 2

    def predict_noise(self, requests: Sequence[NoiseRequest], condition: None) -> list[Tensor]:
        return [
            self.positive(request.sample) if request.prompt == "positive" else self.negative(request.sample)
            for request in requests
        ]

    def positive(self, sample: NoisySample) -> Tensor:
        noisy, mode = sample.noisy, sample.alpha * self.mode
        variance = self._variance(sample)
        side = torch.tanh((noisy * mode).sum((1, 2, 3), keepdim=True) / variance)
        return sample.sigma * (noisy - mode * side) / variance

    def negative(self, sample: NoisySample) -> Tensor:
        return sample.sigma * sample.noisy / (self._variance(sample) + 0.5)

    def _variance(self, sample: NoisySample) -> Tensor:
        return sample.alpha**2 * 0.25 + sample.sigma**2


def make_estimator() -> GeometryEstimator:
    """Random weights: nothing about Stein's identity needs a good estimator."""
    generator = torch.Generator().manual_seed(3)
    first, second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
    for parameter in (*first.parameters(), *second.parameters()):
        parameter.data = 0.4 * torch.randn(parameter.shape, generator=generator)
        parameter.requires_grad_(False)

    def estimate(image: Tensor, noise_level: Tensor) -> GeometryEstimate:
        out = second(torch.tanh(first(image) + noise_level[:, None, None, None]))
        return GeometryEstimate(out[:, :1], F.normalize(out[:, 1:] - torch.tensor([0, 0, 1.0])[:, None, None], dim=1))

    return estimate


def make_geometry(batch: int, size: int = SIZE) -> GeometryBuffers:
    """A ball of radius 0.8 at distance 3, seen from +Z."""
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(-axis, axis, indexing="ij")
    inside = (x**2 + y**2 < 0.64).float()
    z = (0.64 - x**2 - y**2).clamp(min=0).sqrt()
    normal = F.normalize(torch.stack([x, y, z]), dim=0) * inside
    pose = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    pose[2, 3] = 3.0
    focal, middle = 1.5 * size, 0.5 * size
    intrinsics = torch.tensor([[focal, 0.0, middle], [0.0, focal, middle], [0.0, 0.0, 1.0]])

    def repeat(image: Tensor) -> Tensor:
        return image.expand(batch, *image.shape).clone()

    images = repeat(inside[None]), repeat(((3 - z) * inside)[None]), repeat(normal)
    return GeometryBuffers(*images, repeat(pose), repeat(intrinsics))
