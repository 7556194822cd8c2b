"""The second score of variational score distillation (VSD): that of the scene's own noisy pictures, learned on the way.

ProlificDreamer (2305.16213) replaces the noise in SDS's residual by what a copy phi of the prior predicts,

    residual = eps_hat(noisy; prompt, guided) - eps_phi(noisy; prompt, camera),

and trains phi between the steps on the pictures rendered so far, E ||eps_phi(noisy) - noise||^2. At first phi is the
prior itself, so what is left of the residual is guidance: (s - 1) (e_c - e_0). A phi that knew each camera's picture by
heart would predict the noise, and VSD would be SDS.

Entropic score distillation (ESD, Wang et al., CVPR 2024) mixes in what phi says without being told the camera,

    eps_phi = eps_phi(no camera) + camera_weight * (eps_phi(camera) - eps_phi(no camera)):

the less it counts, the more views must differ from each other. VSD is camera_weight = 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .optimizer_state import load_optimizer, save_optimizer
from .prior import LowRankCopyable
from .schedule import NoisySample


@dataclass(frozen=True)
class Lesson:
    """What one step teaches: rendered pictures in the prior's space, and where they were seen from."""

    clean: Float[Tensor, "b c h w"]
    condition: Any
    camera_to_world: Float[Tensor, "b 4 4"]
    seed: int
    """Of noise levels, noises, and of which cameras are not told."""


class LearnedScore(nn.Module):
    """A low-rank copy of the prior's network with its optimiser.

    The state is the copy's own weights, the optimiser's moments and the last error; the prior's weights are not in it.
    """

    def __init__(
        self,
        prior: LowRankCopyable,
        *,
        rank: int = 4,
        learning_rate: float = 1e-4,
        steps: int = 1,
        camera: bool = True,
        camera_weight: float = 1.0,
        camera_dropout: float = 0.1,
    ) -> None:
        """Defaults are threestudio's for ProlificDreamer, with AdamW as there.

        Args:
            steps: of training per lesson, each with noise of its own.
            camera: whether cameras are told at all.
            camera_weight: see the module; 0 does not tell it where the pictures are judged.
            camera_dropout: share of pictures whose camera is not told in training.

        Raises ValueError for values out of range, and for a camera_weight that lacks what it weighs.
        """
        super().__init__()
        if learning_rate <= 0 or steps < 0:
            raise ValueError(
                f"need a learning rate > 0 and steps >= 0 of the learned score, got {learning_rate}, {steps}"
            )
        if not 0 <= camera_dropout <= 1:
            raise ValueError(f"camera_dropout is a share between 0 and 1, got {camera_dropout}")
        if camera_weight != 1 and not (camera and camera_dropout):
            raise ValueError(
                f"camera_weight={camera_weight} mixes predictions with and without camera: "
                "set camera=true and camera_dropout above 0, or camera_weight=1"
            )
        # Not registered as a submodule: its weights do not belong into this module's state.
        object.__setattr__(self, "prior", prior)
        self.prior: LowRankCopyable
        self.steps, self.camera = steps, camera
        self.camera_weight, self.camera_dropout = camera_weight, camera_dropout
        # What A begins as is of no account while B is zero: any seed will do.
        self.low_rank = prior.low_rank_copy(rank, camera=camera, generator=torch.Generator().manual_seed(0))
        self.optimizer = torch.optim.AdamW(self.low_rank.parameters(), learning_rate, (0.9, 0.99), 1e-15)
        self.register_buffer("error", torch.zeros(()))
        self.error: Tensor
        """Mean square of the last lesson's error, in the unit of the network's output."""

    @torch.no_grad()
    def forward(
        self, sample: NoisySample, condition: Any, camera_to_world: Float[Tensor, "b 4 4"]
    ) -> Float[Tensor, "b c h w"]:
        """eps_phi, float32."""

        def predict(camera: Tensor | None) -> Tensor:
            return self.prior.predict_with(self.low_rank, sample, condition, camera).noise

        if not self.camera or self.camera_weight == 0:
            return predict(None)
        told = predict(camera_to_world)
        if self.camera_weight == 1:
            return told
        untold = predict(None)
        return untold + self.camera_weight * (told - untold)

    def learn(self, lesson: Lesson) -> None:
        """Train on pictures whose gradient has been taken. A step whose error is not finite changes no weights."""
        generator = torch.Generator().manual_seed(lesson.seed)
        clean, schedule = lesson.clean, self.prior.schedule
        for _ in range(self.steps):
            timestep = torch.randint(schedule.steps, (len(clean),), generator=generator)
            noise = torch.randn(clean.shape, generator=generator)
            sample = schedule.add_noise(clean, noise.to(clean), timestep.to(clean.device))
            camera = self._told(lesson.camera_to_world, generator) if self.camera else None
            error = self.prior.predict_with(self.low_rank, sample, lesson.condition, camera).error
            # Summed, not averaged, over a picture: half-precision gradients must not vanish. Adam does not mind.
            loss = error.square().sum() / len(clean)
            loss.backward()
            if loss.isfinite():
                self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.error.copy_(error.detach().square().mean())

    def _told(self, camera: Float[Tensor, "b 4 4"], generator: torch.Generator) -> Float[Tensor, "b 4 4"]:
        told = torch.rand(len(camera), generator=generator) >= self.camera_dropout
        return camera * told.to(camera)[:, None, None]

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        save_optimizer(self.optimizer, self.low_rank, destination, f"{prefix}optimizer.")

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        load_optimizer(self.optimizer, self.low_rank, state_dict, f"{prefix}optimizer.")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
