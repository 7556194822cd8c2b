"""Collaborative score distillation (2307.04787): the images of a step share their residuals.

The images of a step are the particles of Stein variational gradient descent (1608.04471). Image i moves along

    sum_j [ k(x_j, x_i) (e_s(x_j) - eps_j) - sigma grad_{x_j} k(x_j, x_i) ] / b,

a mean of all residuals that weights similar images more, minus a term that keeps the images apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from annotated_types import Interval
from jaxtyping import Float
from torch import Tensor

from ..residual import Draw, Estimate, Residual
from .base import ResidualConfig


@dataclass(frozen=True)
class Collaborative(Residual):
    """Collaborative score distillation over the b images of a step, with the kernel k(x, y) = exp(-|x - y|^2 / h).

    The bandwidth h is the median squared distance of the images divided by log b (1608.04471), times `bandwidth`. The
    weights of each image are divided by their sum, so that a single image gives SDS.
    """

    scale: float
    bandwidth: float
    repulsion: float

    def __call__(self, draw: Draw) -> Estimate:
        guided, ranks = draw.predict_guided(self.scale), draw.ranks
        kernel, away = _kernel(ranks.gather(draw.sample.clean), self.bandwidth)
        shared = torch.einsum("ij,jchw->ichw", kernel, ranks.gather(guided - draw.sample.noise))
        return Estimate(ranks.own(shared) - self.repulsion * draw.sample.sigma * ranks.own(away), guided)


@dataclass
class CollaborativeConfig(ResidualConfig):
    """Collaborative score distillation (2307.04787): SDS whose images of a step share their residuals (SVGD)."""

    bandwidth: Annotated[float, Interval(gt=0, le=1000)] = 1.0
    """Factor on the kernel's bandwidth, the median squared distance of a step's images / log b."""
    repulsion: Annotated[float, Interval(ge=0, le=1000)] = 1.0
    """Factor on the term that keeps the images of a step apart."""

    def residual(self) -> Residual:
        return Collaborative(self.guidance_scale, self.bandwidth, self.repulsion)


def _kernel(
    images: Float[Tensor, "b c h w"], bandwidth: float
) -> tuple[Float[Tensor, "b b"], Float[Tensor, "b c h w"]]:
    """The weights k(x_j, x_i), normalized to sum to 1 over j, and sum_j grad_{x_j} k(x_j, x_i) with these weights."""
    count = len(images)
    if count == 1:
        return images.new_ones(1, 1), torch.zeros_like(images)
    flat = images.flatten(1)
    squared = torch.cdist(flat, flat).square()
    others = squared[~torch.eye(count, dtype=torch.bool, device=images.device)]
    width = (bandwidth * others.median() / math.log(count)).clamp(min=1e-12)
    weights = torch.exp(-squared / width)
    weights = weights / weights.sum(1, keepdim=True)
    # grad_{x_j} exp(-|x_j - x_i|^2 / h) = -2 (x_j - x_i) / h k.
    pull = torch.einsum("ij,jd->id", weights, flat) - flat * weights.sum(1, keepdim=True)
    return weights, (-2 / width * pull).view_as(images)
