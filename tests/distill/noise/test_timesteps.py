"""Which noise levels are drawn, and how much each counts."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from steindreamer.distill import NoiseSchedule, TimestepConfig
from steindreamer.distill.noise.timesteps import TimestepDraw, TimestepSampler
from steindreamer.distill.noise.weighting import WEIGHTINGS

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
        "one_over_alpha": abar.rsqrt(),
    }
    assert expected.keys() == WEIGHTINGS.keys()
    for name, value in expected.items():
        torch.testing.assert_close(WEIGHTINGS[name](alpha, sigma).flatten(), value)


def draw(config: TimestepConfig, batch: int, seed: int = 0, progress: float = 0.0) -> TimestepDraw:
    return TimestepSampler(config, SCHEDULE)(batch, progress, torch.Generator().manual_seed(seed))


def test_stratified_levels_lie_one_in_each_part_of_the_range() -> None:
    config = TimestepConfig(0.1, 0.9, 0.9, stratified=True)
    draws = torch.stack([draw(config, 8, seed).timestep for seed in range(400)])
    assert torch.equal(((draws - 100) // 100).sort(1).values, torch.arange(8).expand(400, 8))
    mean = draws.double().mean(0)  # every image's own levels are uniform, whatever its place in the batch
    assert ((mean - 499.5).abs() < 4 * 800 / 12**0.5 / 400**0.5).all()
    assert (draw(config, 8).weight == 1).all()


def learned(square: Callable[[Tensor], Tensor], config: TimestepConfig, steps: int = 50) -> TimestepSampler:
    """A sampler that has seen gradients of these mean squares at every level."""
    sampler = TimestepSampler(config, SCHEDULE)
    for _ in range(steps):
        timestep = torch.arange(0, 1000, 10)
        sampler.update(timestep, square(timestep).sqrt()[:, None, None, None].expand(-1, 1, 2, 2))
    return sampler


def steep(timestep: Tensor) -> Tensor:
    return 1e-4 + (timestep / 1000.0) ** 6


def z_score(values: Tensor, expected: float) -> float:
    return float((values.mean() - expected) / (values.std() / len(values) ** 0.5))


@pytest.mark.parametrize("stratified", [False, True])
def test_importance_sampling_leaves_every_mean(stratified: bool) -> None:
    """So it does with its weights; without them, the means are others by hundreds of standard errors."""
    config = TimestepConfig(0.1, 0.9, 0.9, importance=True, stratified=stratified)
    sampler, generator = learned(steep, config), torch.Generator().manual_seed(1)
    draws = [sampler(4, 0.0, generator) for _ in range(5000)]
    timestep, weight = (
        torch.stack([getattr(each, name).flatten() for each in draws]) for name in ("timestep", "weight")
    )
    levels = torch.arange(100, 900).double()
    for value in (torch.ones_like, lambda t: t / 1000.0, lambda t: (t < 300).double(), steep):
        batches = (weight * value(timestep.double())).mean(1)
        assert abs(z_score(batches, float(value(levels).mean()))) < 4
    assert z_score((timestep / 1000.0).mean(1), float(levels.mean() / 1000)) > 50


def test_importance_sampling_draws_by_the_root_of_the_mean_square_and_has_less_variance() -> None:
    config = TimestepConfig(0.0, 1.0, 1.0, importance=True)
    density = learned(steep, config).density(0, 1000)
    bins = steep(torch.arange(0, 1000, 10).double())
    size = torch.stack([bins[torch.arange(0, 1000, 10) * 16 // 1000 == bin].mean().sqrt() for bin in range(16)])
    wanted = size[torch.arange(1000) * 16 // 1000]
    torch.testing.assert_close(density, 0.8 * wanted / wanted.sum() + 0.2 / 1000, rtol=0.02, atol=1e-6)
    assert density.sum() == pytest.approx(1) and (1 / (1000 * density)).max() <= 5
    square = steep(torch.arange(1000).double())
    second_moment = (square / (1000**2 * density)).sum()
    assert second_moment < 0.7 * square.mean()


def test_a_sampler_that_has_learned_nothing_is_uniform_and_one_that_learns_is_in_the_state() -> None:
    config = TimestepConfig(importance=True)
    fresh = TimestepSampler(config, SCHEDULE)
    assert torch.equal(fresh.density(20, 980), torch.full((960,), 1 / 960, dtype=torch.float64))
    sampler = learned(steep, config)
    fresh.load_state_dict(sampler.state_dict())
    assert torch.equal(fresh.density(20, 980), sampler.density(20, 980))
    assert not TimestepSampler(TimestepConfig(), SCHEDULE).state_dict()
    partly = TimestepSampler(config, SCHEDULE)
    partly.update(torch.tensor([990]), torch.ones(1, 1, 2, 2))
    torch.testing.assert_close(partly.density(20, 980), torch.full((960,), 1 / 960, dtype=torch.float64))


@pytest.mark.parametrize("schedule", [SCHEDULE, NoiseSchedule.rectified_flow()])
def test_dreamtime_spends_its_weights_from_the_top_down(schedule: NoiseSchedule) -> None:
    sampler = TimestepSampler(TimestepConfig(order="dreamtime"), schedule)
    path = [sampler(2, i / 200, torch.Generator()).timestep.tolist() for i in range(201)]
    assert all(first == second for first, second in path), "all images of a step alike"
    levels = [first for first, _ in path]
    assert levels == sorted(levels, reverse=True) and levels[0] == 979 and levels[-1] == 20
    weights = []
    for t in range(20, 980):
        bell = math.exp(-((t - 800) ** 2) / (2 * 300**2)) if t > 800 else 1.0
        bell = math.exp(-((t - 500) ** 2) / (2 * 100**2)) if t < 500 else bell
        weights.append(bell * float(schedule.sigmas[t]) / float(schedule.alphas[t]))
    for progress in (0.1, 0.35, 0.5, 0.8):
        t = levels[round(progress * 200)]
        passed = [sum(weights[each - 20 :]) / sum(weights) for each in (t + 1, t, t - 1)]
        assert abs(passed[1] - progress) <= min(abs(passed[0] - progress), abs(passed[2] - progress)) + 1e-9


def test_linear_order_falls_evenly_from_the_maximum_to_the_minimum() -> None:
    config = TimestepConfig(order="linear")
    levels = [int(draw(config, 1, progress=i / 10).timestep) for i in range(11)]
    assert levels == [round(20 + (1 - i / 10) * 959) for i in range(11)]


def test_orders_that_draw_nothing_take_no_strata_and_no_importance() -> None:
    with pytest.raises(ValueError, match=r"unknown timesteps\.order 'falling': use one of random, linear, dreamtime"):
        config = TimestepConfig()
        config.order = "falling"  # pyright: ignore[reportAttributeAccessIssue]
        config.__post_init__()
    for settings in ({"stratified": True}, {"importance": True}):
        with pytest.raises(ValueError, match=r"timesteps\.order=linear is deterministic; set stratified=false"):
            TimestepConfig(order="linear", **settings)
