"""Regularizers on the distribution of density along rays, in torch on packed samples."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from .compositing import accumulate, per_opacity
from .reference import sum_before
from .samples import Samples


def orientation(
    weights: Float[Tensor, " m"],
    normals: Float[Tensor, "m 3"],
    directions: Float[Tensor, "m 3"],
    samples: Samples,
) -> Float[Tensor, " r"]:
    """Orientation loss sum_i w_i max(0, n_i . d)^2 on normals that face away from the camera [Ref-NeRF, eq. 11].

    The weights are detached, as in DreamFusion: the loss should rotate the normals, not make them invisible.
    """
    away = (normals * directions).sum(1).clamp_min(0).square()
    return accumulate(weights.detach(), away[:, None], samples)[:, 0]


def variance(
    weights: Float[Tensor, " m"],
    values: Float[Tensor, " m"],
    mean: Float[Tensor, " r"],
    opacity: Float[Tensor, " r"],
    samples: Samples,
) -> Float[Tensor, " r"]:
    """Variance of a quantity along each ray, with the weights as probabilities; 0 where the opacity is 0."""
    squared = accumulate(weights, (values - mean[samples.rays]).square()[:, None], samples)
    return per_opacity(squared, opacity[:, None])[:, 0]


def distortion(
    weights: Float[Tensor, " m"], distances: Float[Tensor, " m"], step: float, samples: Samples
) -> Float[Tensor, " r"]:
    """Distortion loss sum_ij w_i w_j |t_i - t_j| + sum_i w_i^2 step / 3 [mip-NeRF 360, eq. 15], in units of distance.

    The cost is linear in the number of samples: samples are sorted by distance, so the double sum is
    2 sum_i w_i (t_i sum_{j<i} w_j - sum_{j<i} w_j t_j).
    """
    before = sum_before(weights, samples.rays, samples.starts)
    moment = sum_before(weights * distances, samples.rays, samples.starts)
    spread = 2 * (distances * before - moment) + weights * (step / 3)
    return accumulate(weights, spread[:, None], samples)[:, 0]
