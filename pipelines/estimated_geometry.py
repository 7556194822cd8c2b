"""Penalties against shapes that do not look like what their pictures show: the estimator judges the drawn picture.

The control variate that SteinDreamer prints (its Eq. 8) has the mean (1 + sigma) E[grad phi]: it moves the picture
along what would make estimated and rendered geometry agree, or against it, by the sign of its coefficient. Here the
move towards agreement is a penalty with a weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from ..distill import DepthBaseline, GeometryEstimator, Guide, NoiseLevel, NormalBaseline
from ..representations import Cameras, RenderOutput
from .penalties import Penalty

ESTIMATED: Mapping[str, type[DepthBaseline] | type[NormalBaseline]] = {
    "estimated_depth": DepthBaseline,
    "estimated_normal": NormalBaseline,
}
"""The baseline whose -phi is the penalty, by the name that a stage's `regularisers` weigh it with."""


def estimated_penalties(estimator: GeometryEstimator) -> dict[str, Penalty]:
    """The penalties of `ESTIMATED`, from 0 (the estimator agrees) to 2; 1 where there is nothing to compare.

    `estimated_depth`: 1 - Pearson correlation of estimated and drawn disparity; `estimated_normal`: 1 - mean cosine of
    the normals. Both within each picture, weighted by the opacity, then averaged over pictures. The gradient goes into
    the colours, through the estimator, and into the drawn depth or normals; not into the opacity, or pixels that
    disagree would be made transparent.
    """
    return {name: _penalty(kind(estimator, _unchanged)) for name, kind in ESTIMATED.items()}


def _penalty(baseline: DepthBaseline | NormalBaseline) -> Penalty:
    def penalty(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
        guide = Guide(output.opacity.detach(), output.depth, output.normal, cameras.camera_to_world)
        return -baseline(output.rgb, _noiseless(output.rgb), guide).mean()

    return penalty


def _noiseless(picture: Float[Tensor, "b 3 h w"]) -> NoiseLevel:
    ones = torch.ones_like(picture[:, :1, :1, :1])
    return NoiseLevel(torch.zeros(len(picture), dtype=torch.long, device=picture.device), ones, torch.zeros_like(ones))


def _unchanged(picture: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """What is drawn is sRGB already."""
    return picture
