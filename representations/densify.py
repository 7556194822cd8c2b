"""Adaptive density control of Gaussians: grow where the pictures pull, drop what does not show.

After 3D Gaussian splatting [Kerbl et al. 2023, section 5.2], with two changes. A round grows a fixed fraction, the
Gaussians with the largest screen-space gradients, instead of all above a threshold: like Adam's steps this does not
depend on the gradient's scale, which differs by orders of magnitude between distillers. And a cloned Gaussian shares
its opacity with its copy, so that cloning does not change the picture [Rota Bulo et al. 2024].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from .base import AdaptReport, replace_data
from .splatting.geometry import rotation_matrices

SPLIT_SHRINK = 1.6
"""How much smaller the two halves of a split Gaussian are (Kerbl et al.)."""


@dataclass
class DensifyConfig:
    """Thresholds of growing and pruning; lengths in metres, the object lives in the unit ball."""

    interval: Annotated[int, Interval(ge=0, le=1_000_000)] = 50
    """Optimizer steps between two rounds; 0 switches growing and pruning off."""
    start: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Progress of the stage, in [0, 1], at which rounds begin."""
    stop: Annotated[float, Interval(ge=0, le=1)] = 0.7
    """Progress after which Gaussians are only pruned."""
    grow_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.08
    """Part of the Gaussians that a round clones or splits."""
    split_scale: Annotated[float, Interval(ge=0, le=1000)] = 0.03
    """Gaussians longer than this are split in two, shorter ones are cloned."""
    prune_opacity: Annotated[float, Interval(ge=0, le=1)] = 0.01
    """Gaussians fainter than this are dropped,"""
    prune_scale: Annotated[float, Interval(ge=0, le=1000)] = 0.4
    """and those longer than this,"""
    prune_radius: Annotated[float, Interval(ge=0, le=1000)] = 1.2
    """and those whose centre is farther from the origin."""
    minimum_count: Annotated[int, Interval(ge=0, le=5_000_000)] = 100
    """Pruning spares the most opaque ones below this number."""
    maximum_count: Annotated[int, Interval(ge=0, le=5_000_000)] = 20_000
    """Growing stops here."""

    def check(self) -> None:
        """Raises ValueError for settings that contradict themselves."""
        if self.interval < 0:
            raise ValueError(f"densify.interval must be >= 0 (0: off), got {self.interval}")
        if not 0 <= self.start <= self.stop <= 1:
            raise ValueError(f"need 0 <= densify.start <= densify.stop <= 1, got {self.start} and {self.stop}")
        if not 0 <= self.grow_fraction <= 1:
            raise ValueError(f"densify.grow_fraction must lie in [0, 1], got {self.grow_fraction}")
        if not 0 <= self.minimum_count <= self.maximum_count:
            raise ValueError(
                "need 0 <= densify.minimum_count <= densify.maximum_count, "
                f"got {self.minimum_count} and {self.maximum_count}"
            )


class Densifier(nn.Module):
    """The strategy and its memory (buffers, so that checkpoints carry them)."""

    gradient_sum: Tensor
    view_count: Tensor

    def __init__(self, config: DensifyConfig, count: int) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.register_buffer("gradient_sum", torch.zeros(count))
        self.register_buffer("view_count", torch.zeros(count))

    def observe(self, gradient: Float[Tensor, "b n 2"], visible: Bool[Tensor, "b n"], height: int, width: int) -> None:
        """Remember one batch's gradient with respect to the projected centres (pixels)."""
        # Per half picture instead of per pixel: the same at every resolution.
        length = (gradient.detach() * gradient.new_tensor([width / 2, height / 2])).norm(dim=-1)
        # One step that went wrong must not stop the growing for a whole round.
        seen = visible & length.isfinite()
        self.gradient_sum += torch.where(seen, length, 0.0).sum(0)
        self.view_count += seen.sum(0)

    @torch.no_grad()
    def adapt(
        self,
        parameters: Mapping[str, nn.Parameter],
        step: int,
        total_steps: int,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> AdaptReport:
        """One round, if one is due. `parameters` are means, log_scales, quaternions, opacity_logits and others by row.

        The parameters keep their identity; their rows, gradients and the optimizer's state change.
        """
        count = len(parameters["means"])
        progress = step / total_steps
        if self.config.interval == 0 or step % self.config.interval or progress < self.config.start:
            return AdaptReport(total=count)
        kept = self._worth_keeping(parameters)
        if progress <= self.config.stop:
            grown = self._to_grow(kept)
        else:
            grown = torch.zeros_like(kept)
        long = parameters["log_scales"].exp().amax(1) > self.config.split_scale
        halves = _split(parameters, (grown & long).nonzero()[:, 0], generator)
        clones = _clone(parameters, (grown & ~long).nonzero()[:, 0])
        kept &= ~(grown & long)
        added = {name: torch.cat([halves[name], clones[name]]) for name in parameters}
        resize_parameters(parameters, kept.nonzero()[:, 0], added, optimizer)

        total = len(parameters["means"])
        self.gradient_sum = self.gradient_sum.new_zeros(total)
        self.view_count = self.view_count.new_zeros(total)
        return AdaptReport(added=len(added["means"]), removed=count - int(kept.sum()), total=total)

    def _worth_keeping(self, parameters: Mapping[str, nn.Parameter]) -> Bool[Tensor, " n"]:
        config = self.config
        opacity = parameters["opacity_logits"].sigmoid()
        kept = opacity >= config.prune_opacity
        kept &= parameters["log_scales"].exp().amax(1) <= config.prune_scale
        kept &= parameters["means"].norm(dim=1) <= config.prune_radius
        if int(kept.sum()) < config.minimum_count:
            # An all but invisible scene is still one that can recover.
            spared = (opacity + kept).topk(min(config.minimum_count, len(opacity))).indices
            kept[spared] = True
        return kept

    def _to_grow(self, kept: Bool[Tensor, " n"]) -> Bool[Tensor, " n"]:
        mean_gradient = torch.where(kept, self.gradient_sum / self.view_count.clamp_min(1), 0.0)
        count = int(kept.sum())
        budget = min(round(self.config.grow_fraction * count), self.config.maximum_count - count)
        grown = torch.zeros_like(kept)
        grown[mean_gradient.topk(max(0, budget)).indices] = True
        return grown & (mean_gradient > 0)


def _split(
    parameters: Mapping[str, nn.Parameter], index: Int64[Tensor, " m"], generator: torch.Generator
) -> dict[str, Tensor]:
    """Two smaller Gaussians for each, drawn from it."""
    rows = {name: parameter[index].repeat(2, *[1] * (parameter.ndim - 1)) for name, parameter in parameters.items()}
    scales = rows["log_scales"].exp()
    local = torch.randn(scales.shape, generator=generator, device=generator.device).to(scales) * scales
    rows["means"] = rows["means"] + (rotation_matrices(rows["quaternions"]) @ local[..., None])[..., 0]
    rows["log_scales"] = (scales / SPLIT_SHRINK).log()
    return rows


def _clone(parameters: Mapping[str, nn.Parameter], index: Int64[Tensor, " m"]) -> dict[str, Tensor]:
    """Exact copies. Original and copy get the opacity of which two together are as opaque as the original was."""
    opacity = parameters["opacity_logits"][index].sigmoid()
    shared = 1 - (1 - opacity).clamp_min(1e-6).sqrt()
    parameters["opacity_logits"].data[index] = shared.logit()
    return {name: parameter[index] for name, parameter in parameters.items()}


@torch.no_grad()
def resize_parameters(
    parameters: Mapping[str, nn.Parameter],
    kept: Int64[Tensor, " k"],
    added: Mapping[str, Tensor],
    optimizer: torch.optim.Optimizer,
) -> None:
    """Keep these rows of every parameter and append new ones, in place.

    The optimizer's per-row state follows its rows and is zero for the new ones; gradients are dropped.
    """
    for name, parameter in parameters.items():
        rows = torch.cat([parameter[kept], added[name]])
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                optimizer.state[parameter][key] = torch.cat([value[kept], torch.zeros_like(added[name])])
        replace_data(parameter, rows)
