"""Adaptive density control of Gaussians: clone or split where the gradient is large, prune where nothing is visible.

Follows 3D Gaussian splatting [Kerbl et al. 2023, section 5.2] with two changes. A round grows a fixed fraction of the
Gaussians, those with the largest screen-space gradients, instead of all above a threshold: like the steps of Adam, this
is invariant to the scale of the gradient, which differs by orders of magnitude between distillers. A cloned Gaussian
splits its opacity with the copy, so that cloning does not change the image [Rota Bulo et al. 2024].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from ..base import AdaptReport, replace_data
from .splatting.geometry import rotation_matrices

SPLIT_SHRINK = 1.6
"""Factor by which the two halves of a split Gaussian are smaller (Kerbl et al.)."""


@dataclass
class DensifyConfig:
    """Densification and pruning of Gaussians; lengths in meters, with the object in the unit ball."""

    interval: Annotated[int, Interval(ge=0, le=1_000_000)] = 50
    """Steps between two rounds; 0 disables densification and pruning."""
    start: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Progress of the stage, in [0, 1], at which rounds begin."""
    stop: Annotated[float, Interval(ge=0, le=1)] = 0.7
    """Progress of the stage, in [0, 1], after which Gaussians are only pruned."""
    grow_fraction: Annotated[float, Interval(ge=0, le=1)] = 0.08
    """Fraction of the Gaussians that a round clones or splits."""
    split_scale: Annotated[float, Interval(ge=0, le=1000)] = 0.03
    """Gaussians with a larger standard deviation (meters) are split in two, smaller ones are cloned."""
    prune_opacity: Annotated[float, Interval(ge=0, le=1)] = 0.01
    """Gaussians with a lower opacity are pruned."""
    prune_scale: Annotated[float, Interval(ge=0, le=1000)] = 0.4
    """Gaussians with a larger standard deviation (meters) are pruned."""
    prune_radius: Annotated[float, Interval(ge=0, le=1000)] = 1.2
    """Gaussians whose center is farther from the origin (meters) are pruned."""
    minimum_count: Annotated[int, Interval(ge=0, le=5_000_000)] = 100
    """Minimum number of Gaussians: pruning keeps at least so many, the most opaque ones."""
    maximum_count: Annotated[int, Interval(ge=0, le=5_000_000)] = 20_000
    """Maximum number of Gaussians: densification stops there."""

    def check(self) -> None:
        """Check the ranges. Raises ValueError for settings that contradict each other."""
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
    """Densification and pruning, with the statistics in buffers, so that checkpoints contain them.

    Args:
        config: Thresholds and schedule.
        count: Number of Gaussians at the start.

    Example:
        >>> densifier = Densifier(DensifyConfig(), count=len(scene))
        >>> # after every backward pass
        >>> densifier.observe(screen_means.grad, visible, height, width)
        >>> # after every optimizer step
        >>> report = densifier.adapt(parameters, step, total_steps, optimizer, generator)
    """

    gradient_sum: Tensor
    """Sum of the screen-space gradient norms since the last round, per Gaussian."""
    view_count: Tensor
    """Number of views since the last round in which each Gaussian was visible."""

    def __init__(self, config: DensifyConfig, count: int) -> None:
        super().__init__()
        config.check()
        self.config = config
        self.register_buffer("gradient_sum", torch.zeros(count))
        self.register_buffer("view_count", torch.zeros(count))

    def observe(self, gradient: Float[Tensor, "b n 2"], visible: Bool[Tensor, "b n"], height: int, width: int) -> None:
        """Accumulate the screen-space gradients of one batch.

        Args:
            gradient: Gradient with respect to the projected centers in pixels.
            visible: Gaussians that contribute to each image.
            height: Image height in pixels.
            width: Image width in pixels.
        """
        # In units of half the image instead of pixels: independent of the resolution.
        length = (gradient.detach() * gradient.new_tensor([width / 2, height / 2])).norm(dim=-1)
        # One step with a non-finite gradient must not disable densification for a whole round.
        counted = visible & length.isfinite()
        self.gradient_sum += torch.where(counted, length, 0.0).sum(0)
        self.view_count += counted.sum(0)

    @torch.no_grad()
    def adapt(
        self,
        parameters: Mapping[str, nn.Parameter],
        step: int,
        total_steps: int,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> AdaptReport:
        """Clone, split and prune if a round is due at this step.

        The parameter objects stay the same; their rows, gradients and the optimizer's state change.

        Args:
            parameters: means, log_scales, quaternions, opacity_logits and any others with one row per Gaussian.
            step: Number of steps so far in the stage, from 1.
            total_steps: Number of steps of the stage.
            optimizer: The optimizer of the parameters.
            generator: Source of the random positions of split Gaussians.
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
            # An almost invisible scene can still recover.
            most_opaque = (opacity + kept).topk(min(config.minimum_count, len(opacity))).indices
            kept[most_opaque] = True
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
    """Two smaller Gaussians for each, with centers sampled from it."""
    rows = {name: parameter[index].repeat(2, *[1] * (parameter.ndim - 1)) for name, parameter in parameters.items()}
    scales = rows["log_scales"].exp()
    local = torch.randn(scales.shape, generator=generator, device=generator.device).to(scales) * scales
    rows["means"] = rows["means"] + (rotation_matrices(rows["quaternions"]) @ local[..., None])[..., 0]
    rows["log_scales"] = (scales / SPLIT_SHRINK).log()
    return rows


def _clone(parameters: Mapping[str, nn.Parameter], index: Int64[Tensor, " m"]) -> dict[str, Tensor]:
    """Copies of Gaussians. The opacity of original and copy is set so that both together are as opaque as before."""
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
    """Keep the given rows of every parameter and append new ones, in place.

    The optimizer's per-row state is kept for the old rows and zero for the new ones; gradients are dropped.
    """
    for name, parameter in parameters.items():
        rows = torch.cat([parameter[kept], added[name]])
        for key, value in optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                optimizer.state[parameter][key] = torch.cat([value[kept], torch.zeros_like(added[name])])
        replace_data(parameter, rows)
