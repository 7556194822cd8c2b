"""Guidance: predictions for several prompts combined into one.

Classifier-free guidance (CFG, 2207.12598), with the eps-predictions e_p of the positive and e_n of the negative prompt:

    e_s = e_n + s (e_p - e_n),      s = 1: the positive prompt alone.

Perp-Neg (2304.04968) guides away from views that an image does not show, but never against its own prompt:

    e_p' = e_p + sum_i w_i perp(e_i - e_n; e_p - e_n),      w_i <= 0,

with e_i the prediction for the prompt of view i. It replaces e_p; CFG and all methods are unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..noise.schedule import NoisySample
from .base import CameraBatch, NoiseRequest, Prompt
from .view_prompts import VIEWS, view_weights

_AMPLITUDE, _DECAY = 4.0, 0.5
"""Constants of Perp-Neg's weight of a neighboring view, a exp(-b r) - c, with r = 1 if the image shows that view."""
_BACK_AMPLITUDE = 1.0
"""The amplitude between side and back."""


def guidance_prompts(scale: float) -> tuple[Prompt, ...]:
    """The prompts that `guided_noise` needs: the positive one alone at scale 1."""
    return ("positive",) if scale == 1 else ("positive", "negative")


def guided_noise(
    positive: Float[Tensor, "b c h w"], negative: Float[Tensor, "b c h w"] | None = None, *, scale: float
) -> Float[Tensor, "b c h w"]:
    """Classifier-free guidance, e_n + s (e_p - e_n). Raises ValueError if e_n is missing and the scale is not 1."""
    if scale == 1:
        return positive
    if negative is None:
        raise ValueError(f"guidance scale {scale} needs the prediction for the negative prompt")
    return negative + scale * (positive - negative)


@dataclass(frozen=True)
class NegativeViews:
    """The views that Perp-Neg guides away from: n pairs of an image and a view that it does not show.

    An image may have none or several.
    """

    image: Int64[Tensor, " n"]
    view: Int64[Tensor, " n"]
    """Indices into `VIEWS`."""
    weight: Float[Tensor, " n"]

    @classmethod
    def from_weights(cls, weights: Float[Tensor, "b v"]) -> NegativeViews:
        """The pairs with nonzero weight."""
        image, view = weights.nonzero(as_tuple=True)
        return cls(image, view, weights[image, view])

    def __len__(self) -> int:
        return len(self.image)

    def to(self, device: torch.device) -> NegativeViews:
        """Move the tensors to a device."""
        return NegativeViews(self.image.to(device), self.view.to(device), self.weight.to(device))


@dataclass(frozen=True)
class NegativeViewRequest:
    """A request for one noise prediction per pair of `NegativeViews`, each for the prompt of its view."""

    sample: NoisySample


def predict_with_perp_neg(
    requests: Sequence[NoiseRequest],
    views: NegativeViews,
    predict: Callable[[Sequence[NoiseRequest | NegativeViewRequest]], Sequence[Tensor]],
) -> list[Float[Tensor, "b c h w"]]:
    """Predict noise for `requests`, with Perp-Neg against `views` for the positive prompt.

    `predict` is called once, with each required request once: a positive prediction requires the negative one of its
    sample, and those of the views. Without views it gets the distinct requests alone.
    """
    needed: dict[NoiseRequest | NegativeViewRequest, None] = dict.fromkeys(requests)
    positive = [request for request in dict.fromkeys(requests) if request.prompt == "positive" and len(views)]
    needed |= dict.fromkeys(replace(request, prompt="negative") for request in positive)
    needed |= dict.fromkeys(NegativeViewRequest(request.sample) for request in positive)
    predicted = dict(zip(needed, predict(list(needed)), strict=True))
    for request in positive:
        negative = predicted[replace(request, prompt="negative")]
        others = predicted[NegativeViewRequest(request.sample)]
        predicted[request] = perp_neg(predicted[request], negative, others, views)
    return [predicted[request] for request in requests]


def perp_neg(
    positive: Float[Tensor, "b c h w"],
    negative: Float[Tensor, "b c h w"],
    others: Float[Tensor, "n c h w"],
    views: NegativeViews,
) -> Float[Tensor, "b c h w"]:
    """Perp-Neg's positive prediction e_p', from the predictions `others` for the prompts of the n `views`."""
    direction = (positive - negative)[views.image]
    away = perpendicular(others - negative[views.image], direction)
    return positive.index_add(0, views.image, views.weight[:, None, None, None] * away)


def perpendicular(vector: Float[Tensor, "b c h w"], direction: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    """Each image's vector without its component along the direction (all of it if the direction is zero)."""
    along = (vector * direction).sum((1, 2, 3), keepdim=True)
    square = direction.square().sum((1, 2, 3), keepdim=True)
    return vector - torch.where(square > 0, along / square, 0.0) * direction


def negative_view_weights(cameras: CameraBatch) -> Float[Tensor, "b 4"]:
    """Perp-Neg's weights w_i of `VIEWS`, continuous in the azimuth and nonzero for front and side only; none from
    overhead.

    They follow the paper's decays for azimuths between front and side, and between side and back. The constants in
    threestudio are (4, 0.5, -2.426) for front and side, (1, 0.5, -0.606) for the side seen from between side and back,
    and (1, 0.5, 0.967) for the front seen from there. Its offsets, truncated to three digits, are those for which the
    weights vanish at the view itself and are continuous at the side; here this holds exactly.
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
    """An exponential decay from position 0 to zero at position 1."""
    return amplitude * (torch.exp(-_DECAY * position) - math.exp(-_DECAY))
