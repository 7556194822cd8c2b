"""Moments of random gradients: unbiased, shown by averaging over every possible outcome of a small experiment."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from steindreamer.distill.variance.moments import Moments, PairedMoments

# Two equally likely conditions; the noise is +1 or -1. Gradients are CENTER[c] + noise * SWING[c].
CENTERS = {"sds": torch.tensor([[1.0, 2.0], [3.0, -1.0]]), "other": torch.tensor([[2.0, 0.0], [3.0, 1.0]])}
SWINGS = {"sds": torch.tensor([[0.5, 0.0], [2.0, 1.0]]), "other": torch.tensor([[0.1, 0.3], [1.0, 1.0]])}


def gradient(name: str, condition: int, noise: int) -> Tensor:
    return CENTERS[name][condition] + noise * SWINGS[name][condition]


def every_outcome(pairs: int) -> list[dict[str, Moments]]:
    found = []
    one = list(itertools.product((0, 1), (-1, 1), (-1, 1)))
    for outcome in itertools.product(one, repeat=pairs):
        moments = PairedMoments("sds")
        for condition, *noises in outcome:
            a, b = noises
            moments.add({name: (gradient(name, condition, a), gradient(name, condition, b)) for name in CENTERS})
        found.append(moments.result())
    return found


@pytest.mark.parametrize("pairs", [2, 3])
def test_within_between_signal_and_products_are_unbiased(pairs: int) -> None:
    outcomes = every_outcome(pairs)

    def mean(name: str, value: str) -> float:
        return sum(getattr(outcome[name], value) for outcome in outcomes) / len(outcomes)

    for name, centers in CENTERS.items():
        within = float(SWINGS[name].square().sum(1).mean())
        between = float((centers - centers.mean(0)).square().sum(1).mean())
        assert mean(name, "within") == pytest.approx(within)
        assert mean(name, "between") == pytest.approx(between)
        assert mean(name, "total") == pytest.approx(within + between)
        assert mean(name, "signal") == pytest.approx(float(centers.mean(0).square().sum()))


def test_many_pairs_find_the_cosine_the_bias_and_the_standard_error() -> None:
    generator = torch.Generator().manual_seed(0)
    repeats = []
    for _ in range(40):
        moments = PairedMoments("sds")
        for _ in range(200):
            condition = int(torch.randint(2, (), generator=generator))
            a, b = (2 * torch.randint(2, (2,), generator=generator) - 1).tolist()
            moments.add({name: (gradient(name, condition, a), gradient(name, condition, b)) for name in CENTERS})
        repeats.append(moments.result())
    sds, other = (CENTERS[name].mean(0) for name in ("sds", "other"))
    cosines, biases, withins = (
        torch.tensor([getattr(result["other"], name) for result in repeats]) for name in ("cosine", "bias", "within")
    )
    assert float(cosines.mean()) == pytest.approx(float(torch.cosine_similarity(sds, other, dim=0)), abs=0.01)
    assert float(biases.mean()) == pytest.approx(float((sds - other).square().sum() / sds.square().sum()), abs=0.01)
    errors = torch.tensor([result["other"].within_error for result in repeats])
    assert float(errors.mean()) == pytest.approx(float(withins.std()), rel=0.3)


def test_the_reference_agrees_with_itself_and_noise_cancels_in_the_bias() -> None:
    for outcome in every_outcome(2):
        if outcome["sds"].signal > 0:
            assert outcome["sds"].cosine == pytest.approx(1.0) and outcome["sds"].bias == pytest.approx(0.0)
    moments = PairedMoments("sds")
    for shift in (0.0, 5.0, -3.0):  # the same gradients doubled: no noise in the comparison
        a, b = torch.tensor([1.0, shift]), torch.tensor([2.0, -shift])
        moments.add({"sds": (a, b), "twice": (2 * a, 2 * b)})
    twice = moments.result()["twice"]
    assert twice.bias == pytest.approx(1.0) and twice.cosine == pytest.approx(1.0)


def test_what_cannot_be_known_is_nan_and_what_does_not_fit_is_refused() -> None:
    moments = PairedMoments("sds")
    with pytest.raises(ValueError, match="no pair"):
        moments.result()
    with pytest.raises(ValueError, match="sds"):
        moments.add({"other": (torch.ones(2), torch.ones(2))})
    assert moments.add({"sds": (torch.ones(2), -torch.ones(2))}) == {"sds": 4.0}
    only = moments.result()["sds"]
    assert only.within == 4.0 and math.isnan(only.between) and math.isnan(only.noise_to_signal)
    with pytest.raises(ValueError, match="same estimators"):
        moments.add({"sds": (torch.ones(2), torch.ones(2)), "new": (torch.ones(2), torch.ones(2))})
    moments.add({"sds": (-torch.ones(2), torch.ones(2))})
    canceled = moments.result()["sds"]  # both means are zero
    assert canceled.signal == 0 and math.isnan(canceled.noise_to_signal) and math.isnan(canceled.cosine)
