"""A plugin whose components are sound; `test_faulty_plugins.py` puts others of the same names behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from steindreamer.distill import (
    Draw,
    Estimate,
    GeometryBuffers,
    NoiseLevel,
    NoiseRequest,
    NoiseSchedule,
    Residual,
    ResidualConfig,
    register_control_variate,
    register_method,
)
from steindreamer.pipelines import register_prior


class Gray:
    """Believes in gray."""

    schedule = NoiseSchedule.scaled_linear()
    device: Any = torch.device("cpu")
    calls = 0

    def embed(self, prompt: str, negative_prompt: str = "") -> Any:
        return None

    def condition(self, embedding: Any, cameras: Any, background: Tensor) -> Any:
        return None

    def encode(self, image: Tensor) -> Any:
        return image * 2 - 1

    def decode(self, latent: Tensor) -> Tensor:
        return latent / 2 + 0.5

    def predict_noise(self, requests: Sequence[NoiseRequest], condition: Any) -> Any:
        self.calls += 1
        return [self.answer(request.sample.noisy / request.sample.sigma) for request in requests]

    def answer(self, noise: Tensor) -> Any:
        return noise


@dataclass
class GrayConfig:
    def build(self, device: torch.device) -> Any:
        del device
        return Gray()


class Half(Residual):
    calls = 0

    def __call__(self, draw: Draw) -> Any:
        self.calls += 1
        return self.estimate(draw.predict("positive")[0] / 2)

    def estimate(self, value: Tensor) -> Any:
        return Estimate(value, value)


@dataclass
class HalfConfig(ResidualConfig):
    def residual(self) -> Any:
        return Half()


def own(noisy: Tensor, level: NoiseLevel, geometry: GeometryBuffers) -> Any:
    return -torch.sigmoid(noisy.mean((1, 2, 3)))


register_prior("gray", GrayConfig)
register_method("half", HalfConfig)


@register_control_variate("own")
def current(noisy: Tensor, level: NoiseLevel, geometry: GeometryBuffers) -> Any:
    """What has the name `own` by now."""
    return own(noisy, level, geometry)
