"""Identities between eps-, x0-, v- and flow-prediction.

With noisy = alpha * clean + sigma * noise:

    output           noise                          clean
    epsilon          output                         (noisy - sigma * output) / alpha
    sample           (noisy - alpha output)/sigma   output
    v_prediction     alpha * output + sigma noisy   alpha * noisy - sigma * output       v = alpha noise - sigma clean
    flow             noisy + alpha * output         noisy - sigma * output               u = noise - clean

"v_prediction" requires alpha^2 + sigma^2 = 1 (variance preserving), "flow" alpha + sigma = 1 (rectified flow).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from .schedule import NoisySample

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample", "flow")
"""Prediction types by their names in diffusers, and "flow" for the velocity of flow-matching models."""


def noise_from_output(
    output: Float[Tensor, "b c h w"], prediction_type: str, sample: NoisySample
) -> Float[Tensor, "b c h w"]:
    """Convert a model's output to the eps-prediction in float32, for any prediction type and precision.

    Raises ValueError for an unknown prediction type.
    """
    output = output.float()
    if prediction_type == "epsilon":
        return output
    noisy, alpha, sigma = sample.noisy.float(), sample.alpha.float(), sample.sigma.float()
    if prediction_type == "v_prediction":
        return alpha * output + sigma * noisy
    if prediction_type == "sample":
        return (noisy - alpha * output) / sigma
    if prediction_type == "flow":
        return noisy + alpha * output
    raise _unknown(prediction_type)


def output_error(
    noise_prediction: Float[Tensor, "b c h w"], prediction_type: str, sample: NoisySample
) -> Float[Tensor, "b c h w"]:
    """The output minus its target for this draw, in the model's own parameterization; its training loss is the square.

    It is the error of the eps-prediction, divided by the gain with which `noise_from_output` maps output errors to it.
    Raises ValueError for an unknown prediction type.
    """
    error, sigma = noise_prediction.float() - sample.noise.float(), sample.sigma.float()
    # A schedule may end in pure noise, where the eps-prediction does not determine the output.
    alpha = sample.alpha.float().clamp(min=1e-3)
    if prediction_type == "epsilon":
        return error
    if prediction_type in ("v_prediction", "flow"):
        return error / alpha
    if prediction_type == "sample":
        return -error * sigma / alpha
    raise _unknown(prediction_type)


def clean_from_noise(noise_prediction: Float[Tensor, "b c h w"], sample: NoisySample) -> Float[Tensor, "b c h w"]:
    """The predicted x0 (`pred_original_sample`), `(noisy - sigma * noise_prediction) / alpha`, float32."""
    return (sample.noisy.float() - sample.sigma.float() * noise_prediction.float()) / sample.alpha.float()


def _unknown(prediction_type: str) -> ValueError:
    return ValueError(f"unknown prediction type {prediction_type!r}: use one of {', '.join(PREDICTION_TYPES)}")
