"""The learned score of variational score distillation (VSD), which models the scene's own noisy images.

ProlificDreamer (2305.16213) replaces the noise in SDS's residual by the prediction of a LoRA denoiser phi,

    residual = eps_hat(noisy; prompt, guided) - eps_phi(noisy; prompt, camera),

and trains phi between the steps on the images rendered so far, minimizing E ||eps_phi(noisy) - noise||^2. Initially phi
is the prior itself, and the residual is guidance alone: (s - 1) (e_p - e_n). If phi memorized the image of each camera,
it would predict the noise, and VSD would be SDS.

Entropic score distillation (ESD, Wang et al., CVPR 2024) mixes in phi's prediction without the camera condition,

    eps_phi = eps_phi(no camera) + camera_weight * (eps_phi(camera) - eps_phi(no camera)):

a smaller weight makes views differ more from each other. VSD is camera_weight = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .files.optimizer_state import load_optimizer, save_optimizer
from .noise.schedule import NoisySample
from .priors.base import Condition, LoRAPrior
from .ranks import ALONE, Ranks


@dataclass(frozen=True)
class LoRABatch(Generic[Condition]):
    """A LoRA training batch: the rendered images of one step, in the prior's space, and their cameras."""

    clean: Float[Tensor, "b c h w"]
    condition: Condition
    camera_to_world: Float[Tensor, "b 4 4"]
    seed: int
    """Random seed of timesteps, noises and camera dropout."""


class LearnedScore(nn.Module, Generic[Condition]):
    """A LoRA denoiser of the prior with its optimizer.

    The state dict holds the LoRA weights, the optimizer's moments and the last error, without the prior's weights.
    """

    def __init__(
        self,
        prior: LoRAPrior[Any, Condition, Any],
        *,
        rank: int = 4,
        learning_rate: float = 1e-4,
        steps: int = 1,
        camera: bool = True,
        camera_weight: float = 1.0,
        camera_dropout: float = 0.1,
    ) -> None:
        """Create a LoRA denoiser and its AdamW optimizer. Defaults are threestudio's for ProlificDreamer.

        Args:
            steps: optimizer steps per training batch, each with noise of its own.
            camera: whether the LoRA denoiser is conditioned on the camera.
            camera_weight: see the module docstring; 0 predicts without the camera.
            camera_dropout: fraction of images without camera condition in training.

        Raises ValueError for values out of range, and for a camera_weight that lacks one of the predictions it mixes.
        """
        super().__init__()
        if learning_rate <= 0 or steps < 0:
            raise ValueError(
                f"need a learning rate > 0 and steps >= 0 of the learned score, got {learning_rate}, {steps}"
            )
        if not 0 <= camera_dropout <= 1:
            raise ValueError(f"camera_dropout must be a fraction between 0 and 1, got {camera_dropout}")
        if camera_weight != 1 and not (camera and camera_dropout):
            raise ValueError(
                f"camera_weight={camera_weight} mixes predictions with and without camera: "
                "set camera=true and camera_dropout above 0, or camera_weight=1"
            )
        self.use_prior(prior)
        self.ranks: Ranks = ALONE
        """The processes that share the images of a batch."""
        self.steps, self.camera = steps, camera
        self.camera_weight, self.camera_dropout = camera_weight, camera_dropout
        # The initial value of A has no effect while B is zero, so the seed is arbitrary.
        self.lora: nn.Module = prior.lora_denoiser(rank, camera=camera, generator=torch.Generator().manual_seed(0))
        self.optimizer = torch.optim.AdamW(self.lora.parameters(), learning_rate, (0.9, 0.99), 1e-15)
        self.register_buffer("error", torch.zeros(()))
        self.error: Tensor
        """Mean square of the last training batch's error, in the network's own parameterization."""

    def use_prior(self, prior: LoRAPrior[Any, Condition, Any]) -> None:
        """Predict with `prior` from now on: the same prior, or a wrapper of it such as a `CountingPrior`."""
        # Not registered as a submodule: its weights do not belong in this module's state.
        object.__setattr__(self, "prior", prior)
        self.prior: LoRAPrior[Any, Condition, Any]

    @torch.no_grad()
    def forward(
        self, sample: NoisySample, condition: Condition, camera_to_world: Float[Tensor, "b 4 4"]
    ) -> Float[Tensor, "b c h w"]:
        """The LoRA denoiser's prediction eps_phi, float32."""

        def predict(camera: Tensor | None) -> Tensor:
            return self.prior.predict_lora(self.lora, sample, condition, camera).noise

        if not self.camera or self.camera_weight == 0:
            return predict(None)
        with_camera = predict(camera_to_world)
        if self.camera_weight == 1:
            return with_camera
        without_camera = predict(None)
        return without_camera + self.camera_weight * (with_camera - without_camera)

    def learn(self, batch: LoRABatch[Condition]) -> None:
        """Train on images whose gradient has been used. A step whose error is not finite changes no weights."""
        generator = torch.Generator().manual_seed(batch.seed)
        clean, schedule, ranks = batch.clean, self.prior.schedule, self.ranks
        count = len(clean) * ranks.count
        weights = list(self.lora.parameters())
        for _ in range(self.steps):
            timestep = ranks.own(torch.randint(schedule.steps, (count,), generator=generator))
            noise = ranks.own(torch.randn((count, *clean.shape[1:]), generator=generator))
            sample = schedule.add_noise(clean, noise.to(clean), timestep.to(clean.device))
            camera = self._dropped(batch.camera_to_world, generator) if self.camera else None
            error = self.prior.predict_lora(self.lora, sample, batch.condition, camera).error
            # Summed, not averaged, over an image, so that half-precision gradients do not vanish; Adam is invariant.
            loss = error.square().sum() / count
            loss.backward()
            found = error.detach().square().mean() / ranks.count
            ranks.sum_([*(each.grad for each in weights if each.grad is not None), found])
            if found.isfinite():
                self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.error.copy_(found)

    def _dropped(self, camera: Float[Tensor, "b 4 4"], generator: torch.Generator) -> Float[Tensor, "b 4 4"]:
        """The camera matrices, a random fraction of them set to zero."""
        kept = self.ranks.own(torch.rand(len(camera) * self.ranks.count, generator=generator)) >= self.camera_dropout
        return camera * kept.to(camera)[:, None, None]

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        save_optimizer(self.optimizer, self.lora, destination, f"{prefix}optimizer.")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        load_optimizer(self.optimizer, self.lora, state_dict, f"{prefix}optimizer.")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
