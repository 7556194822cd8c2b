"""Noise: `noisy = alpha * clean + sigma * noise`, and the timestep tables of diffusion and flow models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class NoiseSchedule:
    """alpha and sigma by integer timestep; timestep 0 is the least noisy."""

    alphas: Float[Tensor, " t"]
    sigmas: Float[Tensor, " t"]

    @classmethod
    def scaled_linear(cls, steps: int = 1000, start: float = 0.00085, end: float = 0.012) -> NoiseSchedule:
        """Stable Diffusion's variance-preserving schedule (betas linear in their square root)."""
        betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
        return cls.from_alphas_cumprod(torch.cumprod(1 - betas, 0))

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: Float[Tensor, " t"]) -> NoiseSchedule:
        """A variance-preserving schedule: alpha^2 + sigma^2 = 1 (diffusers' `scheduler.alphas_cumprod`)."""
        abar = alphas_cumprod.double()
        return cls(abar.sqrt().float(), (1 - abar).sqrt().float())

    @classmethod
    def rectified_flow(cls, steps: int = 1000, shift: float = 1.0) -> NoiseSchedule:
        """alpha = 1 - sigma, with sigma linear in the timestep, then moved towards noise by `shift` > 1.

        sigma -> shift * sigma / (1 + (shift - 1) * sigma), Stable Diffusion 3 (2403.03206, equation 23).
        """
        sigmas = torch.arange(1, steps + 1, dtype=torch.float64) / (steps + 1)
        sigmas = shift * sigmas / (1 + (shift - 1) * sigmas)
        return cls((1 - sigmas).float(), sigmas.float())

    @property
    def steps(self) -> int:
        return len(self.alphas)

    def at(self, timestep: Int64[Tensor, " b"]) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
        """(alpha, sigma), shaped to multiply images."""
        index = timestep.to(self.alphas.device)
        shape = (-1, 1, 1, 1)
        return (
            self.alphas[index].to(timestep.device).reshape(shape),
            self.sigmas[index].to(timestep.device).reshape(shape),
        )

    def add_noise(
        self, clean: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], timestep: Int64[Tensor, " b"]
    ) -> NoisySample:
        alpha, sigma = self.at(timestep)
        return NoisySample(clean, noise, timestep, alpha, sigma)

    def move(
        self, sample: NoisySample, predicted: Float[Tensor, "b c h w"], timestep: Int64[Tensor, " b"]
    ) -> NoisySample:
        """DDIM's deterministic step (2010.02502, equation 12 without noise) to another level, up or down.

        With the eps-prediction at `sample`, the picture it believes in and the noise it believes in are mixed anew:
        alpha' (noisy - sigma predicted) / alpha + sigma' predicted. For flow schedules that is Euler's step. `clean`
        stays, `noise` becomes what there is beside it. Exact if the prediction did not change on the way.
        """
        alpha, sigma = self.at(timestep)
        believed = (sample.noisy - sample.sigma * predicted) / sample.alpha
        noisy = alpha * believed + sigma * predicted
        return NoisySample(sample.clean, (noisy - alpha * sample.clean) / sigma, timestep, alpha, sigma)

    def invert(
        self,
        sample: NoisySample,
        timestep: Int64[Tensor, " b"],
        moves: int,
        predict: Callable[[NoisySample], Float[Tensor, "b c h w"]],
    ) -> NoisySample:
        """DDIM inversion: `move` from the sample's level to `timestep`, evenly in the schedule; a prediction each.

        Raises ValueError unless moves >= 1.
        """
        if moves < 1:
            raise ValueError(f"DDIM inversion takes at least one move, got {moves}")
        start = sample.timestep
        for index in range(1, moves + 1):
            sample = self.move(sample, predict(sample), start + (timestep - start) * index // moves)
        return sample


@dataclass(frozen=True)
class NoisySample:
    """One draw per image: what the prior sees is `noisy`; what control variates may use is all of it."""

    clean: Float[Tensor, "b c h w"]
    noise: Float[Tensor, "b c h w"]
    timestep: Int64[Tensor, " b"]
    alpha: Float[Tensor, "b 1 1 1"]
    sigma: Float[Tensor, "b 1 1 1"]

    @property
    def noisy(self) -> Float[Tensor, "b c h w"]:
        return self.alpha * self.clean + self.sigma * self.noise

    def __getitem__(self, rows: slice | Tensor) -> NoisySample:
        """Some of the draws, in any order and any number of times."""
        return NoisySample(self.clean[rows], self.noise[rows], self.timestep[rows], self.alpha[rows], self.sigma[rows])

    @staticmethod
    def concatenate(samples: Sequence[NoisySample]) -> NoisySample:
        """The draws of all samples, in order."""
        names = ("clean", "noise", "timestep", "alpha", "sigma")
        return NoisySample(*(torch.cat([getattr(sample, name) for sample in samples]) for name in names))
