"""The learned control variate is odd in the noise for any weights, learns only afterward, and resumes bit-exactly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from noisy_samples import MIDDLE, SIZE, draw, seeded
from safetensors.torch import load, save
from small_world import TwoModes, make_geometry
from torch import Tensor
from zero_mean import drift, mean_ratio

from steindreamer.distill import (
    ControlVariate,
    ControlVariateConfig,
    Distiller,
    NoisySample,
    SSDConfig,
)
from steindreamer.distill.control_variates.coefficients import Observation, RunningRegression
from steindreamer.distill.control_variates.learned import LearnedTerm
from steindreamer.distill.control_variates.terms import SpectralTerm
from steindreamer.distill.methods.csd import CSDConfig
from steindreamer.distill.variance.probe import probe_noise_variance


def observe(sample: NoisySample) -> Observation:
    """A prediction that has a part odd in the noise and an even one."""
    prediction = sample.noise.flip(-1) * sample.clean + sample.noise.square() + 3
    weight = sample.sigma**2
    return Observation(prediction, sample.noise[None][:0], prediction, weight, sample.timestep, sample)


def taught(steps: int = 6, channels: int = 3, height: int = SIZE, width: int = SIZE) -> LearnedTerm:
    learned = LearnedTerm()
    for seed in range(steps):
        learned.learn(observe(draw(3, seed, channels, height, width)))
    return learned


def mirrored(sample: NoisySample) -> NoisySample:
    return replace(sample, noise=-sample.noise)


@pytest.mark.parametrize(("channels", "height", "width"), [(3, 8, 8), (4, 12, 20), (1, 5, 7)])
def test_odd_in_the_noise_to_the_bit(channels: int, height: int, width: int) -> None:
    learned = taught(3, channels, height, width)
    sample = draw(2, 99, channels, height, width)
    h = learned.terms(sample, make_geometry(2))
    assert h.abs().max() > 1e-4
    assert torch.equal(h, -learned.terms(mirrored(sample), make_geometry(2)))


def test_zero_mean_whatever_it_has_learned() -> None:
    learned = taught(20)
    sample = draw(512, 50)
    (h,) = learned.terms(sample, make_geometry(512))
    assert mean_ratio(h) < 1.4
    assert abs(drift(h, sample.noise)) < 4
    even = h + 0.3 * (sample.noise.square() - 0.5) * h.std()
    assert mean_ratio(even) > 3  # the test sees what is not odd


class MovingPrior(TwoModes):
    """Moves along one image, the given one: the residual is -P noise with P of rank one."""

    def positive(self, sample: NoisySample) -> Tensor:
        direction = sample.clean / sample.clean.square().sum((1, 2, 3), keepdim=True).sqrt()
        moved = direction * (direction * sample.noise).sum((1, 2, 3), keepdim=True)
        return sample.noise - moved


def within_noise(variate: ControlVariate, steps: int) -> float:
    """Of SDS's, on noise that nothing has learned from, after `steps` at one image."""
    image, geometry = torch.rand(1, 3, 16, 16, generator=seeded(5)).expand(4, -1, -1, -1), make_geometry(4, 16)
    coefficients = RunningRegression(variate.initial, 1000)
    distiller = Distiller(MovingPrior(16), [variate], coefficients, guidance_scale=1.0, timesteps=MIDDLE)
    generator = seeded()
    for _ in range(steps):
        distiller.update(distiller(image, geometry, None, progress=0.0, generator=generator))
    probes = [
        probe_noise_variance(distiller, image, geometry, None, progress=0.0, generator=seeded(100 + each))
        for each in range(20)
    ]
    return sum(each.within_noise for each in probes) / sum(each.within_noise_sds for each in probes)


def test_learning_removes_variance_that_no_gain_can() -> None:
    learned = LearnedTerm(carries_noise=True, learning_rate=1e-2)
    assert within_noise(learned, 0) == pytest.approx(1, abs=1e-6)  # begins as SDS
    assert within_noise(SpectralTerm(), 60) > 0.9
    assert within_noise(learned, 120) < 0.7


def advance(distiller: Distiller, generator: torch.Generator, steps: int) -> Tensor:
    image, gradients = torch.rand(2, 3, SIZE, SIZE, generator=seeded(5)), []
    for _ in range(steps):
        out = distiller(image, make_geometry(2), None, progress=0.0, generator=generator)
        distiller.update(out)
        gradients.append(out.gradient)
    return torch.cat([image[:0], *gradients])


@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("baseline", [["learned"], ["spectral", "learned"]])
def test_a_restored_run_continues_to_the_bit(baseline: list[str], before: int) -> None:
    config, generator = SSDConfig(control_variates=ControlVariateConfig(baseline)), seeded()
    original = config.build(TwoModes())
    advance(original, generator, before)
    saved, random_state = save(original.state_dict()), generator.get_state()
    expected = advance(original, generator, 3)
    restored = config.build(TwoModes())
    advance(restored, seeded(1), 1)  # whatever it had learned is forgotten
    restored.load_state_dict(load(saved))
    generator.set_state(random_state)
    assert torch.equal(advance(restored, generator, 3), expected)


def test_no_random_numbers_are_taken_from_the_run() -> None:
    states = []
    for baseline in (["noise"], ["noise", "learned"]):
        generator, everywhere = seeded(), torch.get_rng_state()
        advance(SSDConfig(control_variates=ControlVariateConfig(baseline)).build(TwoModes()), generator, 2)
        assert torch.equal(torch.get_rng_state(), everywhere)
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_it_learns_only_in_update_and_not_from_what_is_not_finite() -> None:
    learned, sample = taught(2), draw(2, 9)
    before = {key: value.clone() for key, value in learned.state_dict().items()}
    learned.terms(sample, make_geometry(2))
    seen = observe(sample)
    learned.learn(replace(seen, prediction=seen.prediction * torch.inf))
    assert all(torch.equal(value, before[key]) for key, value in learned.state_dict().items())
    learned.learn(seen)
    assert not torch.equal(learned.state_dict()["network.factors.weight"], before["network.factors.weight"])


def test_images_may_change_their_size() -> None:
    learned = taught(2)
    learned.learn(observe(draw(2, 7, height=16, width=24)))
    assert learned.terms(draw(1, 8), make_geometry(1)).abs().max() > 0


def test_small_enough() -> None:
    network = taught(1).network
    assert network is not None
    assert sum(parameter.numel() for parameter in network.parameters()) < 100_000


def test_a_method_without_noise_of_its_own_has_none_taken_off() -> None:
    """VSD's counterpart stands for the noise already."""
    shares = []
    joined, alone = ControlVariateConfig(["noise", "learned"]), ControlVariateConfig(["learned"])
    for config in (SSDConfig(control_variates=joined), CSDConfig(control_variates=alone)):
        learned = config.build(TwoModes()).control_variates[-1]
        assert isinstance(learned, LearnedTerm)
        shares.append((learned.names, learned.initial, learned.noise_share))
    assert shares == [(("learned",), (0.0,), 1.0), (("learned",), (0.0,), 0.0)]


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="antithetic"):
        SSDConfig(control_variates=ControlVariateConfig(["spectral", "learned"]), antithetic=True).build(TwoModes())
    with pytest.raises(ValueError, match="features"):
        LearnedTerm(features=6)
    with pytest.raises(ValueError, match="no sample"):
        LearnedTerm().learn(replace(observe(draw(1, 0)), sample=None))
