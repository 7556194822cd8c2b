"""Which noise levels are drawn, and how much each counts."""

from __future__ import annotations

import pytest
import torch

from steindreamer.distill import WEIGHTINGS, NoiseSchedule, TimestepConfig, TimestepSampler

SCHEDULE = NoiseSchedule.scaled_linear()


@pytest.mark.parametrize(("progress", "high"), [(0.0, 980), (0.4, 740), (0.8, 500), (1.0, 500)])
def test_timesteps_are_uniform_below_the_annealed_maximum(progress: float, high: int) -> None:
    generator = torch.Generator().manual_seed(0)
    timestep = TimestepSampler(TimestepConfig(), SCHEDULE)(20_000, progress, generator).timestep
    assert timestep.min() == 20 and timestep.max() == high - 1
    deciles = torch.histc(timestep.float(), 10, 20, high)
    assert ((deciles - 2000).abs() < 5 * (2000 * 0.9) ** 0.5 + 2000 * 10 / (high - 20)).all()


def test_equal_maxima_mean_no_annealing() -> None:
    config = TimestepConfig(maximum=0.9, final_maximum=0.9)
    assert [config.maximum_at(progress) for progress in (0.0, 0.5, 1.0)] == [0.9, 0.9, 0.9]


def test_a_range_narrower_than_one_step_still_draws() -> None:
    schedule = NoiseSchedule.scaled_linear(100)
    for level, expected in ((0.5, 50), (0.29, 29)):  # 0.29 * 100 is a little less in floating point
        sampler = TimestepSampler(TimestepConfig(level, level + 0.001, level + 0.001), schedule)
        assert sampler(3, 0.0, torch.Generator()).timestep.tolist() == [expected] * 3


@pytest.mark.parametrize("fractions", [(0.6, 0.98, 0.5, 0.8), (0.02, 0.4, 0.5, 0.8), (-0.1, 0.98, 0.5, 0.8)])
def test_ranges_that_do_not_exist_are_refused(fractions: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="0 <= minimum < final_maximum <= maximum <= 1"):
        TimestepConfig(*fractions)
    with pytest.raises(ValueError, match="anneal is a fraction"):
        TimestepConfig(anneal=2.0)


def test_weightings_at_their_closed_forms() -> None:
    abar = torch.tensor([0.81, 0.36])
    alpha, sigma = NoiseSchedule.from_alphas_cumprod(abar).at(torch.tensor([0, 1]))
    expected = {
        "sigma_squared": 1 - abar,
        "uniform": torch.ones(2),
        "sqrt_alpha_one_minus_alpha_bar": abar.sqrt() * (1 - abar),
        "sigma_over_alpha": ((1 - abar) / abar).sqrt(),
    }
    assert expected.keys() == WEIGHTINGS.keys()
    for name, value in expected.items():
        torch.testing.assert_close(WEIGHTINGS[name](alpha, sigma).flatten(), value)
