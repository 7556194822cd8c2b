"""Regularizers that compare the rendered geometry with the geometry estimated from the rendered image.

The control variate printed in SteinDreamer (its Eq. 8) has the mean (1 + sigma) E[grad phi]. It moves the image toward
agreement of estimated and rendered geometry, or away from it, depending on the sign of its coefficient. Here the move
toward agreement is an explicit regularizer.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from steindreamer.distill import GeometryBuffers, GeometryEstimator, NoiseLevel
from steindreamer.distill.control_variates.baselines import DepthBaseline, NormalBaseline
from steindreamer.representations import Cameras, RenderOutput

from .regularizers import Regularizer

ESTIMATED: Mapping[str, type[DepthBaseline] | type[NormalBaseline]] = {
    "estimated_depth": DepthBaseline,
    "estimated_normal": NormalBaseline,
}
"""The baseline whose -phi is the regularizer, by its name in the setting `stages.NAME.regularizers`."""


def estimated_regularizers(estimator: GeometryEstimator) -> dict[str, Regularizer]:
    """The regularizers of `ESTIMATED`, from 0 (the estimator agrees) to 2; 1 if there is nothing to compare.

    `estimated_depth`: 1 - Pearson correlation of estimated and rendered disparity; `estimated_normal`: 1 - mean cosine
    of the normals. Both are computed per image, weighted by the opacity, then averaged over images. The gradient flows
    into the colors, through the estimator, and into the rendered depth or normals. It does not flow into the opacity,
    which would make pixels that disagree transparent.
    """
    return {name: _regularizer(kind(estimator, _unchanged)) for name, kind in ESTIMATED.items()}


def _regularizer(baseline: DepthBaseline | NormalBaseline) -> Regularizer:
    def regularizer(output: RenderOutput, cameras: Cameras) -> Float[Tensor, ""]:
        geometry = GeometryBuffers(output.opacity.detach(), output.depth, output.normal, cameras.camera_to_world)
        return -baseline(output.rgb, _noiseless(output.rgb), geometry).mean()

    return regularizer


def _noiseless(image: Float[Tensor, "b 3 h w"]) -> NoiseLevel:
    ones = torch.ones_like(image[:, :1, :1, :1])
    return NoiseLevel(torch.zeros(len(image), dtype=torch.long, device=image.device), ones, torch.zeros_like(ones))


def _unchanged(image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Replacement for the prior's decoder: rendered images are sRGB already."""
    return image
