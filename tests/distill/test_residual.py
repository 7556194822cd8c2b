"""Every method's residual against its formula, computed from the mixture itself; inversion against the exact flow."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import pytest
import torch
from small_world import make_geometry
from torch import Tensor

from steindreamer.distill import (
    METHODS,
    ControlVariateConfig,
    Distillation,
    Distiller,
    GaussianMixture,
    MethodConfig,
    NoiseRequest,
    NoiseSchedule,
    SDSConfig,
    TimestepConfig,
)
from steindreamer.distill.control_variates.coefficients import FixedCoefficients
from steindreamer.distill.control_variates.terms import NoiseTerm
from steindreamer.distill.methods.asd import ASDConfig
from steindreamer.distill.methods.bridge import BridgeConfig
from steindreamer.distill.methods.collaborative import CollaborativeConfig
from steindreamer.distill.methods.csd import CSDConfig
from steindreamer.distill.methods.ism import ISMConfig
from steindreamer.distill.methods.nfsd import NFSDConfig
from steindreamer.distill.methods.sdi import SDIConfig
from steindreamer.distill.priors.base import predict_noise
from steindreamer.distill.priors.mixture import MixturePrior
from steindreamer.distill.variance.probe import count_predictions, probe_noise_variance

BATCH, S, PROGRESS = 4, 3.0, 0.25
LEVELS = TimestepConfig(0.02, 0.9, 0.9, stratified=True)


def make_prior(schedule: NoiseSchedule | None = None) -> MixturePrior:
    means = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    mixture = GaussianMixture.isotropic(means, 0.8)
    return MixturePrior(mixture, {"wanted": [0, 1], "unwanted": [2, 3]}, schedule)


@dataclass
class Seen:
    """A finished step, and the three predictions of its mixture at any noisy images."""

    prior: MixturePrior
    clean: Tensor
    noise: Tensor
    timestep: Tensor
    residual: Tensor
    negative: bool

    def level(self, timestep: Tensor) -> tuple[Tensor, Tensor]:
        return self.prior.schedule.at(timestep)

    def noisy(self, timestep: Tensor) -> Tensor:
        alpha, sigma = self.level(timestep)
        return alpha * self.clean + sigma * self.noise

    def predict(self, noisy: Tensor, timestep: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """e_c, e_0, e_n: for the prompt, no text, and the negative prompt."""
        mixture = self.prior.mixture
        wanted, unwanted = mixture.subset([0, 1]), mixture.subset([2, 3]) if self.negative else mixture
        e_c, e_0, e_n = (each.predict_noise(noisy, *self.level(timestep)) for each in (wanted, mixture, unwanted))
        return e_c, e_0, e_n

    def guided(self, noisy: Tensor, timestep: Tensor, scale: float) -> Tensor:
        e_c, _, e_n = self.predict(noisy, timestep)
        return e_n + scale * (e_c - e_n)


def take(config: MethodConfig, *, negative: bool = True, schedule: NoiseSchedule | None = None) -> Seen:
    """One step; its noise is read from a term that carries it with the coefficient 0."""
    prior = make_prior(schedule)
    condition = prior.embed("wanted", "unwanted" if negative else "")
    distiller = config.build(prior)
    recording = Distiller(
        prior, [NoiseTerm()], FixedCoefficients([0.0], prior.schedule.steps), guidance_scale=config.guidance_scale,
        timesteps=config.timesteps, weighting=config.weighting, residual=distiller.residual,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(BATCH, 3, 4, 4, generator=generator)
    results: list[Distillation] = []
    for each in (distiller, recording):
        same = torch.Generator().manual_seed(9)
        results.append(each(image, make_geometry(BATCH, 4), condition, progress=PROGRESS, generator=same))
    assert torch.equal(results[0].residual, results[1].residual), "as published there are no terms"
    noise = -results[1].observations[0].terms[0]
    return Seen(prior, prior.encode(image), noise, results[0].observations[0].timestep, results[0].residual, negative)


def csd(seen: Seen) -> Tensor:
    e_c, e_0, e_n = seen.predict(seen.noisy(seen.timestep), seen.timestep)
    omega_2 = S * (0.8 + PROGRESS * (0.4 - 0.8))
    return S * (e_c - e_0) + omega_2 * (e_0 - e_n)


def nfsd(seen: Seen) -> Tensor:
    e_c, e_0, e_n = seen.predict(seen.noisy(seen.timestep), seen.timestep)
    assert 0 < (seen.timestep < 400).sum() < BATCH, "both cases"
    domain = [e_0[i] if t < 400 else e_0[i] - e_n[i] for i, t in enumerate(seen.timestep.tolist())]
    return torch.stack(domain) + S * (e_c - e_0)


def bridge(seen: Seen) -> Tensor:
    e_c, _, e_n = seen.predict(seen.noisy(seen.timestep), seen.timestep)
    return S * (e_c - e_n)


def asd(seen: Seen) -> Tensor:
    later = torch.tensor([t + math.floor(0.25 * (t - 20)) for t in seen.timestep.tolist()]).clamp(max=999)
    counterpart = seen.predict(seen.noisy(later), later)[0]
    return seen.guided(seen.noisy(seen.timestep), seen.timestep, S) - counterpart


def flow(seen: Seen, path: list[Tensor], predict: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """Euler's method for d(x / alpha) = e d(sigma / alpha), which DDIM is: the end, and the last e."""
    (alpha, sigma), x = seen.level(path[0]), seen.noisy(path[0])
    scaled, prediction = x / alpha, x
    for here, there in pairwise(path):
        (alpha, sigma), (next_alpha, next_sigma) = seen.level(here), seen.level(there)
        prediction = predict(alpha * scaled, here)
        scaled = scaled + (next_sigma / next_alpha - sigma / alpha) * prediction
    return seen.level(path[-1])[0] * scaled, prediction


def path_to(end: Tensor, stride: int) -> list[Tensor]:
    moves = math.ceil(int(end.max()) / stride)
    return [torch.tensor([t * k // moves for t in end.tolist()]) for k in range(moves + 1)]


def ism(seen: Seen) -> Tensor:
    before = (seen.timestep - 120).clamp(min=0)
    x_t, counterpart = flow(seen, [*path_to(before, 300), seen.timestep], lambda x, t: seen.predict(x, t)[1])
    return seen.guided(x_t, seen.timestep, S) - counterpart


def sdi(seen: Seen) -> Tensor:
    x_t, _ = flow(seen, path_to(seen.timestep, 300), lambda x, t: seen.guided(x, t, -2.0))
    alpha, sigma = seen.level(seen.timestep)
    return seen.guided(x_t, seen.timestep, S) - (x_t - alpha * seen.clean) / sigma


def collaborative(seen: Seen) -> Tensor:
    """Stein variational gradient descent as a double loop."""
    x, own = seen.clean.flatten(1), (seen.guided(seen.noisy(seen.timestep), seen.timestep, S) - seen.noise).flatten(1)
    pairs = [(x[i] - x[j]).square().sum() for i in range(BATCH) for j in range(BATCH) if i != j]
    h = 2.0 * torch.stack(pairs).median() / math.log(BATCH)
    sigma = seen.level(seen.timestep)[1].flatten()
    rows = []
    for i in range(BATCH):
        k = [torch.exp(-(x[i] - x[j]).square().sum() / h) for j in range(BATCH)]
        pull = sum((k[j] * own[j] for j in range(BATCH)), torch.zeros_like(x[i]))
        away = sum((k[j] * -2 * (x[j] - x[i]) / h for j in range(BATCH)), torch.zeros_like(x[i]))
        rows.append((pull - 0.5 * sigma[i] * away) / torch.stack(k).sum())
    return torch.stack(rows).view_as(seen.clean)


CASES: dict[str, tuple[MethodConfig, Callable[[Seen], Tensor]]] = {
    "csd": (CSDConfig(S, LEVELS, negative_weight=0.8, final_negative_weight=0.4), csd),
    "nfsd": (NFSDConfig(S, LEVELS, threshold=0.4), nfsd),
    "bridge": (BridgeConfig(S, LEVELS), bridge),
    "asd": (ASDConfig(S, LEVELS, shift=0.25), asd),
    "ism": (ISMConfig(S, LEVELS, interval=0.12, stride=0.3), ism),
    "sdi": (SDIConfig(S, LEVELS, inversion_scale=-2.0, stride=0.3), sdi),
    "collaborative": (CollaborativeConfig(S, LEVELS, bandwidth=2.0, repulsion=0.5), collaborative),
}
SCHEDULES = {"diffusion": NoiseSchedule.scaled_linear(), "flow": NoiseSchedule.rectified_flow()}


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("negative", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_residuals_are_their_formulas(name: str, negative: bool, schedule: str) -> None:
    config, formula = CASES[name]
    seen = take(config, negative=negative, schedule=SCHEDULES[schedule])
    expected = formula(seen)
    assert expected.square().mean() > 1e-3
    torch.testing.assert_close(seen.residual, expected, rtol=1e-3, atol=2e-4)


def test_there_is_a_formula_for_every_method() -> None:
    assert {*CASES, "sds", "ssd", "vsd", "cfd"} == {*METHODS}


@pytest.mark.parametrize(
    ("name", "rows"), [("csd", [3]), ("nfsd", [3]), ("bridge", [2]), ("asd", [3]), ("ism", [1, 1, 1, 1, 2])]
)
def test_rows_go_to_the_prior_together(name: str, rows: list[int]) -> None:
    """One call, but for inversion, whose steps wait for each other; interval score matching uses its last one twice."""
    prior = make_prior()
    distiller = replace(CASES[name][0], timesteps=TimestepConfig(0.9, 0.95, 0.95)).build(prior)
    with count_predictions(distiller) as counter:
        distiller(
            torch.rand(BATCH, 3, 4, 4), make_geometry(BATCH, 4), prior.embed("wanted", "unwanted"), progress=0.0,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
    assert counter.calls == [BATCH * each for each in rows]


def test_requests_are_answered_in_order_and_by_prompt() -> None:
    prior = make_prior()
    condition = prior.embed("wanted", "unwanted")
    clean, noise = torch.randn(2, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    early, late = (prior.schedule.add_noise(clean, noise, torch.full((2,), t)) for t in (100, 600))
    requests = [NoiseRequest(early), NoiseRequest(late, "null"), NoiseRequest(early, "negative"), NoiseRequest(late)]
    mixtures = [prior.mixture.subset(each) if each else prior.mixture for each in ([0, 1], [], [2, 3], [0, 1])]
    for found, request, mixture in zip(predict_noise(prior, requests, condition), requests, mixtures, strict=True):
        sample = request.sample
        assert torch.equal(found, mixture.predict_noise(sample.noisy, sample.alpha, sample.sigma))
    wrong = NoiseRequest(early)
    object.__setattr__(wrong, "prompt", "empty")  # the tests' type checker would refuse it in the constructor
    with pytest.raises(ValueError, match="unknown prompt 'empty' of a noise request: use one of positive, negative"):
        wrong.__post_init__()


def test_requests_are_equal_by_sample_and_prompt() -> None:
    schedule, (clean, noise) = NoiseSchedule.scaled_linear(), torch.zeros(2, 1, 3, 4, 4)
    one, same = (schedule.add_noise(clean, noise, torch.tensor([9])) for _ in range(2))
    assert NoiseRequest(one) == NoiseRequest(one) and len({NoiseRequest(one), NoiseRequest(one)}) == 1
    assert NoiseRequest(one) != NoiseRequest(same) and NoiseRequest(one) != NoiseRequest(one, "null")


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_inversion_follows_the_exact_flow_of_a_gaussian(schedule: str) -> None:
    """It keeps (x - alpha m) / sqrt(alpha^2 v + sigma^2); DDIM's error is of first order in the length of its moves."""
    levels = SCHEDULES[schedule]
    generator = torch.Generator().manual_seed(1)
    mean, clean, noise = torch.randn(3, 2, 3, 4, 4, generator=generator)
    variance, end = 0.5, torch.tensor([400, 900])
    mixture = GaussianMixture.isotropic(mean[:1], math.sqrt(variance))

    def spread(t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = levels.at(t)
        return alpha * mean[:1], (alpha**2 * variance + sigma**2).sqrt()

    start = levels.add_noise(clean, noise, torch.zeros(2, dtype=torch.int64))
    (middle, width), (end_middle, end_width) = spread(start.timestep), spread(end)
    expected = end_middle + end_width / width * (start.noisy - middle)
    errors = []
    for moves in (20, 40, 80):
        found = levels.ddim_inversion(start, end, moves, lambda s: mixture.predict_noise(s.noisy, s.alpha, s.sigma))
        assert torch.equal(found.timestep, end) and torch.equal(found.clean, clean)
        errors.append(float((found.noisy - expected).norm() / expected.norm()))
    assert errors[2] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.5) and errors[1] / errors[2] == pytest.approx(2, abs=0.5)


def test_a_ddim_step_there_and_back_is_the_identity() -> None:
    schedule, generator = NoiseSchedule.scaled_linear(), torch.Generator().manual_seed(2)
    clean, noise, prediction = torch.randn(3, 2, 3, 4, 4, generator=generator)
    sample = schedule.add_noise(clean, noise, torch.tensor([100, 500]))
    there = schedule.ddim_step(sample, prediction, torch.tensor([700, 200]))
    back = schedule.ddim_step(there, prediction, sample.timestep)
    torch.testing.assert_close(back.noisy, sample.noisy, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(schedule.ddim_step(sample, noise, there.timestep).noise, noise, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="at least one step, got 0"):
        schedule.ddim_inversion(sample, sample.timestep, 0, lambda each: each.noise)


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_terms_pairs_and_samplers_go_with_every_method(name: str, antithetic: bool) -> None:
    """Terms begin at 0, so that the first step is the plain method's to the bit; then they learn."""
    prior, image = make_prior(), torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    config = replace(CASES[name][0], antithetic=antithetic, timesteps=TimestepConfig(stratified=True, importance=True))
    joined = replace(config, control_variates=ControlVariateConfig(["spectral"]))
    distillers = [each.build(prior) for each in (config, joined)]
    residuals, levels = [], torch.tensor([100, 300, 500, 700, 900])
    for distiller in distillers:
        generator = torch.Generator().manual_seed(5)
        for _ in range(3):
            step = distiller(
                image, make_geometry(2, 4), prior.embed("wanted", "unwanted"), progress=0.2, generator=generator
            )
            distiller.update(step)
            residuals.append(step.residual)
    assert torch.equal(residuals[0], residuals[3])
    assert bool(torch.stack(residuals).isfinite().all())
    assert distillers[1].coefficients.value(levels, 3).abs().max() > 0 or antithetic


def test_sds_of_the_same_draw_is_measured_beside_every_method() -> None:
    """Also by those that never predict at the draw's own sample."""
    prior, found = make_prior(), {}
    for name, config in {"sds": SDSConfig(S, LEVELS), **{name: case[0] for name, case in CASES.items()}}.items():
        probe = probe_noise_variance(
            replace(config, weighting="uniform").build(prior),
            torch.rand(BATCH, 3, 4, 4, generator=torch.Generator().manual_seed(0)), make_geometry(BATCH, 4),
            prior.embed("wanted", "unwanted"), progress=0.0, generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        found[name] = probe.within_noise_sds
    assert all(value == pytest.approx(found["sds"], rel=1e-4) for value in found.values())


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (ASDConfig(shift=-0.1), "the shift to noisier levels is -0.1; 0 or more"),
        (ISMConfig(interval=0.0), "interval is 0.0; fractions of the schedule between 0 and 1"),
        (ISMConfig(stride=2.0), "stride is 2.0; fractions of the schedule above 0"),
        (SDIConfig(stride=0.0), "stride is 0.0; fractions of the schedule above 0"),
    ],
)
def test_settings_out_of_range_are_refused(config: MethodConfig, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config.build(make_prior())


def test_texts_of_the_methods() -> None:
    assert SDSConfig().texts("a mug", "dark") == ("a mug", "dark")
    assert NFSDConfig().texts("a mug", "")[1].startswith("unrealistic, blurry")
    assert NFSDConfig(negative_prompt="ugly").texts("a mug", "dark") == ("a mug", "dark")
    wanted, unwanted = BridgeConfig().texts("a mug", "")
    assert wanted.startswith("a mug, detailed") and unwanted.startswith("a mug, oversaturated")
    assert BridgeConfig(target="").texts("a mug", "a bowl") == ("a mug", "a bowl")
