"""Predictions of a prior for one noisy batch, by prompt."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from steindreamer.distill import NoiseRequest, NoisySample, Prior


def positive_noise(prior: Prior[Any, Any], sample: NoisySample, condition: Any) -> Tensor:
    """For the positive prompt."""
    return prior.predict_noise([NoiseRequest(sample)], condition)[0]


def noise_pair(prior: Prior[Any, Any], sample: NoisySample, condition: Any) -> tuple[Tensor, Tensor]:
    """For the positive and the negative prompt, requested together."""
    positive, negative = prior.predict_noise([NoiseRequest(sample), NoiseRequest(sample, "negative")], condition)
    return positive, negative
