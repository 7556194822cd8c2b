"""Base of control variates h = -A(clean, timestep) noise, which have zero mean for any matrix A learned from past
steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..geometry_buffers import GeometryBuffers
from ..noise.schedule import NoisySample
from .coefficients import Observation


class MatrixTerm(nn.Module, ABC):
    """A `LearningControlVariate` with the term -A noise, and -noise if no other control variate provides it."""

    def __init__(self, name: str, *, carries_noise: bool = False, noise_share: float = 1.0) -> None:
        """Create the terms.

        Args:
            carries_noise: adds the term h = -noise with initial coefficient 1, for a matrix used alone.
            noise_share: coefficient of -noise among the other terms: 1 beside SDS's, 0 if there is none (VSD).
        """
        super().__init__()
        self.name, self.carries_noise, self.noise_share = name, carries_noise, noise_share

    @property
    def names(self) -> tuple[str, ...]:
        return (f"{self.name}_noise", self.name) if self.carries_noise else (self.name,)

    @property
    def initial(self) -> tuple[float, ...]:
        return (1.0, 0.0) if self.carries_noise else (0.0,)

    @torch.no_grad()
    def terms(self, sample: NoisySample, geometry: GeometryBuffers) -> Float[Tensor, "k b c h w"]:
        product = self.product(sample)
        return torch.stack([-sample.noise, -product] if self.carries_noise else [-product])

    @abstractmethod
    def product(self, sample: NoisySample) -> Float[Tensor, "b c h w"]:
        """The product A noise; A may depend on all of `sample` except the noise."""

    @abstractmethod
    def learn(self, observation: Observation) -> None:
        """Learn from a step whose gradient has been used. Raises ValueError if it has no sample."""

    def training_batch(self, observation: Observation) -> tuple[NoisySample, Float[Tensor, "b c h w"]]:
        """The training batch: the noisy sample, and the target of A noise, eps_hat minus `noise_share` * noise."""
        sample = observation.sample
        if sample is None:
            raise ValueError(f"{self.name!r} learns from single draws: the observation has no sample")
        return sample, observation.prediction - self.noise_share * sample.noise
