"""A low-rank control variate learned during the run: one matrix per range of timesteps, shared by all images.

    h = -A_t noise,     A_t = sum_jk  v_j M_jk <v_k, noise>

A gain per frequency treats all pixels and channels alike. A prior's prediction also varies with the noise along a few
image directions (toward one mode or another). The v_k are these directions: the leading principal directions of past
residuals, over all pixels and channels together. M is the symmetrized ridge regression of the residual's coordinates on
the noise's: to first order the noise acts on the residual by a covariance (Tweedie's formula, applied twice: Efron
2011).

Past steps are kept as sums only. Principal directions are updated one image at a time, with the mean removed (Ross et
al. 2008, "Incremental learning for robust visual tracking", section 3.1); sums over past coordinates are rotated with
them.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..noise.schedule import NoisySample
from .coefficients import Observation
from .matrix import MatrixTerm

NEGLIGIBLE = 1e-10
"""Directions with less than this fraction of the strongest one's energy are treated as rounding errors."""


class LowRankTerm(MatrixTerm):
    """The control variate h = -A noise, with A of rank `rank` in each of `bins` equal ranges of the schedule.

    It is zero before the first steps. The state is (rank + 1) float32 images per range, which checkpoints contain as
    well: with the defaults 13 MB for latents of 4x64x64, 50 MB for images of 3x144x144. A change of the image size
    resets it.
    """

    def __init__(
        self,
        steps: int,
        bins: int = 8,
        *,
        rank: int = 24,
        ridge: float = 20.0,
        decay: float = 0.999,
        carries_noise: bool = False,
        noise_share: float = 1.0,
    ) -> None:
        """Create a term without data.

        Args:
            steps: number of timesteps of the schedule.
            ridge: pseudo-observations per range in which the residual does not depend on the noise.
            decay: exponential forgetting, per image observed in a range.
            carries_noise: see `MatrixTerm`.
            noise_share: see `MatrixTerm`.

        Raises ValueError for values out of range.
        """
        super().__init__("low_rank", carries_noise=carries_noise, noise_share=noise_share)
        if bins < 1 or rank < 1 or ridge <= 0 or not 0 < decay <= 1:
            raise ValueError(
                "a low-rank term needs bins >= 1, rank >= 1, ridge > 0 and 0 < decay <= 1, "
                f"got {bins}, {rank}, {ridge}, {decay}"
            )
        self.steps, self.bins, self.rank, self.ridge, self.decay = steps, bins, rank, ridge, decay
        for name in ("count", "mean", "directions", "energy", "noise_noise", "noise_residual"):
            self.register_buffer(name, torch.empty(0))
        self.count: Tensor
        """[bins], decayed number of images."""
        self.mean: Tensor
        """[bins, c, h, w], of the residuals."""
        self.directions: Tensor
        """[bins, rank, c, h, w], orthonormal, the strongest first; zero while there are fewer."""
        self.energy: Tensor
        """[bins, rank]: sum of squares of the residuals along them."""
        self.noise_noise: Tensor
        """[bins, rank, rank]: sums of products of the noise's coordinates,"""
        self.noise_residual: Tensor
        """and of the noise's (rows) with the residual's (columns)."""
        self._begin(torch.zeros(0, 0, 0))

    def product(self, sample: NoisySample) -> Float[Tensor, "b c h w"]:
        noise = sample.noise
        if self.mean.shape[1:] != noise.shape[1:]:
            return torch.zeros_like(noise)
        bin = self._bin(sample.timestep)
        directions = self.directions[bin].flatten(2)
        coordinates = directions @ noise.flatten(1)[..., None]
        return (directions.mT @ (self._matrix()[bin].float() @ coordinates)).view_as(noise)

    @torch.no_grad()
    def learn(self, observation: Observation) -> None:
        """Update the directions and the sums; an image whose residual is not finite is ignored."""
        sample, residual = self.training_batch(observation)
        if self.mean.shape[1:] != residual.shape[1:]:
            self._begin(residual[0])
        noise, residual = (observation.weight * each.float() for each in (sample.noise, residual))
        for bin, one, other in zip(self._bin(sample.timestep).tolist(), noise, residual, strict=True):
            if other.isfinite().all():
                self._observe(bin, one.flatten().double(), other)

    def _begin(self, image: Float[Tensor, "c h w"]) -> None:
        """Reset the state for images of this shape."""
        bins, rank = self.bins, self.rank
        self.count = torch.zeros(bins, dtype=torch.float64, device=image.device)
        self.mean = torch.zeros(bins, *image.shape, device=image.device)
        self.directions = torch.zeros(bins, rank, *image.shape, device=image.device)
        self.energy = self.count.new_zeros(bins, rank)
        self.noise_noise = self.count.new_zeros(bins, rank, rank)
        self.noise_residual = self.count.new_zeros(bins, rank, rank)

    def _observe(self, bin: int, noise: Float[Tensor, " n"], residual: Float[Tensor, "c h w"]) -> None:
        count = self.count[bin].clone()
        surprise = residual - self.mean[bin]
        self.mean[bin] += (surprise / (count + 1)).float()
        self.count[bin] = self.decay * count + 1
        # Scaled so that its square is the image's contribution to the scatter around the running mean.
        centered = (surprise * (count / (count + 1)).sqrt()).flatten().double()
        directions = self._turn(bin, centered)
        of_noise, of_residual = directions @ noise, directions @ centered
        self.noise_noise[bin] = self.decay * self.noise_noise[bin] + of_noise[:, None] * of_noise
        self.noise_residual[bin] = self.decay * self.noise_residual[bin] + of_noise[:, None] * of_residual

    def _turn(self, bin: int, centered: Float[Tensor, " n"]) -> Float[Tensor, "r n"]:
        """Update the principal directions with one more residual, and rotate the sums' coordinates with them."""
        old = self.directions[bin].flatten(1).double()
        rows = torch.cat([(self.decay * self.energy[bin]).sqrt()[:, None] * old, centered[None]])
        energy, mixing = torch.linalg.eigh(rows @ rows.T)
        energy, mixing = energy.flip(0)[: self.rank], mixing.flip(1)[:, : self.rank]
        energy = torch.where(energy > NEGLIGIBLE * energy[0], energy, 0.0)
        new = torch.where(energy > 0, energy.rsqrt(), 0.0)[:, None] * (mixing.T @ rows)
        turn = new @ old.T
        for sums in (self.noise_noise, self.noise_residual):
            sums[bin] = turn @ sums[bin] @ turn.T
        self.energy[bin] = energy
        self.directions[bin] = new.view_as(self.directions[bin]).float()
        return new

    def _matrix(self) -> Float[Tensor, "bins r r"]:
        """The matrix M of every range."""
        power = self.noise_noise.diagonal(dim1=-2, dim2=-1)
        pull = self.ridge * power.mean(1) / self.count.clamp(min=1)
        ridge = torch.where(pull > 0, pull, 1.0)[:, None].expand_as(power)
        matrix = torch.linalg.solve_ex(self.noise_noise + torch.diag_embed(ridge), self.noise_residual)[0]
        return (matrix + matrix.mT) / 2

    def _bin(self, timestep: Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
        return timestep * self.bins // self.steps

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        stored = state_dict.get(f"{prefix}mean")
        if stored is not None:
            self._begin(stored[0].to(self.count.device))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
