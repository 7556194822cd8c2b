"""A learned control variate: a small network whose output is odd in the noise, trained during the run.

Given image and noise level, the noise has the same density as its negative, so any odd function of it has zero mean:

    h(noise) = -h(-noise)    =>    E[h | clean, timestep] = 0,

for any weights that were trained on past steps only. It needs no gradient of a baseline and no further call of the
prior. The optimal odd h removes the same variance as antithetic noise, with one call of the prior instead of two.

To first order the residual of a denoiser depends on the noise as -(alpha / sigma)^2 Cov[x0 | noisy] noise (Tweedie's
formula, applied twice: Efron 2011). This posterior covariance is symmetric and differs between images and noise levels.
The learned control variate is therefore a symmetric matrix, linear in the noise: Stein's identity with A(clean, t) in
place of phi, E[A noise] = 0. A small convolutional network predicts its factors:

    h = sum_windows sum_k d_k(t) phi_k <phi_k, noise>_window,     phi = network(clean, t),

with inner products over windows of several sizes, up to the whole image. d is initialized with zero, hence h is zero.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from ..files.optimizer_state import load_optimizer, save_optimizer
from ..noise.schedule import NoisySample
from .coefficients import Observation
from .matrix import MatrixTerm

PATCH = 2
"""Side in pixels of the patches on which the learned control variate operates."""
WINDOWS = (0, 8, 4, 2)
"""Window sides in patches; 0 is the whole image."""
LEVEL_FEATURES = 16
WARM_UP = 20
"""Number of steps of the learning-rate warm-up."""


class SymmetricOperator(nn.Module):
    """A symmetric matrix A(clean, level), applied to noise, and an additional image m(clean, level)."""

    def __init__(self, channels: int, features: int, heads: int) -> None:
        super().__init__()
        self.channels, self.heads = channels, heads
        inside = channels * PATCH**2
        self.first = nn.Conv2d(inside, features, 3, padding=1)
        self.down = nn.ModuleList(nn.Conv2d(features, features, 3, 2, 1) for _ in range(2))
        self.up = nn.ModuleList(nn.Conv2d(features, features, 3, padding=1) for _ in range(2))
        self.level = nn.Linear(LEVEL_FEATURES, 5 * features)
        self.factors = nn.Conv2d(features + inside, len(WINDOWS) * heads * inside, 1)
        self.strengths = nn.Linear(LEVEL_FEATURES, len(WINDOWS) * heads)
        self.mean = nn.Conv2d(features, inside, 1)
        for layer in (self.level, self.strengths, self.mean):
            for parameter in layer.parameters():
                nn.init.zeros_(parameter)

    def forward(
        self, clean: Float[Tensor, "b c h w"], angle: Float[Tensor, " b"], noise: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b c h w"], Float[Tensor, "b c h w"]]:
        """The product A noise and the image m; `angle` is 0 without noise and 1 for pure noise."""
        size = clean.shape[-2:]
        level = _level_features(angle)
        patches = _patches(clean, "replicate")
        features = self._features(patches, level)
        factors = self.factors(torch.cat([features, patches], 1))
        odd = self._multiply(factors, self.strengths(level), _patches(noise, "constant"))
        return _pixels(odd, size), _pixels(self.mean(features), size)

    def _features(
        self, patches: Float[Tensor, "b p h w"], level: Float[Tensor, "b l"]
    ) -> Float[Tensor, "b features h w"]:
        shifts = iter(self.level(level)[:, :, None, None].chunk(5, 1))

        def activated(value: Tensor) -> Tensor:
            return F.silu(F.group_norm(value, 4) + next(shifts))

        fine = activated(self.first(patches))
        middle = activated(self.down[0](fine))
        coarse = activated(self.down[1](middle))
        middle = activated(self.up[0](middle + F.interpolate(coarse, middle.shape[-2:])))
        return activated(self.up[1](fine + F.interpolate(middle, fine.shape[-2:])))

    def _multiply(
        self, factors: Float[Tensor, "b f h w"], strengths: Float[Tensor, "b k"], noise: Float[Tensor, "b p h w"]
    ) -> Float[Tensor, "b p h w"]:
        size = noise.shape[-2:]
        phi = factors.unflatten(1, (-1, noise.shape[1]))
        # Normalized to mean square 1, so that a strength is an eigenvalue of order 1, independent of the image size.
        phi = phi * torch.rsqrt(phi.square().mean((2, 3, 4), keepdim=True) + 1e-12)
        products = (phi * noise[:, None]).mean(2) * strengths[:, :, None, None]
        within = [
            F.interpolate(F.avg_pool2d(each, window or size), size)
            for each, window in zip(products.split(self.heads, 1), WINDOWS, strict=True)
        ]
        return (phi * torch.cat(within, 1)[:, :, None]).sum(1)


class LearnedTerm(MatrixTerm):
    """The learned control variate h = -A(clean, timestep) noise.

    A is trained on past steps to predict the part of eps_hat that remains after `noise_share` * noise is subtracted.
    The state is the weights and the optimizer's moments. There are no weights before the first step, which determines
    the number of channels. Each step is used for training once; repeating past steps made no measurable difference.
    """

    def __init__(
        self,
        *,
        carries_noise: bool = False,
        noise_share: float = 1.0,
        features: int = 32,
        heads: int = 16,
        learning_rate: float = 3e-3,
    ) -> None:
        """Create a term without weights.

        Args:
            carries_noise: see `MatrixTerm`.
            noise_share: see `MatrixTerm`.
            features: channels of the network.
            heads: factors per window size.
            learning_rate: final learning rate, after the warm-up.

        Raises ValueError for values out of range.
        """
        super().__init__("learned", carries_noise=carries_noise, noise_share=noise_share)
        if features < 1 or features % 4 or heads < 1 or learning_rate <= 0:
            raise ValueError(
                "the learned control variate needs features (a multiple of 4), heads and a learning rate > 0, "
                f"got {features}, {heads}, {learning_rate}"
            )
        self.features, self.heads, self.learning_rate = features, heads, learning_rate
        self.network: SymmetricOperator | None = None
        self.optimizer: torch.optim.AdamW | None = None
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self.updates: Tensor
        """Steps learned from."""

    def product(self, sample: NoisySample) -> Float[Tensor, "b c h w"]:
        if self.network is None:
            return torch.zeros_like(sample.noise)
        return self.network(sample.clean, _angle(sample), sample.noise)[0]

    @torch.enable_grad()
    def learn(self, observation: Observation) -> None:
        """Train on a step whose gradient has been used. A step whose error is not finite is ignored."""
        weight = observation.weight
        sample, residual = self.training_batch(observation)
        target = weight * residual
        if not target.isfinite().all():
            return
        if self.network is None:
            self._begin(target.shape[1], target.device)
        assert self.network is not None and self.optimizer is not None
        odd, even = self.network(sample.clean, _angle(sample), sample.noise)
        # The even part is fitted but not used: it removes variance from the regression of the odd part.
        error = (weight * (odd + even) - target).square().mean()
        (error / target.square().mean().clamp(min=1e-30)).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.updates += 1
        self.optimizer.param_groups[0]["lr"] = self.learning_rate * min(1.0, int(self.updates) / WARM_UP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def _begin(self, channels: int, device: torch.device) -> None:
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.network = SymmetricOperator(channels, self.features, self.heads)
        self.network.to(device)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), self.learning_rate, (0.9, 0.99))

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.network is not None and self.optimizer is not None:
            save_optimizer(self.optimizer, self.network, destination, f"{prefix}optimizer.")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        first = state_dict.get(f"{prefix}network.first.weight")
        self.network = self.optimizer = None
        if first is not None:
            self._begin(first.shape[1] // PATCH**2, self.updates.device)
            assert self.network is not None and self.optimizer is not None
            load_optimizer(self.optimizer, self.network, state_dict, f"{prefix}optimizer.")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def _angle(sample: NoisySample) -> Float[Tensor, " b"]:
    """Noise level as an angle: 0 without noise, 1 for pure noise, independent of the schedule."""
    return (torch.atan2(sample.sigma, sample.alpha) * (2 / math.pi)).flatten()


def _level_features(angle: Float[Tensor, " b"]) -> Float[Tensor, "b l"]:
    frequencies = math.pi / 4 * 2.0 ** torch.arange(LEVEL_FEATURES // 2, device=angle.device)
    phase = angle[:, None] * frequencies
    return torch.cat([phase.sin(), phase.cos()], 1)


def _patches(image: Float[Tensor, "b c h w"], mode: str) -> Float[Tensor, "b p h2 w2"]:
    """The image as patches, padded to whole windows."""
    height, width = image.shape[-2:]
    whole = PATCH * max(WINDOWS)
    return F.pixel_unshuffle(F.pad(image, (0, -width % whole, 0, -height % whole), mode), PATCH)


def _pixels(patches: Float[Tensor, "b p h2 w2"], size: torch.Size) -> Float[Tensor, "b c h w"]:
    return F.pixel_shuffle(patches, PATCH)[..., : size[0], : size[1]]
