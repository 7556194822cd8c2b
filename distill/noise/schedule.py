"""Noise schedules: `noisy = alpha * clean + sigma * noise`, with the timestep tables of diffusion and flow models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor


@dataclass(frozen=True)
class NoiseSchedule:
    """A noise schedule: tables of alpha and sigma by integer timestep; timestep 0 is the least noisy.

    Example:
        >>> from steindreamer.distill import NoiseSchedule
        >>> schedule = NoiseSchedule.rectified_flow()
        >>> schedule.steps, round(float(schedule.alphas[0] + schedule.sigmas[0]), 3)
        (1000, 1.0)
    """

    alphas: Float[Tensor, " t"]
    """Factor alpha of the clean image, by timestep."""
    sigmas: Float[Tensor, " t"]
    """Factor sigma of the noise, by timestep."""

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
        """A rectified-flow schedule, alpha = 1 - sigma with sigma linear in the timestep, shifted to noise by `shift` >
        1.

        The shift maps sigma to shift * sigma / (1 + (shift - 1) * sigma), as in Stable Diffusion 3 (2403.03206,
        equation 23).
        """
        sigmas = torch.arange(1, steps + 1, dtype=torch.float64) / (steps + 1)
        sigmas = shift * sigmas / (1 + (shift - 1) * sigmas)
        return cls((1 - sigmas).float(), sigmas.float())

    @property
    def steps(self) -> int:
        """Number of timesteps."""
        return len(self.alphas)

    def at(self, timestep: Int64[Tensor, " b"]) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
        """Look up (alpha, sigma) per image, shaped to broadcast over images."""
        index = timestep.to(self.alphas.device)
        shape = (-1, 1, 1, 1)
        return (
            self.alphas[index].to(timestep.device).reshape(shape),
            self.sigmas[index].to(timestep.device).reshape(shape),
        )

    def add_noise(
        self, clean: Float[Tensor, "b c h w"], noise: Float[Tensor, "b c h w"], timestep: Int64[Tensor, " b"]
    ) -> NoisySample:
        """The noisy sample of clean images at one timestep per image."""
        alpha, sigma = self.at(timestep)
        return NoisySample(clean, noise, timestep, alpha, sigma)

    def ddim_step(
        self, sample: NoisySample, predicted_noise: Float[Tensor, "b c h w"], timestep: Int64[Tensor, " b"]
    ) -> NoisySample:
        """A deterministic DDIM step (2010.02502, equation 12 without noise) to another timestep, up or down.

        noisy' = alpha' pred_original_sample + sigma' predicted_noise, both as predicted at `sample`. For flow
        schedules this is an Euler step. `clean` is kept, `noise` becomes (noisy' - alpha' clean) / sigma'. The step is
        exact if the prediction is constant along the way.
        """
        alpha, sigma = self.at(timestep)
        pred_original_sample = (sample.noisy - sample.sigma * predicted_noise) / sample.alpha
        noisy = alpha * pred_original_sample + sigma * predicted_noise
        return NoisySample(sample.clean, (noisy - alpha * sample.clean) / sigma, timestep, alpha, sigma)

    def ddim_inversion(
        self,
        sample: NoisySample,
        timestep: Int64[Tensor, " b"],
        steps: int,
        predict: Callable[[NoisySample], Float[Tensor, "b c h w"]],
    ) -> NoisySample:
        """DDIM inversion: `steps` of `ddim_step` from the sample's timestep to `timestep`, evenly spaced.

        `predict` is called once per step. Raises ValueError unless steps >= 1.
        """
        if steps < 1:
            raise ValueError(f"DDIM inversion takes at least one step, got {steps}")
        start = sample.timestep
        for index in range(1, steps + 1):
            sample = self.ddim_step(sample, predict(sample), start + (timestep - start) * index // steps)
        return sample


@dataclass(frozen=True, eq=False)
class NoisySample:
    """A batch of noisy images with one draw of timestep and noise each.

    Priors use `noisy` and the timestep only, control variates may use all fields. Samples are compared by identity.
    """

    clean: Float[Tensor, "b c h w"]
    """Clean images in the prior's space."""
    noise: Float[Tensor, "b c h w"]
    """Standard normal noise."""
    timestep: Int64[Tensor, " b"]
    """Timestep of each image."""
    alpha: Float[Tensor, "b 1 1 1"]
    sigma: Float[Tensor, "b 1 1 1"]

    @property
    def noisy(self) -> Float[Tensor, "b c h w"]:
        """The noisy images, `alpha * clean + sigma * noise`."""
        return self.alpha * self.clean + self.sigma * self.noise

    def __getitem__(self, rows: slice | Tensor) -> NoisySample:
        """Select draws, in any order and with repetition."""
        return NoisySample(self.clean[rows], self.noise[rows], self.timestep[rows], self.alpha[rows], self.sigma[rows])

    @staticmethod
    def concatenate(samples: Sequence[NoisySample]) -> NoisySample:
        """Concatenate the draws of all samples, in order."""
        names = ("clean", "noise", "timestep", "alpha", "sigma")
        return NoisySample(*(torch.cat([getattr(sample, name) for sample in samples]) for name in names))
