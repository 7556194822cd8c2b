"""Perp-Neg: the geometry of it, and its weights around the object."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from steindreamer.distill import GaussianMixture
from steindreamer.distill.perp_neg import negative_view_weights, perp_neg, perpendicular
from steindreamer.distill.view_prompts import VIEWS
from steindreamer.representations import Cameras


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum((1, 2, 3))


@pytest.fixture
def predicted(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Conditional, unconditional, and three negatives."""
    conditional, unconditional = torch.randn(2, 2, 3, 4, 4, generator=generator)
    return conditional, unconditional, torch.randn(3, 3, 4, 4, generator=generator)


def _weights(azimuth: list[float], elevation: float = 0.0) -> tuple[Tensor, Tensor]:
    """Of the front and of the side."""
    weights = negative_view_weights(Cameras.orbit(azimuth, [elevation] * len(azimuth), height=4))
    assert weights.shape == (len(azimuth), len(VIEWS)) and not weights[:, 2:].any()
    return weights[:, 0], weights[:, 1]


def test_what_is_perpendicular(predicted: tuple[Tensor, Tensor, Tensor]) -> None:
    vector, direction, _ = predicted
    across = perpendicular(vector, direction)
    torch.testing.assert_close(_dot(across, direction), torch.zeros(2), atol=1e-4, rtol=0)
    torch.testing.assert_close(perpendicular(across, direction), across)
    torch.testing.assert_close(perpendicular(vector, 5 * direction), across)
    torch.testing.assert_close(perpendicular(3 * direction, direction), torch.zeros_like(direction), atol=1e-5, rtol=0)
    assert torch.equal(perpendicular(vector, torch.zeros_like(vector)), vector)


def test_the_prompts_own_direction_is_left_alone(predicted: tuple[Tensor, Tensor, Tensor]) -> None:
    conditional, unconditional, negatives = predicted
    weights = torch.tensor([-0.5, -1.5, -1.0])
    moved = perp_neg(conditional, unconditional, negatives, torch.tensor([0, 0, 1]), weights)
    own = conditional - unconditional
    torch.testing.assert_close(_dot(moved - unconditional, own), _dot(own, own))
    pushed = _dot(moved - conditional, perpendicular(negatives[[0, 2]] - unconditional, own))
    assert pushed[1] < 0, "away from the negative"
    expected = -0.5 * perpendicular(negatives[:1] - unconditional[:1], own[:1])
    expected = expected - 1.5 * perpendicular(negatives[1:2] - unconditional[:1], own[:1])
    torch.testing.assert_close(moved[:1] - conditional[:1], expected)


def test_without_weights_nothing_happens(predicted: tuple[Tensor, Tensor, Tensor]) -> None:
    conditional, unconditional, negatives = predicted
    pictures = torch.tensor([0, 1, 1])
    torch.testing.assert_close(
        perp_neg(conditional, unconditional, negatives, pictures, torch.zeros(3)), conditional, rtol=0, atol=0
    )
    none = torch.zeros(0, dtype=torch.long)
    torch.testing.assert_close(
        perp_neg(conditional, unconditional, negatives[:0], none, torch.zeros(0)), conditional, rtol=0, atol=0
    )


def test_weights_vanish_at_the_view_itself() -> None:
    front, side = _weights([0.0, 90.0, -90.0, 180.0])
    full = 4 - 4 * math.exp(-0.5)
    torch.testing.assert_close(front[:3], torch.tensor([0.0, -full, -full]))
    torch.testing.assert_close(side[:3], torch.tensor([-full, 0.0, 0.0]), atol=1e-6, rtol=1e-6)
    assert front[3] < front[1], "at the back, a front is worse than at the side"
    assert side[3] < 0


def test_weights_are_continuous_around_the_object() -> None:
    """At the front, the side and the back as between them: no step beyond what the steepest slope allows."""
    azimuth = torch.linspace(-180, 180, 7201)
    for weights in _weights(azimuth.tolist()):
        assert (weights <= 0).all()
        torch.testing.assert_close(weights, weights.flip(0), atol=1e-5, rtol=0)
        assert weights.diff().abs().max() < 4 * 0.5 * 0.05 / 90 * 1.05


def test_weights_are_the_published_ones_to_three_digits() -> None:
    """threestudio's constants, as (a, b, c) in a exp(-b r) + c."""

    def decay(constants: tuple[float, float, float], r: float) -> float:
        a, b, c = constants
        return a * math.exp(-b * r) + c

    for azimuth in (1.0, 30.0, 89.0):
        front, side = _weights([azimuth])
        r = 1 - azimuth / 90
        assert float(front) == pytest.approx(-decay((4, 0.5, -2.426), r), abs=1.1e-3)
        assert float(side) == pytest.approx(-decay((4, 0.5, -2.426), 1 - r), abs=1.1e-3)
    for azimuth in (91.0, 135.0, 179.0):
        front, side = _weights([-azimuth])
        r = 2 - azimuth / 90
        assert float(side) == pytest.approx(-decay((1, 0.5, -0.606), r), abs=1.1e-3)
        assert float(front) == pytest.approx(-decay((1, 0.5, 0.967), r), abs=1.1e-3)


def test_from_overhead_nothing_is_negative() -> None:
    assert not any(weights.any() for weights in _weights([0.0, 45.0, 135.0], elevation=80.0))
    assert all(weights.any() for weights in _weights([0.0, 45.0, 135.0], elevation=50.0))


def test_an_exact_prior_is_pushed_away(generator: torch.Generator) -> None:
    """With closed-form scores: one step against the prediction comes out less likely under the negative's own mode."""
    means = torch.randn(3, 3, 4, 4, generator=generator)
    everything, wanted, unwanted = (GaussianMixture.isotropic(means[rows], 0.5) for rows in ([0, 1, 2], [0], [1]))
    noisy, level = torch.randn(8, 3, 4, 4, generator=generator), (torch.full((8, 1, 1, 1), 0.6),) * 2
    e_0, e_c, e_n = (mixture.predict_noise(noisy, *level) for mixture in (everything, wanted, unwanted))
    moved = perp_neg(e_c, e_0, e_n, torch.arange(8), torch.full((8,), -0.5))
    towards_negative = perpendicular(e_n - e_0, e_c - e_0)
    assert (_dot(moved - e_c, towards_negative) < 0).all()
