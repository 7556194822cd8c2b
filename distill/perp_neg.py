"""Perp-Neg (2304.04968): views that a picture is not of push it away, but never against its own prompt.

conditional' = e_c + sum_i w_i * perp(e_i - e_0; e_c - e_0),  w_i <= 0

with the eps-predictions e_c of the prompt, e_0 of the unconditional model and e_i of the negatives. It takes the
conditional prediction's place, so whatever is guided or distilled stays as it is.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from .prior import CameraBatch
from .view_prompts import VIEWS, view_weights

_AMPLITUDE, _DECAY = 4.0, 0.5
"""Weights of the view that is being left or reached: -a exp(-b r) - c, with r = 1 where the picture is of that view."""
_BACK_AMPLITUDE = 1.0
"""The same between side and back."""


def perpendicular(vector: Float[Tensor, "b c h w"], direction: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Of each picture's vector, what is left without its part along the direction (all of it if that is zero)."""
    along = (vector * direction).sum((1, 2, 3), keepdim=True)
    square = direction.square().sum((1, 2, 3), keepdim=True)
    return vector - torch.where(square > 0, along / square, 0.0) * direction


def perp_neg(
    conditional: Float[Tensor, "b c h w"],
    unconditional: Float[Tensor, "b c h w"],
    negatives: Float[Tensor, "n c h w"],
    pictures: Int64[Tensor, " n"],
    weights: Float[Tensor, " n"],
) -> Float[Tensor, "b c h w"]:
    """conditional', from n negatives; each belongs to one of the pictures, of which one may have none or several."""
    direction = (conditional - unconditional)[pictures]
    away = perpendicular(negatives - unconditional[pictures], direction)
    return conditional.index_add(0, pictures, weights[:, None, None, None] * away)


def negative_view_weights(cameras: CameraBatch) -> Float[Tensor, "b 4"]:
    """w_i of each of `VIEWS`: of front and side only, and none seen from overhead; continuous in the azimuth.

    The paper's decays for azimuths between front and side, and between side and back. threestudio gives their constants
    as (4, 0.5, -2.426) for front and side, (1, 0.5, -0.606) for the side seen from between side and back, and
    (1, 0.5, 0.967) for the front seen from there. These offsets are, cut after three digits, those that make the
    weights vanish at the view itself and meet at the side; here they do so exactly.
    """
    position = cameras.azimuth.abs() / 90
    frontal = position < 1
    left = torch.where(frontal, 1 - position, 2 - position)  # 1 at the front and 0 at the side; then side and back
    beyond = _decay(_BACK_AMPLITUDE, left)
    front = torch.where(frontal, _decay(_AMPLITUDE, left), beyond + _AMPLITUDE * (1 - math.exp(-_DECAY)))
    side = torch.where(frontal, _decay(_AMPLITUDE, 1 - left), beyond)
    out = torch.zeros(len(position), len(VIEWS), device=position.device)
    out[:, VIEWS.index("front view")], out[:, VIEWS.index("side view")] = -front, -side
    overhead = view_weights(cameras)[:, VIEWS.index("overhead view")]
    return out * (1 - overhead[:, None])


def _decay(amplitude: float, position: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
    """Falls exponentially from position 0 to 1, where it is zero."""
    return amplitude * (torch.exp(-_DECAY * position) - math.exp(-_DECAY))
