"""Every model output is one statement about the same noise (identities of the module's table)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from steindreamer.distill import NoiseSchedule, NoisySample
from steindreamer.distill.noise.parameterization import (
    PREDICTION_TYPES,
    clean_from_noise,
    noise_from_output,
    output_error,
)


def draw(prediction_type: str) -> NoisySample:
    generator = torch.Generator().manual_seed(0)
    flow = prediction_type == "flow"
    schedule = NoiseSchedule.rectified_flow() if flow else NoiseSchedule.scaled_linear()
    clean, noise = torch.randn(2, 4, 3, 8, 8, generator=generator)
    return schedule.add_noise(clean, noise, torch.tensor([100, 300, 500, 700]))


def output_of_a_perfect_model(prediction_type: str, sample: NoisySample) -> Tensor:
    return {
        "epsilon": sample.noise,
        "sample": sample.clean,
        "v_prediction": sample.alpha * sample.noise - sample.sigma * sample.clean,
        "flow": sample.noise - sample.clean,
    }[prediction_type]


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_perfect_model_predicts_the_noise_and_the_clean_image(prediction_type: str) -> None:
    sample = draw(prediction_type)
    noise = noise_from_output(output_of_a_perfect_model(prediction_type, sample), prediction_type, sample)
    torch.testing.assert_close(noise, sample.noise, atol=1e-5, rtol=0)
    torch.testing.assert_close(clean_from_noise(noise, sample), sample.clean, atol=1e-5, rtol=0)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_sds_residual_in_the_models_own_unit(prediction_type: str) -> None:
    """eps_hat - eps = gain * (output - target): gain 1, -alpha/sigma, alpha, alpha."""
    sample = draw(prediction_type)
    target = output_of_a_perfect_model(prediction_type, sample)
    error = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    gain = {"epsilon": 1.0, "sample": -sample.alpha / sample.sigma}.get(prediction_type, sample.alpha)
    residual = noise_from_output(target + error, prediction_type, sample) - sample.noise
    torch.testing.assert_close(residual, gain * error, atol=2e-5, rtol=1e-5)
    recovered = output_error(noise_from_output(target + error, prediction_type, sample), prediction_type, sample)
    torch.testing.assert_close(recovered, error, atol=1e-4, rtol=1e-5)


def test_pure_noise_says_nothing_about_the_output() -> None:
    """The last step of a schedule rescaled to end without signal."""
    schedule = NoiseSchedule.from_alphas_cumprod(torch.tensor([0.5, 0.0]))
    clean, noise = torch.randn(2, 1, 3, 8, 8)
    sample = schedule.add_noise(clean, noise, torch.tensor([1]))
    predicted = noise_from_output(torch.randn(1, 3, 8, 8), "v_prediction", sample)
    assert torch.equal(output_error(predicted, "v_prediction", sample), torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_half_precision_outputs_are_converted_in_float32(prediction_type: str) -> None:
    sample = draw(prediction_type)
    output = output_of_a_perfect_model(prediction_type, sample).bfloat16()
    noise = noise_from_output(output, prediction_type, sample)
    assert noise.dtype == torch.float32
    assert torch.equal(noise, noise_from_output(output.float(), prediction_type, sample))


def test_an_unknown_prediction_type_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown prediction type 'x0': use one of epsilon"):
        noise_from_output(torch.zeros(4, 3, 8, 8), "x0", draw("epsilon"))
    with pytest.raises(ValueError, match="unknown prediction type 'x0': use one of epsilon"):
        output_error(torch.zeros(4, 3, 8, 8), "x0", draw("epsilon"))
