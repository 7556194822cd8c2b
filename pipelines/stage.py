"""One stage of distillation: a representation, a prior and a distiller, one optimiser step at a time.

A stage is its state: `tensors()` is everything that has to be saved for the next step to be the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..distill import Distiller, Gram, Guide, Prior, Pullback
from ..representations import Adaptive, Cameras, RenderOutput, Representation
from .errors import UserError, nearest
from .penalties import PENALTIES
from .views import ViewsConfig, sample_views

MAX_CONSECUTIVE_SKIPS = 20


@dataclass
class StageConfig:
    """One stage of optimisation."""

    steps: int = 400
    resolution: int = 128
    """Pixels of a training view (square)."""
    warmup_resolution: int = 64
    """Pixels during the first `warmup` of the steps: coarse shape first, and faster."""
    warmup: float = 0.3
    views: ViewsConfig = field(default_factory=ViewsConfig)
    regularisers: dict[str, float] = field(default_factory=dict)
    """Weight per penalty: those of `PENALTIES` on the pictures, and the representation's own on its parameters.
    They stand beside a distillation loss averaged over pixels."""
    probe_every: int = 20
    """Steps between measurements of the gradient's variance (one more call of the prior each); 0: never."""

    def validate(self) -> None:
        for name, value, least in (
            ("steps", self.steps, 1),
            ("resolution", self.resolution, 16),
            ("warmup_resolution", self.warmup_resolution, 16),
            ("probe_every", self.probe_every, 0),
        ):
            if value < least:
                raise UserError(f"stage.{name} is {value}; at least {least} is accepted")
        if not 0 <= self.warmup <= 1:
            raise UserError(f"stage.warmup is {self.warmup}; a share between 0 and 1 is accepted")
        self.views.validate()


@dataclass(frozen=True)
class StepInfo:
    """What is worth logging of one step."""

    step: int
    loss: float
    """Mean square of the guided residual per pixel and channel."""
    values: dict[str, float]
    """Penalties, diagnostics of the distiller, variance when it was probed."""
    skipped: str = ""
    """Why the step changed nothing; empty if it did."""


class Stage:
    """Distils one prompt into one representation."""

    def __init__(
        self,
        representation: Representation,
        distiller: Distiller,
        prior: Prior,
        embedding: Any,
        config: StageConfig,
        generator: torch.Generator,
    ) -> None:
        self.representation = representation
        self.distiller = distiller
        self.prior = prior
        self.embedding = embedding
        self.config = config
        self.generator = generator
        self.done = 0
        self.skipped = 0
        self._consecutive_skips = 0
        known = {*PENALTIES, *representation.regularisers()}
        for name in config.regularisers:
            if name not in known:
                raise UserError(
                    f"unknown penalty stage.regularisers.{name}{nearest(name, known)}; known: {_listed(known)}"
                )
        self.optimizer = torch.optim.Adam(representation.optimizer_groups(), betas=(0.9, 0.99), eps=1e-15)

    def step(self) -> StepInfo:
        """Take one step. Raises UserError if nothing finite has come out for a while."""
        config, progress = self.config, self.done / self.config.steps
        resolution = config.warmup_resolution if progress < config.warmup else config.resolution
        cameras, background = sample_views(config.views, resolution, self.generator)
        cameras, background = cameras.to(self.prior.device), background.to(self.prior.device)

        self._set_learning_rates(progress)
        output = self.representation.render(cameras, background)
        guide = _guide(output, cameras)
        condition = self.prior.condition(self.embedding, cameras, background)
        distillation = self.distiller(output.rgb, guide, condition, progress=progress, generator=self.generator)
        penalties = self._penalties(output, cameras)
        pixels = output.rgb[0].numel()
        total = distillation.loss / pixels
        for weight, penalty in penalties.values():
            total = total + weight * penalty

        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        self.done += 1
        values = {name: float(value.detach()) for name, (_, value) in penalties.items()}
        values.update(distillation.diagnostics)
        residual_power = float(distillation.residual.square().mean())

        culprit = self._not_finite(residual_power, values)
        if culprit:
            return self._skip(culprit, values)
        self._consecutive_skips = 0
        if config.probe_every and self.done % config.probe_every == 0:
            probe = self.distiller.probe(
                output.rgb.detach(), guide, condition, progress=progress, generator=self.generator
            )
            values["variance"] = probe.within_noise / pixels
            values["variance_sds"] = probe.within_noise_sds / pixels
        # The gradient is taken, so the coefficients may learn from this step, at the scene it was taken at.
        self.distiller.update(distillation, self._gram(cameras, background))
        self.optimizer.step()
        if isinstance(self.representation, Adaptive):
            self.representation.adapt(self.done, config.steps, self.optimizer, self.generator)
        return StepInfo(self.done, residual_power, values)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state, by name."""
        out = {f"representation.{k}": v for k, v in self.representation.named_parameters()}
        out |= {f"representation.{k}": v for k, v in self.representation.named_buffers()}
        out |= {f"distiller.{k}": v for k, v in self.distiller.state_dict().items()}
        for group in self.optimizer.param_groups:
            for key, value in self.optimizer.state.get(group["params"][0], {}).items():
                out[f"optimizer.{group['name']}.{key}"] = torch.as_tensor(value)
        out["generator"] = self.generator.get_state()
        out["counters"] = torch.tensor([self.done, self.skipped, self._consecutive_skips])
        return out

    def load_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Continue from a saved state. Raises UserError if it belongs to another configuration."""

        def under(prefix: str) -> dict[str, Tensor]:
            return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

        try:
            self.representation.load_tensors(under("representation."))
            self.distiller.load_state_dict(under("distiller."))
            for group in self.optimizer.param_groups:
                state = under(f"optimizer.{group['name']}.")
                if state:
                    self.optimizer.state[group["params"][0]] = {k: v.clone() for k, v in state.items()}
            self.generator.set_state(tensors["generator"])
            self.done, self.skipped, self._consecutive_skips = (int(v) for v in tensors["counters"])
        except (KeyError, RuntimeError) as error:
            message = " ".join(str(error).split())
            raise UserError(f"the checkpoint does not fit this configuration: {message}") from None

    def _set_learning_rates(self, progress: float) -> None:
        rates = self.representation.learning_rates(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["name"]]

    def _penalties(self, output: RenderOutput, cameras: Cameras) -> dict[str, tuple[float, Float[Tensor, ""]]]:
        """(weight, value) by name, for the weights that are set."""
        weights = {name: weight for name, weight in self.config.regularisers.items() if weight}
        if not weights:
            return {}
        values = {name: penalty(output, cameras) for name, penalty in PENALTIES.items() if name in weights}
        values.update(self.representation.regularisers())
        return {name: (weight, values[name]) for name, weight in weights.items()}

    def _not_finite(self, loss: float, values: dict[str, float]) -> str:
        """Name the first thing that is not finite; empty if all is well."""
        for name, value in {"distillation": loss, **values}.items():
            if not math.isfinite(value):
                return f"loss '{name}'"
        for name, parameter in self.representation.named_parameters():
            if parameter.grad is not None and not bool(torch.isfinite(parameter.grad).all()):
                return f"gradient of '{name}'"
        return ""

    def _skip(self, culprit: str, values: dict[str, float]) -> StepInfo:
        self.skipped += 1
        self._consecutive_skips += 1
        if self._consecutive_skips >= MAX_CONSECUTIVE_SKIPS:
            raise UserError(
                f"the {culprit} was not finite for {MAX_CONSECUTIVE_SKIPS} steps in a row (step {self.done}); "
                "lower the learning rates or the guidance scale"
            )
        return StepInfo(self.done, math.nan, values, skipped=f"the {culprit} is not finite")

    def _gram(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> Gram | None:
        """v -> J J^T v of this step's encoded pictures, if the coefficients want it (Eq. 11)."""
        if not self.distiller.needs_gram:
            return None

        def render() -> Tensor:
            return self.prior.encode(self.representation.render(cameras, background).rgb)

        return Pullback(render, [p for p in self.representation.parameters() if p.requires_grad]).gram


def _guide(output: RenderOutput, cameras: Cameras) -> Guide:
    return Guide(output.opacity.detach(), output.depth.detach(), output.normal.detach(), cameras.camera_to_world)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))
