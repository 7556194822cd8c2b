"""The coefficients mu of the control variates, learned from past steps only.

A coefficient that depends on the draw it multiplies biases the gradient (a per-pixel fit on the same step makes the
update vanish altogether). Therefore `value` is called first, and `update` learns from the step afterward. A coefficient
may depend on everything known before the noise is drawn: past steps, the timestep, the camera, the image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from ..noise.schedule import NoisySample

Gram = Callable[[Tensor], Tensor]
"""The operator v -> J J^T v, with J the Jacobian of the encoded image with respect to the scene's parameters
(`Pullback.gram`)."""


@dataclass(frozen=True)
class Observation:
    """The data of one draw of a finished step from which coefficients learn."""

    prediction: Float[Tensor, "b c h w"]
    """The predicted noise eps_hat."""
    terms: Float[Tensor, "k b c h w"]
    residual: Float[Tensor, "b c h w"]
    """The residual eps_hat + sum_k mu_k h_k, with the coefficients used in the step."""
    weight: Float[Tensor, "b 1 1 1"]
    timestep: Int64[Tensor, " b"]
    sample: NoisySample | None = None
    """The noisy sample, for control variates that learn; None for an antithetic pair."""
    importance: Float[Tensor, "b 1 1 1"] | float = 1.0
    """Importance weights of timestep sampling, a factor of `weight`."""


class Coefficients(nn.Module, ABC):
    """One coefficient per term, timestep bin and channel.

    Learned values are buffers, so checkpoints restore them exactly. The number of channels is taken from the first step
    or from the checkpoint; until then buffers have one channel.
    """

    needs_gram = False
    """Whether `update` uses a Gram operator."""

    def __init__(self, initial: Sequence[float], steps: int, bins: int = 8) -> None:
        super().__init__()
        if bins < 1:
            raise ValueError(f"coefficients need at least one timestep bin, got {bins}")
        self.steps, self.bins = steps, bins
        self.register_buffer("initial", torch.tensor(initial, dtype=torch.float64), persistent=False)
        self.initial: Tensor

    @abstractmethod
    def value(self, timestep: Int64[Tensor, " b"], channels: int) -> Float[Tensor, "k b c"]:
        """The current coefficients, float32."""

    @abstractmethod
    def update(self, observation: Observation, gram: Gram | None = None) -> None:
        """Learn from a draw whose gradient has been used."""

    def bin(self, timestep: Int64[Tensor, " b"]) -> Int64[Tensor, " b"]:
        """Timestep bin of each timestep: one of `bins` equal ranges of the schedule."""
        return timestep.to(self.initial.device) * self.bins // self.steps

    def _set_channels(self, channels: int) -> None:
        """Expand every per-channel buffer ([bins, channels, ...], initially one channel) to the number of channels."""
        for name, buffer in self.named_buffers(recurse=False):
            if buffer.dim() > 1 and buffer.shape[1] != channels:
                _check_channels(buffer.shape[1], channels)
                setattr(self, name, buffer.expand(-1, channels, *buffer.shape[2:]).clone())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name, buffer in self.named_buffers(recurse=False):
            stored = state_dict.get(prefix + name, buffer)
            if buffer.dim() > 1 and stored.dim() > 1:  # take the stored number of channels
                setattr(self, name, buffer.new_empty(len(buffer), stored.shape[1], *buffer.shape[2:]))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class FixedCoefficients(Coefficients):
    """Constant coefficients: SDS for `NoiseTerm`, the paper's ablation "mu = 1" for `SteinTerm`."""

    def value(self, timestep: Int64[Tensor, " b"], channels: int) -> Float[Tensor, "k b c"]:
        return self.initial.float()[:, None, None].expand(-1, len(timestep), channels)

    def update(self, observation: Observation, gram: Gram | None = None) -> None:
        """Does nothing."""


class RunningRegression(Coefficients):
    """Running least squares of -eps_hat on the terms over past steps, in closed form: mu = -S_hh^-1 S_hf.

    S_hh and S_hf are sums of h h^T and h eps_hat over pixels, weighted by w(t)^2, per timestep bin and channel, with
    exponential forgetting. The regression is regularized toward the initial coefficients by `prior_observations`
    pseudo-observations that agree with them. It therefore starts at exactly those, changes gradually, and is well posed
    for collinear terms. Minimizes the second moment of the image-space gradient, as Eq. 11 does for J J^T = I.
    """

    def __init__(
        self,
        initial: Sequence[float],
        steps: int,
        bins: int = 8,
        *,
        decay: float = 0.999,
        prior_observations: float = 8.0,
        per_channel: bool = True,
    ) -> None:
        super().__init__(initial, steps, bins)
        if not 0 < decay <= 1 or prior_observations <= 0:
            raise ValueError(
                f"need 0 < decay <= 1 and prior_observations > 0, got decay={decay}, "
                f"prior_observations={prior_observations}"
            )
        self.decay, self.prior_observations, self.per_channel = decay, prior_observations, per_channel
        k = len(initial)
        self.register_buffer("count", torch.zeros(bins, dtype=torch.float64))
        self.register_buffer("sum_hh", torch.zeros(bins, 1, k, k, dtype=torch.float64))
        self.register_buffer("sum_hf", torch.zeros(bins, 1, k, dtype=torch.float64))
        self.count: Tensor
        self.sum_hh: Tensor
        self.sum_hf: Tensor

    def value(self, timestep: Int64[Tensor, " b"], channels: int) -> Float[Tensor, "k b c"]:
        bin = self.bin(timestep)
        hh, hf = self.sum_hh[bin], self.sum_hf[bin]
        # A pseudo-observation is the average past step without its correlations, in agreement with `initial`.
        share = self.prior_observations / self.count[bin].clamp(min=1e-12)
        pull = share[:, None, None] * hh.diagonal(dim1=-2, dim2=-1)
        pull = torch.where(pull > 0, pull, 1.0)  # a constant term keeps its initial coefficient
        # Solved for the change, so that without data the initial coefficients are returned exactly.
        target = -hf - (hh @ self.initial[:, None])[..., 0]
        change = torch.linalg.solve_ex(hh + torch.diag_embed(pull), target[..., None])[0][..., 0]
        return _for_channels((self.initial + change).float().to(timestep.device), channels)

    def update(self, observation: Observation, gram: Gram | None = None) -> None:
        terms, prediction = observation.terms, observation.prediction
        channels = terms.shape[2] if self.per_channel else 1
        self._set_channels(channels)
        pixels = terms[0, 0].numel() / channels
        # [b, groups, k, pixels of the group]: with one group, channels are pooled as if they were pixels.
        h = terms.movedim(0, 1).flatten(3).movedim(1, 2)
        f = prediction.flatten(2)
        weight = (observation.weight.flatten() ** 2 / pixels)[:, None, None, None]
        hh = h @ h.transpose(-1, -2) * weight
        hf = (h @ f[..., None] * weight)[..., 0]
        if not self.per_channel:
            hh, hf = hh.sum(1, keepdim=True), hf.sum(1, keepdim=True)
        for bin, new_hh, new_hf in zip(self.bin(observation.timestep).tolist(), hh, hf, strict=True):
            self.count[bin] = self.decay * self.count[bin] + 1
            self.sum_hh[bin] = self.decay * self.sum_hh[bin] + new_hh.to(self.sum_hh)
            self.sum_hf[bin] = self.decay * self.sum_hf[bin] + new_hf.to(self.sum_hf)


class SecondMomentDescent(Coefficients):
    """SteinDreamer's Eq. 11: Adam on mu minimizes ||J^T v||^2 of past steps, v = w(t) (eps_hat + sum_k mu_k h_k).

    The gradient is 2 w <h_k, J J^T v>; the caller supplies v -> J J^T v (`Pullback.gram`), in the prior's space.
    Without it J J^T = I is assumed: the second moment of the image's gradient instead of the parameters'.
    One mu per term, timestep bin and channel (the paper: per pixel, for all timesteps together).
    """

    needs_gram = True

    def __init__(
        self,
        initial: Sequence[float],
        steps: int,
        bins: int = 8,
        *,
        learning_rate: float = 1e-2,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        super().__init__(initial, steps, bins)
        if learning_rate <= 0:
            raise ValueError(f"the coefficients' learning rate must be positive, got {learning_rate}")
        self.learning_rate, self.betas = learning_rate, betas
        self.register_buffer("count", torch.zeros(bins, dtype=torch.float64))
        self.register_buffer("mu", self.initial.expand(bins, 1, -1).clone())
        self.register_buffer("first_moment", torch.zeros_like(self.mu))
        self.register_buffer("second_moment", torch.zeros_like(self.mu))
        self.count: Tensor
        self.mu: Tensor
        self.first_moment: Tensor
        self.second_moment: Tensor

    def value(self, timestep: Int64[Tensor, " b"], channels: int) -> Float[Tensor, "k b c"]:
        return _for_channels(self.mu[self.bin(timestep)].float().to(timestep.device), channels)

    def gradient(self, observation: Observation, gram: Gram | None = None) -> Float[Tensor, "b c k"]:
        """Gradient d ||J^T v||^2 / d mu, one row per image; the images of a batch share its J J^T v."""
        v = observation.weight * observation.residual
        pulled = v if gram is None else gram(v)
        return 2 * torch.einsum("kbchw,bchw->bck", observation.weight * observation.terms, pulled)

    def update(self, observation: Observation, gram: Gram | None = None) -> None:
        self._set_channels(observation.terms.shape[2])
        gradients = self.gradient(observation, gram).to(self.mu)
        bins = self.bin(observation.timestep)
        first, second = self.betas
        for bin in bins.unique().tolist():
            gradient = gradients[bins == bin].sum(0)
            self.count[bin] += 1
            self.first_moment[bin] = first * self.first_moment[bin] + (1 - first) * gradient
            self.second_moment[bin] = second * self.second_moment[bin] + (1 - second) * gradient**2
            mean = self.first_moment[bin] / (1 - first ** self.count[bin])
            scale = (self.second_moment[bin] / (1 - second ** self.count[bin])).sqrt()
            self.mu[bin] -= self.learning_rate * mean / (scale + 1e-12)


def _for_channels(mu: Float[Tensor, "b c_or_1 k"], channels: int) -> Float[Tensor, "k b c"]:
    _check_channels(mu.shape[1], channels)
    return mu.expand(-1, channels, -1).permute(2, 0, 1)


def _check_channels(learned: int, channels: int) -> None:
    if learned not in (1, channels):
        raise ValueError(f"coefficients were learned for {learned} channels, got {channels}")
