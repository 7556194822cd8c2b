"""Several draws of timestep and noise per view: the mean, the parts that timesteps are drawn from, and reuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_world import SIZE, TwoModes, make_geometry
from torch import Tensor

from steindreamer.distill import (
    METHODS,
    ControlVariateConfig,
    Distillation,
    Distiller,
    GaussianMixture,
    GeometryBuffers,
    GeometryEstimator,
    MethodConfig,
    NoiseSchedule,
    SDSConfig,
    SSDConfig,
    TimestepConfig,
)
from steindreamer.distill.noise.timesteps import TimestepSampler
from steindreamer.distill.priors.counting import counting
from steindreamer.distill.priors.mixture import MixturePrior

SCHEDULE = NoiseSchedule.scaled_linear()
MEAN, DEVIATION = 0.3, 0.5


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def parts(config: TimestepConfig, batch: int, draws: int, seed: int = 0) -> Tensor:
    """Timesteps in [0, 1) of the range from 100 to 900, one row per draw."""
    timestep = TimestepSampler(config, SCHEDULE)(batch, 0.0, seeded(seed), draws).timestep
    return ((timestep - 100) / 800).reshape(draws, batch)


@pytest.mark.parametrize("stratified", [False, True])
def test_the_draws_of_a_view_lie_in_different_parts_of_the_range(stratified: bool) -> None:
    config = TimestepConfig(0.1, 0.9, 0.9, stratified=stratified)
    found = torch.stack([parts(config, 5, 4, seed) for seed in range(300)])
    assert torch.equal((found * 4).long(), torch.arange(4)[None, :, None].expand(300, 4, 5))
    fine = (found * 20).long().flatten(1).sort(1).values
    assert bool((fine == torch.arange(20)).all()) is stratified
    own = found.mean(1)  # the mean over the draws of each view is unbiased, whatever its place in the batch
    assert ((own.mean(0) - 0.5 + 0.5 / 800).abs() < 4 * own.std(0) / 300**0.5).all()
    assert own.std() < 0.5 * 12**-0.5 / 4**0.5


def test_one_draw_takes_the_random_numbers_of_the_plain_sampler() -> None:
    plain = TimestepSampler(TimestepConfig(), SCHEDULE)(7, 0.0, seeded())
    assert torch.equal(plain.timestep, torch.randint(20, 980, (7,), generator=seeded()))
    stratified = TimestepSampler(TimestepConfig(stratified=True), SCHEDULE)(7, 0.0, seeded())
    generator = seeded()
    position = torch.rand(7, generator=generator, dtype=torch.float64)
    position = (torch.randperm(7, generator=generator) + position) / 7
    assert torch.equal(stratified.timestep, 20 + (position * 960).long())


WAYS: dict[str, MethodConfig] = {
    "plain": SDSConfig(),
    "stratified": SDSConfig(timesteps=TimestepConfig(stratified=True)),
    "importance": SDSConfig(timesteps=TimestepConfig(importance=True)),
    "stratified importance": SDSConfig(timesteps=TimestepConfig(importance=True, stratified=True)),
    "antithetic": SDSConfig(antithetic=True),
    "spectral": SSDConfig(control_variates=ControlVariateConfig(["spectral"])),
}


@pytest.mark.parametrize(("name", "independent"), [*((name, None) for name in WAYS), ("stratified importance", 3)])
def test_the_mean_of_three_draws_is_that_of_one(name: str, independent: int | None) -> None:
    """Against the closed form of a Gaussian prior: the mean of w(t) sigma alpha / C (x0 - mean) over the timesteps."""
    means = torch.full((1, 3, SIZE, SIZE), MEAN)
    prior = MixturePrior(GaussianMixture.isotropic(means, DEVIATION), {"this": [0]})
    config = WAYS[name]
    config.guidance_scale, config.draws = 1.0, 3
    distiller, generator = config.build(prior), seeded(1)
    image = torch.rand(16, 3, SIZE, SIZE, generator=seeded(5))
    geometry, condition = make_geometry(16), prior.embed("this")
    alpha, sigma = prior.schedule.at(torch.arange(20, 980))
    strength = (sigma**3 * alpha / (alpha**2 * DEVIATION**2 + sigma**2)).mean()
    expected = float(strength) * (prior.encode(image) - MEAN) / 16
    direction = expected / expected.norm()
    found = []
    for _ in range(50):
        out = distiller(image, geometry, condition, progress=0.0, generator=generator, independent_draws=independent)
        distiller.update(out)
        found.append((out.gradient * direction).sum())
    values = torch.stack(found[10:])
    error = float(values.std()) / len(values) ** 0.5
    assert abs(float(values.mean() - expected.norm())) < 4 * error
    assert error < 0.1 * float(expected.norm()), "a wrong scale would be seen"


def step(distiller: Distiller, image: Tensor, geometry: GeometryBuffers, seed: int = 0, **given: Any) -> Distillation:
    return distiller(image, geometry, None, progress=0.3, generator=seeded(seed), **given)


def with_draws(name: str, draws: int, estimator: GeometryEstimator) -> Distiller:
    settings: dict[str, Any] = {"timesteps": TimestepConfig()} if name in ("sdi", "cfd") else {}
    return METHODS[name](draws=draws, **settings).build(TwoModes(), estimator)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "vsd"])
def test_every_method_averages_its_draws_and_learns_from_each(
    name: str, estimator: GeometryEstimator, geometry: GeometryBuffers, image: Tensor
) -> None:
    distiller = with_draws(name, 3, estimator)
    out = step(distiller, image, geometry)
    timestep = torch.cat([each.timestep for each in out.observations])
    samples = [each.sample.noise for each in out.observations if each.sample is not None]
    singly = with_draws(name, 1, estimator)
    alone = [
        step(singly, image, geometry, timestep=each, noise=noise)
        for each, noise in zip(timestep.split(2), samples, strict=True)
    ]
    torch.testing.assert_close(out.gradient, torch.stack([each.gradient for each in alone]).mean(0))
    assert torch.equal(torch.autograd.grad(out.loss, image)[0], 2 * out.gradient)
    again = step(distiller, image, geometry, timestep=timestep, noise=torch.cat(samples))
    assert torch.equal(again.gradient, out.gradient)
    distiller.update(out)
    for each in alone:
        singly.update(each)
    learned, expected = distiller.state_dict(), singly.state_dict()
    assert learned.keys() == expected.keys()
    assert all(torch.equal(learned[key], expected[key]) for key in learned)


def test_a_view_is_encoded_once_and_each_draw_calls_the_prior(geometry: GeometryBuffers, image: Tensor) -> None:
    prior = TwoModes()
    encoded: list[Tensor] = []
    encode = prior.encode
    prior.encode = lambda image: encoded.append(image) or encode(image)  # type: ignore[method-assign]
    counter = counting(prior)
    step(SDSConfig(draws=4, antithetic=True).build(counter), image, geometry)
    assert len(encoded) == 1 and counter.calls == [4] * 8


@pytest.mark.parametrize("draws", [1, 3])
def test_reuse_starts_at_the_step_and_keeps_the_mean_stiffness(
    draws: int, geometry: GeometryBuffers, image: Tensor
) -> None:
    distiller = SDSConfig(draws=draws).build(TwoModes())
    first = step(distiller, image, geometry)
    again = distiller.reuse(first, image)
    assert torch.equal(again.gradient, first.gradient) and torch.equal(again.loss, first.loss)
    away = 0.1 * torch.randn(image.shape, generator=seeded(1))
    moved = distiller.reuse(first, (image.detach() + away).requires_grad_())
    ratios = []
    for each in first.observations:
        alpha, sigma = distiller.prior.schedule.at(each.timestep)
        ratios.append(each.weight * alpha / sigma)
    stiffness = torch.stack(ratios).mean(0)
    torch.testing.assert_close(moved.gradient, first.gradient + stiffness * 2 * away / 2, rtol=1e-4, atol=1e-5)
    assert torch.equal(distiller.reuse(moved, moved.clean / 2 + 0.5).residual, moved.residual)


def test_several_draws_have_less_variance(geometry: GeometryBuffers, image: Tensor) -> None:
    def variance(draws: int) -> float:
        distiller = SDSConfig(draws=draws).build(TwoModes())
        return float(torch.stack([step(distiller, image, geometry, seed).gradient for seed in range(100)]).var(0).sum())

    assert 0.15 * variance(1) < variance(4) < 0.3 * variance(1)


def test_numbers_of_draws_that_do_not_fit_are_refused(geometry: GeometryBuffers, image: Tensor) -> None:
    distiller = SDSConfig(draws=2).build(TwoModes())
    with pytest.raises(ValueError, match="2 draws of 2 images need 4 timesteps, got 2"):
        step(distiller, image, geometry, timestep=torch.tensor([500, 600]))
    with pytest.raises(ValueError, match=r"the given noise must hold .* of shape \(4, 3, 8, 8\)"):
        step(distiller, image, geometry, noise=torch.zeros(2, 3, SIZE, SIZE))
    for order in ("linear", "dreamtime"):
        with pytest.raises(ValueError, match=f"draws=2 averages .* timesteps.order={order} .* set draws=1"):
            SDSConfig(draws=2, timesteps=TimestepConfig(order=order))
    with pytest.raises(ValueError, match=r"draws=auto averages .* timesteps\.order=linear"):
        METHODS["sdi"](draws="auto")
    with pytest.raises(ValueError, match="draws is 0; whole numbers from 1, or auto, are accepted"):
        SDSConfig(draws=0)


def test_auto_starts_with_one_draw(geometry: GeometryBuffers, image: Tensor) -> None:
    chosen, plain = SDSConfig(draws="auto").build(TwoModes()), SDSConfig().build(TwoModes())
    assert chosen.chooses_draws and not plain.chooses_draws
    assert torch.equal(step(chosen, image, geometry).gradient, step(plain, image, geometry).gradient)
