"""A matrix of low rank has zero mean whatever it has learned, finds what no gain can follow, comes back to the bit."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from noisy_samples import MIDDLE, SIZE, seeded
from noisy_samples import draw as draw_at
from safetensors.torch import load, save
from small_world import TwoModes, make_geometry
from torch import Tensor
from zero_mean import drift, mean_ratio

from steindreamer.distill import ControlVariateConfig, Distiller, NoisySample, SSDConfig
from steindreamer.distill.control_variates.coefficients import Observation
from steindreamer.distill.control_variates.low_rank import LowRankTerm
from steindreamer.distill.methods.csd import CSDConfig
from steindreamer.distill.variance.probe import probe_noise_variance

draw = partial(draw_at, timestep=500)


def observed(sample: NoisySample, matrix: Tensor, mean: Tensor | float = 0.0) -> Observation:
    """eps_hat = noise + matrix noise + mean."""
    noise = sample.noise
    prediction = noise + (noise.flatten(1) @ matrix.T).view_as(noise) + mean
    return Observation(prediction, noise[None][:0], prediction, sample.sigma**2, sample.timestep, sample)


def low_rank_matrix(size: int, rank: int, seed: int = 3) -> Tensor:
    """Symmetric, with eigenvalues 1 and -1: of equal strength, so that the principal directions never come to rest."""
    directions = torch.linalg.qr(torch.randn(size, rank, generator=seeded(seed)))[0]
    return directions * (-1.0) ** torch.arange(rank) @ directions.T


def taught(term: LowRankTerm, images: int, matrix: Tensor, mean: Tensor | float = 0.0, **size: int) -> LowRankTerm:
    for seed in range(images // 4):
        term.learn(observed(draw(4, 1000 + seed, **size), matrix, mean))
    return term


def applied(term: LowRankTerm, sample: NoisySample) -> Tensor:
    return term.terms(sample, make_geometry(len(sample.noise)))[-1]


def test_it_finds_the_matrix_whatever_the_mean() -> None:
    """A residual that is a matrix of rank 3 times the noise, and a constant image ten times as strong beside it."""
    matrix, mean = low_rank_matrix(192, 3), 5 * torch.randn(3, SIZE, SIZE, generator=seeded(8))
    term = taught(LowRankTerm(1000, rank=6, ridge=1e-3, decay=1.0), 160, matrix, mean)
    sample = draw(16, 1)
    expected = -(sample.noise.flatten(1) @ matrix.T).view_as(sample.noise)
    assert (applied(term, sample) - expected).norm() < 0.05 * expected.norm()


def test_directions_are_those_of_all_residuals_at_once() -> None:
    """With room for all of them, sums and directions taken image by image are a batch's."""
    term, matrix = LowRankTerm(1000, rank=30, decay=1.0), torch.randn(192, 192, generator=seeded(4))
    samples = [draw(4, seed) for seed in range(5)]
    for sample in samples:
        term.learn(observed(sample, matrix))
    noise = torch.cat([sample.noise.flatten(1) for sample in samples]) * samples[0].sigma[0, 0, 0] ** 2
    residual = noise @ matrix.T
    _, strength, directions = torch.linalg.svd((residual - residual.mean(0)).double(), full_matrices=False)
    torch.testing.assert_close(term.energy[4, :19], strength[:19].square(), rtol=1e-4, atol=0)
    assert term.energy[4, 19:].abs().max() == 0
    overlap = (term.directions[4].flatten(1)[:19].double() @ directions[:19].T).abs()
    torch.testing.assert_close(overlap, torch.eye(19, dtype=torch.float64), atol=1e-3, rtol=0)


def test_zero_mean_whatever_it_has_learned() -> None:
    term = taught(LowRankTerm(1000), 80, torch.randn(192, 192, generator=seeded(4)) / 5, 2.0)
    sample = draw(4096, 50)
    h = applied(term, sample)
    assert h.std() > 0.1
    assert mean_ratio(h) < 1.6  # at least 24 degrees of freedom
    assert abs(drift(h, sample.noise)) < 4
    even = h + 0.3 * (sample.noise.square() - 0.5) * h.std()
    assert mean_ratio(even) > 3  # the test sees what is not odd


class MovingPrior(TwoModes):
    """Moves along four images: the residual is a mean and -P noise, with P of rank four."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.images = torch.linalg.qr(torch.randn(3 * size * size, 4, generator=seeded(9)))[0]

    def positive(self, sample: NoisySample) -> Tensor:
        noise = sample.noise.flatten(1)
        moved = noise @ self.images @ self.images.T
        return (noise - 3 * moved).view_as(sample.noise) + 0.1 * self.mode


def probed(baseline: list[str], steps: int) -> tuple[float, Tensor]:
    """Within-noise variance relative to SDS after `steps`, and the mean gradient over fresh noises."""
    size = 16
    image, geometry = torch.rand(1, 3, size, size, generator=seeded(5)).expand(8, -1, -1, -1), make_geometry(8, size)
    config = SSDConfig(control_variates=ControlVariateConfig(baseline), guidance_scale=1.0, timesteps=MIDDLE)
    distiller, generator = config.build(MovingPrior(size)), seeded()
    for _ in range(steps):
        distiller.update(distiller(image, geometry, None, progress=0.0, generator=generator))
    probes = [
        probe_noise_variance(distiller, image, geometry, None, progress=0.0, generator=seeded(100 + each))
        for each in range(10)
    ]
    middle = torch.full((8,), 500)
    gradients = [
        distiller(image, geometry, None, progress=0.0, generator=seeded(200 + each), timestep=middle).gradient
        for each in range(60)
    ]
    within = sum(each.within_noise for each in probes) / sum(each.within_noise_sds for each in probes)
    return within, torch.cat(gradients)


@pytest.mark.parametrize("carrier", ["spectral", "noise"])
def test_it_removes_variance_that_no_gain_can_and_leaves_the_mean(carrier: str) -> None:
    before, sds = probed([carrier, "low_rank"], 0)
    assert before == pytest.approx(1, abs=1e-6)  # begins as SDS
    assert probed([carrier], 40)[0] > 0.9
    within, gradients = probed([carrier, "low_rank"], 40)
    assert within < 0.3
    error = (gradients.mean(0) - sds.mean(0)).square().sum()
    assert error < 2 * (sds.var(0).sum() + gradients.var(0).sum()) / len(sds)
    assert error < 0.02 * sds.mean(0).square().sum()


def test_alone_it_carries_the_noise() -> None:
    assert probed(["low_rank"], 0)[0] == pytest.approx(1, abs=1e-6)
    assert probed(["low_rank"], 40)[0] < 0.3


def advance(distiller: Distiller, generator: torch.Generator, steps: int, size: int = SIZE) -> Tensor:
    image, gradients = torch.rand(2, 3, size, size, generator=seeded(5)), []
    for _ in range(steps):
        out = distiller(image, make_geometry(2, size), None, progress=0.0, generator=generator)
        distiller.update(out)
        gradients.append(out.gradient)
    return torch.cat([image[:0], *gradients])


@pytest.mark.parametrize("before", [0, 9])
@pytest.mark.parametrize("baseline", [["low_rank"], ["spectral", "low_rank", "learned"]])
def test_a_restored_run_continues_to_the_bit(baseline: list[str], before: int) -> None:
    config, generator = SSDConfig(control_variates=ControlVariateConfig(baseline), timesteps=MIDDLE), seeded()
    original = config.build(TwoModes())
    advance(original, generator, before)
    saved, random_state = save(original.state_dict()), generator.get_state()
    expected = advance(original, generator, 4)
    restored = config.build(TwoModes())
    advance(restored, seeded(1), 2)  # whatever it had learned is forgotten
    restored.load_state_dict(load(saved))
    generator.set_state(random_state)
    assert torch.equal(advance(restored, generator, 4), expected)


def test_another_size_of_image_begins_anew() -> None:
    matrix, large = low_rank_matrix(192, 3), low_rank_matrix(4 * 12 * 20, 3)
    term = taught(LowRankTerm(1000), 40, matrix)
    sample = draw(2, 1, 4, 12, 20)
    assert applied(term, sample).abs().max() == 0
    fresh = taught(LowRankTerm(1000), 40, large, channels=4, height=12, width=20)
    taught(term, 40, large, channels=4, height=12, width=20)
    assert applied(term, sample).abs().max() > 0
    assert torch.equal(applied(term, sample), applied(fresh, sample))


def test_it_learns_only_in_update_and_not_from_what_is_not_finite() -> None:
    term, sample, matrix = taught(LowRankTerm(1000), 20, low_rank_matrix(192, 3)), draw(2, 9), low_rank_matrix(192, 3)
    before = {key: value.clone() for key, value in term.state_dict().items()}
    applied(term, sample)
    seen = observed(sample, matrix)
    term.learn(replace(seen, prediction=seen.prediction * torch.inf))
    assert all(torch.equal(value, before[key]) for key, value in term.state_dict().items())
    term.learn(seen)
    assert not torch.equal(term.directions, before["directions"])


def test_ranges_of_timesteps_learn_by_themselves() -> None:
    term = taught(LowRankTerm(1000), 40, low_rank_matrix(192, 3))
    sample = draw(1, 1)
    assert applied(term, replace(sample, timestep=torch.tensor([599]))).abs().max() > 0
    assert applied(term, replace(sample, timestep=torch.tensor([630]))).abs().max() == 0


def test_a_method_without_noise_of_its_own_has_none_taken_off() -> None:
    shares = []
    joined, alone = ControlVariateConfig(["noise", "low_rank"]), ControlVariateConfig(["low_rank"])
    for config in (SSDConfig(control_variates=joined), CSDConfig(control_variates=alone)):
        term = config.build(TwoModes()).control_variates[-1]
        assert isinstance(term, LowRankTerm)
        shares.append((term.names, term.initial, term.noise_share))
    assert shares == [(("low_rank",), (0.0,), 1.0), (("low_rank",), (0.0,), 0.0)]


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'low_rank' predicts .* antithetic"):
        SSDConfig(control_variates=ControlVariateConfig(["spectral", "low_rank"]), antithetic=True).build(TwoModes())
    for bins, rank, ridge, decay in ((0, 2, 1.0, 1.0), (8, 0, 1.0, 1.0), (8, 2, 0.0, 1.0), (8, 2, 1.0, 1.5)):
        with pytest.raises(ValueError, match="rank >= 1"):
            LowRankTerm(1000, bins, rank=rank, ridge=ridge, decay=decay)
    with pytest.raises(ValueError, match="no sample"):
        LowRankTerm(1000).learn(replace(observed(draw(1, 0), low_rank_matrix(192, 1)), sample=None))
