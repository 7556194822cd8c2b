"""Priors that count the requested noise predictions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic

import torch
from jaxtyping import Float
from torch import Tensor

from ..noise.schedule import NoiseSchedule, NoisySample
from .base import CameraBatch, Condition, Denoiser, Embedding, LoRAPrediction, LoRAPrior, NoiseRequest, Prior
from .modalities import condition, known_modalities, knows_parts_of_images


class CountingPrior(Generic[Embedding, Condition]):
    """A `Prior` that forwards all calls to another one and counts predictions, one per image and prompt."""

    def __init__(self, prior: Prior[Embedding, Condition]) -> None:
        self.prior = prior
        self.calls: list[int] = []
        """Predictions of each call, in order."""

    @property
    def predictions(self) -> int:
        """Number of predictions so far."""
        return sum(self.calls)

    @property
    def schedule(self) -> NoiseSchedule:
        return self.prior.schedule

    @property
    def device(self) -> torch.device:
        return self.prior.device

    def embed(self, prompt: str, negative_prompt: str = "") -> Embedding:
        return self.prior.embed(prompt, negative_prompt)

    @property
    def modalities(self) -> tuple[str, ...]:
        return known_modalities(self.prior)

    @property
    def crops(self) -> bool:
        return knows_parts_of_images(self.prior)

    def condition(
        self, embedding: Embedding, cameras: CameraBatch, background: Float[Tensor, "b 3"], modality: str = "color"
    ) -> Condition:
        return condition(self.prior, embedding, cameras, background, modality)

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c hl wl"]:
        return self.prior.encode(image)

    def decode(self, latent: Float[Tensor, "b c hl wl"]) -> Float[Tensor, "b 3 h w"]:
        return self.prior.decode(latent)

    def predict_noise(
        self, requests: Sequence[NoiseRequest], condition: Condition
    ) -> Sequence[Float[Tensor, "b c h w"]]:
        self.calls.append(sum(len(request.sample.timestep) for request in requests))
        return self.prior.predict_noise(requests, condition)


class CountingLoRAPrior(CountingPrior[Embedding, Condition], Generic[Embedding, Condition, Denoiser]):
    """A `CountingPrior` around a `LoRAPrior`; the LoRA denoiser's predictions count as well."""

    prior: LoRAPrior[Embedding, Condition, Denoiser]

    def lora_denoiser(self, rank: int, *, camera: bool, generator: torch.Generator) -> Denoiser:
        return self.prior.lora_denoiser(rank, camera=camera, generator=generator)

    def predict_lora(
        self,
        denoiser: Denoiser,
        sample: NoisySample,
        condition: Condition,
        camera: Float[Tensor, "b 4 4"] | None,
    ) -> LoRAPrediction:
        self.calls.append(len(sample.timestep))
        return self.prior.predict_lora(denoiser, sample, condition, camera)


def counting(prior: Prior[Embedding, Condition]) -> CountingPrior[Embedding, Condition]:
    """Wrap the prior in a counter; a `LoRAPrior` stays one."""
    wrapper: Any = CountingLoRAPrior if isinstance(prior, LoRAPrior) else CountingPrior
    return wrapper(prior)
