"""mu: closed forms, what past-only fitting buys, and Eq. 11's gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from steindreamer.distill.control_variates.coefficients import (
    Coefficients,
    FixedCoefficients,
    Observation,
    RunningRegression,
    SecondMomentDescent,
)
from steindreamer.distill.variance.pullback import Pullback

STEPS = 1000
INITIAL = (1.0, 0.0)
MIXING = torch.tensor([[0.6, -0.3], [0.2, 0.9], [-0.5, 0.1]])  # per channel: -eps_hat = mixing . h + noise


def observe(seed: int, *, batch: int = 2, timestep: int = 500, error: float = 0.5) -> Observation:
    """A step whose best coefficients are `MIXING`."""
    generator = torch.Generator().manual_seed(seed)
    terms = torch.randn(2, batch, 3, 8, 8, generator=generator)
    unexplained = error * torch.randn(batch, 3, 8, 8, generator=generator)
    prediction = unexplained - torch.einsum("ck,kbchw->bchw", MIXING, terms)
    weight = torch.full((batch, 1, 1, 1), 0.7)
    return Observation(prediction, terms, prediction + terms[0], weight, torch.full((batch,), timestep))


def make(kind: str) -> Coefficients:
    return {
        "fixed": lambda: FixedCoefficients(INITIAL, STEPS),
        "regression": lambda: RunningRegression(INITIAL, STEPS),
        "second_moment": lambda: SecondMomentDescent(INITIAL, STEPS),
    }[kind]()


KINDS = ("fixed", "regression", "second_moment")


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_learned_is_the_initial_value_to_the_bit(kind: str) -> None:
    coefficients = make(kind)
    expected = torch.tensor(INITIAL)[:, None, None].expand(2, 3, 4)
    assert torch.equal(coefficients.value(torch.tensor([0, 500, 999]), 4), expected)
    coefficients.update(observe(0, timestep=500))
    assert torch.equal(coefficients.value(torch.tensor([0]), 3), expected[:, :1, :3]), "another bin has learned"


def test_regression_finds_the_least_squares_solution() -> None:
    coefficients = RunningRegression(INITIAL, STEPS)
    for seed in range(400):
        coefficients.update(observe(seed))
    mu = coefficients.value(torch.tensor([500]), 3)[:, 0].T
    shrinkage = 8 / 800  # the imaginary observations' share
    torch.testing.assert_close(mu, MIXING + shrinkage * (torch.tensor(INITIAL) - MIXING), atol=0.01, rtol=0)


def test_pooled_regression_is_the_mean_over_channels() -> None:
    coefficients = RunningRegression(INITIAL, STEPS, per_channel=False, prior_observations=1e-3)
    for seed in range(100):
        coefficients.update(observe(seed, error=0.0))
    mu = coefficients.value(torch.tensor([500]), 3)
    assert torch.equal(mu, mu[..., :1].expand_as(mu))
    torch.testing.assert_close(mu[:, 0, 0], MIXING.mean(0), atol=0.02, rtol=0)


def test_regression_forgets() -> None:
    coefficients = RunningRegression(INITIAL, STEPS, decay=0.9, prior_observations=1e-3)
    for seed in range(50):
        before = observe(seed, error=0.0)
        coefficients.update(replace(before, prediction=-before.prediction))
    for seed in range(50, 100):
        coefficients.update(observe(seed, error=0.0))
    torch.testing.assert_close(coefficients.value(torch.tensor([500]), 3)[:, 0].T, MIXING, atol=1e-3, rtol=0)


def test_collinear_and_vanishing_terms_are_harmless() -> None:
    coefficients = RunningRegression((1.0, 0.0, 0.0), STEPS)
    for seed in range(50):
        step = observe(seed)
        h = step.terms[0]
        coefficients.update(replace(step, terms=torch.stack([h, h, 0 * h]), prediction=-0.5 * h))
    mu = coefficients.value(torch.tensor([500]), 3)[:, 0, 0]
    torch.testing.assert_close(mu[0] + mu[1], torch.tensor(0.5), atol=0.05, rtol=0)
    assert mu[2] == 0 and mu.abs().max() < 2


def test_past_only_fitting_is_unbiased_and_same_step_fitting_is_not() -> None:
    """True mean m; prediction = m + noise. A fit on the same 8 pixels' worth of noise explains part of m away."""
    generator = torch.Generator().manual_seed(0)
    draws, mean = 1000, 0.5
    noise = torch.randn(draws, 1, 1, 2, 2, generator=generator)
    prediction = mean + noise + 0.5 * torch.randn(noise.shape, generator=generator)
    same, past = [], []
    coefficients = RunningRegression((1.0,), STEPS, bins=1, prior_observations=1.0)
    fresh = RunningRegression((1.0,), STEPS, bins=1, prior_observations=1e-3)
    empty = {name: tensor.clone() for name, tensor in fresh.state_dict().items()}
    timestep, weight = torch.tensor([0]), torch.ones(1, 1, 1, 1)
    for f, eps in zip(prediction, noise, strict=True):
        terms = -eps[None]
        step = Observation(f, terms, f, weight, timestep)
        past.append(f - coefficients.value(timestep, 1)[0, 0, 0] * eps)
        coefficients.update(step)
        fresh.load_state_dict(empty)
        fresh.update(step)
        same.append(f - fresh.value(timestep, 1)[0, 0, 0] * eps)
    past_mean, same_mean = (float(torch.stack(each).mean()) for each in (past, same))
    standard_error = 0.5 / (4 * draws) ** 0.5
    assert abs(past_mean - mean) < 4 * standard_error
    assert same_mean - mean < -10 * standard_error, "one coefficient from 4 pixels removes a quarter of the mean"
    assert same_mean == pytest.approx(0.75 * mean, abs=0.03)


def test_second_moment_gradient_matches_double_backward() -> None:
    """d ||J^T w (f + sum mu h)||^2 / d mu for one image, J the Jacobian of a nonlinear rendering."""
    generator = torch.Generator().manual_seed(0)
    theta = torch.randn(3, 10, generator=generator).requires_grad_()
    basis = torch.randn(10, 64, generator=generator)

    def render() -> Tensor:
        return torch.tanh(0.3 * theta @ basis).view(1, 3, 8, 8)

    step = observe(0, batch=1)
    mu = torch.tensor([0.7, -0.2]).expand(3, 2).clone().requires_grad_()
    residual = step.prediction + torch.einsum("ck,kbchw->bchw", mu, step.terms)
    (pulled,) = torch.autograd.grad(render(), theta, step.weight * residual, create_graph=True)
    (expected,) = torch.autograd.grad(pulled.square().sum(), mu)

    actual = SecondMomentDescent(INITIAL, STEPS).gradient(
        replace(step, residual=residual.detach()), Pullback(render, [theta]).gram
    )[0]
    assert (actual - expected).norm() / expected.norm() < 1e-3


def test_descent_without_gram_goes_where_regression_goes() -> None:
    coefficients = SecondMomentDescent(INITIAL, STEPS, learning_rate=0.02)
    for seed in range(400):
        step = observe(seed)
        mu = coefficients.value(step.timestep, 3)
        residual = step.prediction + (mu[..., None, None] * step.terms).sum(0)
        coefficients.update(replace(step, residual=residual))
    torch.testing.assert_close(coefficients.value(torch.tensor([500]), 3)[:, 0].T, MIXING, atol=0.06, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_state_continues_to_the_bit(kind: str) -> None:
    original, restored, other = make(kind), make(kind), make(kind)
    for seed in range(5):
        original.update(observe(seed))
    state = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    restored.load_state_dict(state)
    other.update(observe(9))
    other.load_state_dict(state)
    for seed in range(5, 8):
        step = observe(seed)
        for each in (original, restored, other):
            each.update(step)
    expected = original.value(torch.tensor([500, 0]), 3)
    assert torch.equal(restored.value(torch.tensor([500, 0]), 3), expected)
    assert torch.equal(other.value(torch.tensor([500, 0]), 3), expected)
    untouched = make(kind)
    untouched.load_state_dict(make(kind).state_dict())
    assert torch.equal(untouched.value(torch.tensor([0]), 3), make(kind).value(torch.tensor([0]), 3))


def test_another_number_of_channels_and_wrong_settings_are_refused() -> None:
    coefficients = RunningRegression(INITIAL, STEPS)
    coefficients.update(observe(0))
    four = torch.zeros(2, 4, 8, 8)
    with pytest.raises(ValueError, match="learned for 3 channels, got 4"):
        coefficients.update(
            Observation(four, four[None].repeat(2, 1, 1, 1, 1), four, torch.ones(2, 1, 1, 1), torch.zeros(2).long())
        )
    for kind in ("regression", "second_moment"):
        learned = make(kind)
        learned.update(observe(0))
        with pytest.raises(ValueError, match="learned for 3 channels, got 4"):
            learned.value(torch.tensor([0]), 4)
    with pytest.raises(ValueError, match="0 < decay <= 1 and prior_observations > 0"):
        RunningRegression(INITIAL, STEPS, decay=1.5)
    with pytest.raises(ValueError, match="at least one timestep bin"):
        RunningRegression(INITIAL, STEPS, bins=0)
    with pytest.raises(ValueError, match="learning rate must be positive"):
        SecondMomentDescent(INITIAL, STEPS, learning_rate=0.0)
