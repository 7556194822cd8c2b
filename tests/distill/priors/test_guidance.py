"""Classifier-free guidance, and Perp-Neg: the requests, the geometry, and the weights around the object."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from steindreamer.distill import GaussianMixture, NoiseRequest, NoiseSchedule
from steindreamer.distill.priors.guidance import (
    NegativeViewRequest,
    NegativeViews,
    guidance_prompts,
    guided_noise,
    negative_view_weights,
    perp_neg,
    perpendicular,
    predict_with_perp_neg,
)
from steindreamer.distill.priors.view_prompts import VIEWS
from steindreamer.representations import Cameras


def _dot(one: Tensor, other: Tensor) -> Tensor:
    return (one * other).sum((1, 2, 3))


@pytest.fixture
def predicted(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """For the positive and the negative prompt, and for three views."""
    positive, negative = torch.randn(2, 2, 3, 4, 4, generator=generator)
    return positive, negative, torch.randn(3, 3, 4, 4, generator=generator)


def _views(images: list[int], weights: list[float]) -> NegativeViews:
    image = torch.tensor(images, dtype=torch.long)
    return NegativeViews(image, torch.zeros_like(image), torch.tensor(weights))


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
    positive, negative, others = predicted
    moved = perp_neg(positive, negative, others, _views([0, 0, 1], [-0.5, -1.5, -1.0]))
    own = positive - negative
    torch.testing.assert_close(_dot(moved - negative, own), _dot(own, own))
    pushed = _dot(moved - positive, perpendicular(others[[0, 2]] - negative, own))
    assert pushed[1] < 0, "away from the negative"
    expected = -0.5 * perpendicular(others[:1] - negative[:1], own[:1])
    expected = expected - 1.5 * perpendicular(others[1:2] - negative[:1], own[:1])
    torch.testing.assert_close(moved[:1] - positive[:1], expected)


def test_without_weights_nothing_happens(predicted: tuple[Tensor, Tensor, Tensor]) -> None:
    positive, negative, others = predicted
    assert torch.equal(perp_neg(positive, negative, others, _views([0, 1, 1], [0.0, 0.0, 0.0])), positive)
    assert torch.equal(perp_neg(positive, negative, others[:0], _views([], [])), positive)


def test_classifier_free_guidance(predicted: tuple[Tensor, Tensor, Tensor]) -> None:
    positive, negative, _ = predicted
    assert guidance_prompts(1.0) == ("positive",) and guidance_prompts(7.5) == ("positive", "negative")
    assert torch.equal(guided_noise(positive, scale=1.0), positive)
    torch.testing.assert_close(guided_noise(positive, negative, scale=3.0), 3 * positive - 2 * negative)
    with pytest.raises(ValueError, match=r"guidance scale 7.5 needs the prediction for the negative prompt"):
        guided_noise(positive, scale=7.5)


@pytest.mark.parametrize("images", [[], [1, 1]])
def test_perp_neg_adds_the_requests_that_it_needs_once(images: list[int], generator: torch.Generator) -> None:
    schedule, (clean, noise) = NoiseSchedule.scaled_linear(), torch.randn(2, 2, 3, 4, 4, generator=generator)
    first, second = (schedule.add_noise(clean, noise, torch.tensor([t, t])) for t in (100, 700))
    positive, null, negative = (NoiseRequest(first), NoiseRequest(first, "null"), NoiseRequest(second, "negative"))
    views, asked = _views(images, [-1.0] * len(images)), list[NoiseRequest | NegativeViewRequest]()
    predictions: dict[NoiseRequest | NegativeViewRequest, Tensor] = {}

    def predict(requests: Sequence[NoiseRequest | NegativeViewRequest]) -> list[Tensor]:
        asked.extend(requests)
        for each in requests:
            rows = len(images) if isinstance(each, NegativeViewRequest) else 2
            predictions[each] = torch.randn(rows, 3, 4, 4, generator=generator)
        return [predictions[each] for each in requests]

    found = predict_with_perp_neg([positive, null, positive, negative], views, predict)
    added = [NoiseRequest(first, "negative"), NegativeViewRequest(first)] if images else []
    assert asked == [positive, null, negative, *added]
    expected = predictions[positive]
    if images:
        expected = perp_neg(expected, predictions[added[0]], predictions[added[1]], views)
        assert not torch.equal(expected, predictions[positive])
    wanted = [expected, predictions[null], expected, predictions[negative]]
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


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
    moved = perp_neg(e_c, e_0, e_n, _views(list(range(8)), [-0.5] * 8))
    toward_negative = perpendicular(e_n - e_0, e_c - e_0)
    assert (_dot(moved - e_c, toward_negative) < 0).all()
