"""The variance probe against closed forms: a Gaussian prior's SDS residual is linear in the noise."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from predicted_noise import noise_pair
from small_world import SIZE, TwoModes, make_geometry

from steindreamer.distill import (
    METHODS,
    GaussianMixture,
    MethodConfig,
    NoiseRequest,
    Prior,
    SDSConfig,
    SSDConfig,
    TimestepConfig,
)
from steindreamer.distill.priors.base import LoRAPrior
from steindreamer.distill.priors.counting import counting
from steindreamer.distill.priors.mixture import MixturePrior
from steindreamer.distill.variance.probe import BINS, EstimatorVariance, ProbeView, count_predictions, probe_variance

DEVIATION, MEAN = 0.5, 0.3
LEVEL = TimestepConfig(0.5, 0.501, 0.501)  # a single noise level
SHADES = torch.tensor([0.2, 0.6])


class Wall:
    """A linear renderer: every pixel is the color times one of two lamps, drawn at random (the "camera")."""

    def __init__(self, prior: Prior) -> None:
        self.color = torch.tensor([0.4, 0.5, 0.7]).requires_grad_()
        self.offset = torch.zeros(2).requires_grad_()  # not used by any image
        self.prior = prior

    def draw(self, generator: torch.Generator) -> ProbeView:
        lamp = SHADES[torch.randint(2, (), generator=generator)]
        image = (self.color * lamp)[None, :, None, None].expand(1, 3, SIZE, SIZE)
        return ProbeView(image, make_geometry(1), self.prior.embed("this"))


@pytest.fixture
def gaussian() -> MixturePrior:
    means = torch.full((1, 3, SIZE, SIZE), MEAN)
    return MixturePrior(GaussianMixture.isotropic(means, DEVIATION), {"this": [0]})


def measure(prior: Prior, seed: int = 0, tuples: int = 400, **methods: MethodConfig) -> dict[str, EstimatorVariance]:
    wall, generator = Wall(prior), torch.Generator().manual_seed(seed)
    distillers = {name: config.build(prior) for name, config in methods.items()}
    parameters = [wall.color, wall.offset]
    return probe_variance(distillers, wall.draw, parameters, tuples=tuples, progress=0.0, generator=generator)


def test_sds_of_a_gaussian_prior_is_known_in_closed_form(gaussian: MixturePrior) -> None:
    """residual = (sigma^2 / C - 1) eps + (sigma alpha / C) (x0 - mean), C = alpha^2 s^2 + sigma^2, w = sigma^2."""
    found = measure(gaussian, sds=SDSConfig(guidance_scale=1.0, timesteps=LEVEL))["sds"]
    alpha, sigma = (float(value) for value in gaussian.schedule.at(torch.tensor([500])))
    variance = alpha**2 * DEVIATION**2 + sigma**2
    pixels, weight = 3 * SIZE**2, sigma**2
    noise = pixels * (weight * (sigma**2 / variance - 1)) ** 2
    assert found.image.noise == pytest.approx(noise, rel=0.02)
    # J^T sums a channel's pixels, times the derivative of the encoded pixel, 2 * lamp.
    jacobian = float((2 * SHADES).square().mean()) * SIZE**2
    noise = 3 * jacobian * (weight * (sigma**2 / variance - 1)) ** 2
    assert found.parameters.noise == pytest.approx(noise, abs=4 * found.parameters.noise_error)
    assert abs(found.parameters.level) < 4 * found.parameters.level_error, "there is one level"
    pull = torch.stack([2 * lamp * torch.tensor([0.4, 0.5, 0.7]) - 1 - MEAN for lamp in SHADES])
    means = weight * sigma * alpha / variance * pull * 2 * SHADES[:, None] * SIZE**2
    between = float((means - means.mean(0)).square().sum(1).mean())
    assert found.parameters.camera == pytest.approx(between, rel=0.05)
    assert found.parameters.signal == pytest.approx(float(means.mean(0).square().sum()), rel=0.1)
    assert found.parameters.noise_to_signal == pytest.approx(
        (noise + between) / float(means.mean(0).square().sum()), rel=0.15
    )


def test_the_variance_over_the_level_and_that_of_several_draws(gaussian: MixturePrior) -> None:
    """Antithetic pairs leave the mean over the noise, which is known in closed form at every level and lamp."""
    levels = TimestepConfig(0.2, 0.8, 0.8)
    sds = SDSConfig(guidance_scale=1.0, timesteps=levels)
    pairs = replace(sds, antithetic=True)
    found = measure(gaussian, tuples=120, sds=sds, pairs=pairs, four=replace(pairs, draws=4))
    alpha, sigma = (each.flatten() for each in gaussian.schedule.at(torch.arange(200, 800)))
    strength = sigma**3 * alpha / (alpha**2 * DEVIATION**2 + sigma**2)
    pull = torch.stack([2 * lamp * torch.tensor([0.4, 0.5, 0.7]) - 1 - MEAN for lamp in SHADES])
    means = strength[:, None, None] * pull * 2 * SHADES[:, None] * SIZE**2  # [level, lamp, color]
    level = float((means - means.mean(0)).square().sum(2).mean())
    by_lamp = means.mean(0)
    camera = float((by_lamp - by_lamp.mean(0)).square().sum(1).mean())
    for name, draws in (("pairs", 1), ("four", 4)):
        moments = found[name].parameters
        assert moments.camera == pytest.approx(camera, abs=4 * moments.camera_error)
        assert moments.level < 1.5 * level / draws and found[name].calls == 2 * draws and found[name].draws == draws
    own = found["pairs"].parameters
    assert own.level == pytest.approx(level, abs=4 * own.level_error) and own.level_error < 0.35 * level
    assert found["four"].parameters.level < 0.1 * level, "draws in strata of a smooth function"
    cost = found["four"].cost
    assert cost.within == 4 * found["four"].parameters.within_view and cost.view_seconds > 0


def test_antithetic_noise_leaves_no_variance_over_the_noise_of_a_linear_residual(gaussian: MixturePrior) -> None:
    sds = SDSConfig(guidance_scale=7.5, timesteps=LEVEL)
    found = measure(gaussian, tuples=60, sds=sds, pairs=replace(sds, antithetic=True))
    assert found["pairs"].parameters.noise < 1e-8 * found["sds"].parameters.noise
    assert (found["sds"].calls, found["pairs"].calls) == (2, 4)
    assert found["pairs"].parameters.cosine == pytest.approx(1.0, abs=0.05)


def test_the_same_draws_for_every_method() -> None:
    """A learned control variate that has learned nothing yet is SDS, gradient by gradient."""
    sds, ssd = SDSConfig(guidance_scale=1.0), SSDConfig(guidance_scale=1.0)
    found = measure(TwoModes(), tuples=40, ssd=ssd, sds=sds)
    assert found["ssd"].parameters.noise == pytest.approx(found["sds"].parameters.noise, rel=1e-4)
    assert found["ssd"].parameters.bias == pytest.approx(0.0, abs=1e-6)


def test_shares_by_noise_level_add_up_and_stay_where_levels_are_drawn() -> None:
    upper = TimestepConfig(0.5, 0.98, 0.98)
    found = measure(TwoModes(), tuples=40, sds=SDSConfig(guidance_scale=1.0, timesteps=upper))["sds"]
    assert sum(found.fractions) == pytest.approx(1.0) and len(found.fractions) == BINS
    assert not any(found.fractions[: BINS // 2])


@pytest.mark.parametrize("method", ["sds", "ssd"])
def test_probing_is_repeatable_and_changes_no_state(method: str) -> None:
    prior, wall = TwoModes(), Wall(TwoModes())
    distillers = {"sds": SDSConfig().build(prior), "own": METHODS[method]().build(prior)}
    before = {name: value.clone() for name, value in distillers["own"].state_dict().items()}

    def run() -> float:
        generator = torch.Generator().manual_seed(4)
        found = probe_variance(distillers, wall.draw, [wall.color], tuples=8, progress=0.5, generator=generator)
        return found["own"].parameters.total

    torch.manual_seed(0)
    whole = torch.get_rng_state()
    assert run() == run()
    assert torch.equal(whole, torch.get_rng_state()), "the global generator is not touched"
    after = distillers["own"].state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert wall.color.grad is None


def test_bad_requests_are_refused() -> None:
    for tuples in (0, 4, 10):
        with pytest.raises(ValueError, match="multiple of 4 tuples"):
            measure(TwoModes(), tuples=tuples, sds=SDSConfig())
    with pytest.raises(ValueError, match="needs 'sds' as the reference"):
        measure(TwoModes(), ssd=SSDConfig())


def test_predictions_are_counted_by_image_and_prompt() -> None:
    prior = TwoModes()
    sample = prior.schedule.add_noise(torch.zeros(3, 3, SIZE, SIZE), torch.zeros(3, 3, SIZE, SIZE), torch.full((3,), 9))
    counter = counting(prior)
    both = counter.predict_noise([NoiseRequest(sample), NoiseRequest(sample, "negative")], None)
    counter.predict_noise([NoiseRequest(sample)], None)
    assert counter.calls == [6, 3] and counter.predictions == 9
    for one, other in zip(both, noise_pair(prior, sample, None), strict=True):
        assert torch.equal(one, other)
    image = torch.rand(3, 3, SIZE, SIZE)
    assert torch.equal(counter.decode(counter.encode(image)), prior.decode(prior.encode(image)))
    assert isinstance(counter, Prior) and not isinstance(counter, LoRAPrior)


def test_a_distiller_is_counted_only_within_the_context() -> None:
    prior = TwoModes()
    distiller, generator = SDSConfig().build(prior), torch.Generator().manual_seed(0)

    def step() -> None:
        distiller(torch.rand(2, 3, SIZE, SIZE), make_geometry(2), None, progress=0.0, generator=generator)

    with count_predictions(distiller) as counter:
        step()
    step()
    assert counter.calls == [4] and distiller.prior is prior


def test_moments_that_nobody_can_know_are_nan() -> None:
    class Still(Wall):
        def draw(self, generator: torch.Generator) -> ProbeView:
            view = super().draw(generator)
            return replace(view, image=view.image * 0 + 0.5)

    prior = TwoModes()
    still = Still(prior)
    found = probe_variance(
        {"sds": SDSConfig().build(prior)}, still.draw, [still.color], tuples=8, progress=0.0,
        generator=torch.Generator().manual_seed(0),
    )["sds"]  # fmt: skip
    assert found.parameters.total == 0 and math.isnan(found.parameters.noise_to_signal)
    assert isinstance(found.fractions, tuple) and not any(found.fractions)
