"""The estimator: what arrives at the image, equal means, and state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from predicted_noise import noise_pair
from small_world import TwoModes, make_geometry
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate
from zero_mean import drift, mean_ratio

from steindreamer.distill import (
    ControlVariateConfig,
    Distillation,
    Distiller,
    Draw,
    Estimate,
    GeometryBuffers,
    GeometryEstimator,
    MethodConfig,
    NoiseRequest,
    NoiseSource,
    Residual,
    SDSConfig,
    SSDConfig,
    TimestepConfig,
)
from steindreamer.distill.control_variates.baselines import ConstantBaseline
from steindreamer.distill.control_variates.coefficients import FixedCoefficients
from steindreamer.distill.control_variates.terms import NoiseTerm, SteinTerm
from steindreamer.distill.priors.guidance import guided_noise
from steindreamer.distill.variance.probe import probe_noise_variance

CONFIGS: dict[str, MethodConfig] = {
    "sds": SDSConfig(),
    "conditional only": SSDConfig(guidance_scale=1.0),
    "noise": SSDConfig(control_variates=ControlVariateConfig(["noise"])),
    "depth": SSDConfig(control_variates=ControlVariateConfig(["depth"])),
    "spectral": SSDConfig(),
    "learned": SSDConfig(control_variates=ControlVariateConfig(["spectral", "learned"])),
    "joint": SSDConfig(control_variates=ControlVariateConfig(["noise", "depth", "normal", "spectral"])),
    "eq11": SSDConfig(control_variates=ControlVariateConfig(coefficients="second_moment")),
    "antithetic": SSDConfig(control_variates=ControlVariateConfig(["depth"]), antithetic=True),
}


def step(distiller: Distiller, image: Tensor, geometry: GeometryBuffers, generator: torch.Generator) -> Distillation:
    return distiller(image, geometry, None, progress=0.3, generator=generator)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", CONFIGS)
def test_backward_leaves_exactly_the_stated_gradient(
    name: str, prior: TwoModes, estimator: GeometryEstimator, geometry: GeometryBuffers, image: Tensor
) -> None:
    distiller = CONFIGS[name].build(prior, estimator)
    out = step(distiller, image, geometry, seeded())
    (arrived,) = torch.autograd.grad(out.loss, image)
    assert torch.equal(arrived, 2 * out.gradient)  # encode is 2 * image - 1
    sigma = prior.schedule.at(out.observations[0].timestep)[1]
    assert torch.equal(out.gradient, sigma**2 * out.residual / 2)
    expected = 0.5 * (sigma**2 * out.residual).square().sum() / 2
    torch.testing.assert_close(out.loss.detach(), expected)
    assert all(isinstance(value, float) for value in out.diagnostics.values())


@pytest.mark.parametrize("name", CONFIGS)
def test_reuse_is_the_step_itself_at_its_image_and_vanishes_at_the_predicted_one(
    name: str, prior: TwoModes, estimator: GeometryEstimator, geometry: GeometryBuffers, image: Tensor
) -> None:
    distiller, generator = CONFIGS[name].build(prior, estimator), seeded()
    distiller.update(step(distiller, image, geometry, generator))
    first = step(distiller, image, geometry, generator)  # with learned coefficients
    again = distiller.reuse(first, image)
    assert torch.equal(again.loss, first.loss) and torch.equal(again.gradient, first.gradient)
    (arrived,) = torch.autograd.grad(again.loss, image)
    assert torch.equal(arrived, 2 * first.gradient)

    alpha, sigma = prior.schedule.at(first.observations[0].timestep)
    target = first.clean - sigma / alpha * first.residual
    away = 0.1 * torch.randn(image.shape, generator=seeded(1))
    other = prior.decode(target + away).requires_grad_()
    moved = distiller.reuse(first, other)
    scale = float(first.gradient.abs().max())
    torch.testing.assert_close(moved.gradient, sigma * alpha * away / 2, rtol=1e-3, atol=1e-5 * scale)
    assert torch.equal(torch.autograd.grad(moved.loss, other)[0], 2 * moved.gradient)
    torch.testing.assert_close(moved.loss.detach(), moved.gradient.square().sum())
    assert distiller.reuse(first, prior.decode(target)).gradient.abs().max() < 1e-4 * scale


class Pattern(nn.Module):
    """Noise of one fixed pattern, which notes its inputs."""

    def __init__(self, pattern: Tensor) -> None:
        super().__init__()
        self.register_buffer("pattern", pattern)
        self.pattern: Tensor
        self.seen: list[tuple[Any, ...]] = []

    def forward(self, clean: Tensor, timestep: Tensor, geometry: GeometryBuffers, generator: torch.Generator) -> Tensor:
        self.seen.append((clean, timestep, geometry, generator))
        return self.pattern.expand(clean.shape)


def sds_with(prior: TwoModes, noise: NoiseSource) -> Distiller:
    return Distiller(prior, [NoiseTerm()], FixedCoefficients([1.0], prior.schedule.steps), noise=noise)


def test_a_noise_source_is_used_and_saved(prior: TwoModes, geometry: GeometryBuffers, image: Tensor) -> None:
    source = Pattern(torch.randn(1, *image.shape[1:], generator=seeded(8)))
    distiller, generator = sds_with(prior, source), seeded()
    out = step(distiller, image, geometry, generator)
    assert torch.equal(out.observations[0].terms[0], -source.pattern.expand(image.shape))
    ((clean, timestep, *others),) = source.seen
    assert torch.equal(clean, out.clean) and torch.equal(timestep, out.observations[0].timestep)
    assert others[0] is geometry and others[1] is generator
    assert torch.equal(distiller.state_dict()["noise.pattern"], source.pattern)
    probe_noise_variance(distiller, image.detach(), geometry, None, progress=0.3, generator=seeded())
    assert len(source.seen) == 3, "the probe measures the variance over the same noise"


def test_given_noise_takes_precedence(prior: TwoModes, geometry: GeometryBuffers, image: Tensor) -> None:
    source = Pattern(torch.ones(1, 3, 1, 1))
    given = torch.randn(image.shape, generator=seeded(8))
    out = sds_with(prior, source)(image, geometry, None, progress=0.3, generator=seeded(), noise=given)
    assert torch.equal(out.observations[0].terms[0], -given) and not source.seen
    with pytest.raises(ValueError, match=r"the given noise must hold floating-point numbers of shape .* got float32"):
        sds_with(prior, source)(image, geometry, None, progress=0.3, generator=seeded(), noise=given[..., :4])


def test_noise_that_would_be_broadcast_is_refused(prior: TwoModes, geometry: GeometryBuffers, image: Tensor) -> None:
    def one_for_all(clean: Tensor, timestep: Tensor, geometry: GeometryBuffers, generator: torch.Generator) -> Tensor:
        del timestep, geometry, generator
        return torch.zeros_like(clean[:1])

    with pytest.raises(
        ValueError, match=r"the noise of the source one_for_all must hold .* got float32 of shape \(1, 3"
    ):
        step(sds_with(prior, one_for_all), image, geometry, seeded())


def test_a_method_brings_its_noise_source(prior: TwoModes, geometry: GeometryBuffers, image: Tensor) -> None:
    source = Pattern(torch.ones(1, 3, 1, 1))

    @dataclass
    class Mine(SSDConfig):
        def noise_source(self) -> NoiseSource:
            return source

    step(Mine().build(prior), image, geometry, seeded())
    assert len(source.seen) == 1


def test_a_residual_has_conditioning_geometry_and_guidance_scale(
    prior: TwoModes, geometry: GeometryBuffers, image: Tensor
) -> None:
    draws: list[Draw] = []

    class Watching(Residual):
        def __call__(self, draw: Draw) -> Estimate:
            draws.append(draw)
            assert torch.equal(draw.predict_guided(), draw.predict_guided(3.0))
            assert not torch.equal(draw.predict_guided(), draw.predict_guided(2.0))
            return Estimate(draw.predict_guided(), None)

    condition: Any = object()
    coefficients = FixedCoefficients([], prior.schedule.steps)
    distiller = Distiller(prior, [], coefficients, guidance_scale=3.0, residual=Watching())
    distiller(image, geometry, condition, progress=0.3, generator=seeded())
    (draw,) = draws
    assert draw.condition is condition and draw.geometry is geometry
    assert draw.guidance_scale == 3.0 and draw.progress == 0.3


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
@pytest.mark.parametrize("antithetic", [False, True])
def test_minus_one_is_sds_to_the_bit(
    guidance_scale: float, antithetic: bool, prior: TwoModes, geometry: GeometryBuffers, image: Tensor
) -> None:
    """At every step of a run, from the image's gradient to the numbers that are logged."""
    settings: dict[str, Any] = {"guidance_scale": guidance_scale, "antithetic": antithetic}
    variate = SteinTerm("noise", ConstantBaseline(-1.0))
    stein = Distiller(prior, [variate], FixedCoefficients(variate.initial, prior.schedule.steps), **settings)
    sds = SDSConfig(**settings).build(prior)
    generators = seeded(), seeded()
    for _ in range(3):
        first, second = (step(d, image, geometry, g) for d, g in zip((stein, sds), generators, strict=True))
        assert torch.equal(first.residual, second.residual) and torch.equal(first.gradient, second.gradient)
        assert torch.equal(torch.autograd.grad(first.loss, image)[0], torch.autograd.grad(second.loss, image)[0])
        assert first.diagnostics == second.diagnostics
        stein.update(first)
        sds.update(second)


def test_sds_is_the_prediction_minus_the_noise_to_the_bit(
    prior: TwoModes, geometry: GeometryBuffers, image: Tensor
) -> None:
    sds = step(SDSConfig().build(prior), image, geometry, seeded())
    sample = prior.schedule.add_noise(
        prior.encode(image.detach()), -sds.observations[0].terms[0], sds.observations[0].timestep
    )
    plain = guided_noise(*noise_pair(prior, sample, None), scale=7.5) - sample.noise
    assert torch.equal(sds.residual, plain)
    first = step(SSDConfig(control_variates=ControlVariateConfig(["noise"])).build(prior), image, geometry, seeded())
    assert torch.equal(first.residual, sds.residual), "a learned coefficient starts as SDS"
    bands = step(SSDConfig().build(prior), image, geometry, seeded())
    torch.testing.assert_close(bands.residual, sds.residual, atol=2e-5, rtol=0)


def corrections(config: MethodConfig, estimator: GeometryEstimator) -> Tensor:
    """What is added to eps_hat after some learning: draws at one image and timestep, the same noise for all."""
    batch = 64
    distiller = replace(config, timesteps=TimestepConfig(0.4, 0.401, 0.401)).build(TwoModes(), estimator)
    image = torch.rand(1, 3, 8, 8, generator=seeded(5)).expand(batch, -1, -1, -1)
    geometry, generator = make_geometry(batch), seeded()
    for _ in range(5):
        distiller.update(step(distiller, image, geometry, generator))
    steps = [step(distiller, image, geometry, generator) for _ in range(40)]
    return torch.cat([each.residual - each.observations[0].prediction for each in steps])


@pytest.mark.parametrize("name", CONFIGS)
def test_every_estimator_has_the_mean_of_the_prior_alone(name: str, estimator: GeometryEstimator) -> None:
    """The mean residual is the mean of eps_hat, within standard errors; not so with the paper's printed form."""
    config, noise = CONFIGS[name], -corrections(SDSConfig(), estimator)
    difference = corrections(config, estimator)
    assert mean_ratio(difference) < 1.4
    assert abs(drift(difference, noise)) < 4
    if isinstance(config, SSDConfig) and "depth" in config.control_variates.terms:
        printed = corrections(
            replace(config, control_variates=replace(config.control_variates, variant="paper")), estimator
        )
        assert abs(drift(printed, noise)) > 8


@pytest.mark.parametrize("baseline", [["spectral"], ["noise", "depth", "normal"]])
def test_half_precision_images_and_predictions_give_a_float32_residual(
    baseline: list[str], estimator: GeometryEstimator, geometry: GeometryBuffers, image: Tensor
) -> None:
    class HalfPrior(TwoModes):
        def encode(self, image: Tensor) -> Tensor:
            return super().encode(image.bfloat16())

        def decode(self, latent: Tensor) -> Tensor:
            return super().decode(latent.bfloat16())

        def predict_noise(self, requests: Sequence[NoiseRequest], condition: None) -> list[Tensor]:
            assert all(request.sample.noisy.dtype == torch.float32 for request in requests)
            return [each.bfloat16() for each in super().predict_noise(requests, condition)]

    distiller = SSDConfig(control_variates=ControlVariateConfig(baseline)).build(HalfPrior(), estimator)
    initial = distiller.coefficients.initial[:, None, None, None, None]
    with torch.autocast("cpu", torch.bfloat16):
        out = step(distiller, image, geometry, seeded())
    assert out.residual.dtype == out.gradient.dtype == out.loss.dtype == torch.float32
    recombined = out.observations[0].prediction + (initial * out.observations[0].terms).sum(0).float()
    torch.testing.assert_close(out.residual, recombined, atol=2e-5, rtol=0)
    (arrived,) = torch.autograd.grad(out.loss, image)
    torch.testing.assert_close(arrived, 2 * out.gradient, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_restored_run_continues_to_the_bit(
    name: str, prior: TwoModes, estimator: GeometryEstimator, geometry: GeometryBuffers, image: Tensor
) -> None:
    def advance(distiller: Distiller, generator: torch.Generator, steps: int) -> Tensor:
        gradients = []
        for _ in range(steps):
            out = step(distiller, image, geometry, generator)
            distiller.update(out)
            gradients.append(out.gradient)
        return torch.stack(gradients)

    original, generator = CONFIGS[name].build(prior, estimator), seeded()
    advance(original, generator, 4)
    saved = {key: value.clone() for key, value in original.state_dict().items()}
    random_state = generator.get_state()
    expected = advance(original, generator, 3)
    restored = CONFIGS[name].build(prior, estimator)
    restored.load_state_dict(saved)
    generator.set_state(random_state)
    assert torch.equal(advance(restored, generator, 3), expected)


def test_the_state_holds_no_weights_of_the_prior(image: Tensor, geometry: GeometryBuffers) -> None:
    class ModulePrior(TwoModes, torch.nn.Module):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            TwoModes.__init__(self)
            self.weight = torch.nn.Parameter(torch.ones(3))

    distiller = SSDConfig().build(ModulePrior())
    assert set(distiller.state_dict()) == {f"coefficients.{name}" for name in ("count", "sum_hh", "sum_hf")}
    assert not list(distiller.parameters())


def test_coefficients_learn_only_in_update(prior: TwoModes, geometry: GeometryBuffers, image: Tensor) -> None:
    distiller = SSDConfig().build(prior)
    out = step(distiller, image, geometry, seeded())
    before = {key: value.clone() for key, value in distiller.state_dict().items()}
    step(distiller, image, geometry, seeded(1))
    probe_noise_variance(distiller, image, geometry, None, progress=0.0, generator=seeded())
    assert all(torch.equal(value, before[key]) for key, value in distiller.state_dict().items())
    distiller.update(out)
    assert not torch.equal(distiller.state_dict()["coefficients.sum_hf"], torch.zeros(8, 1, 12))


def test_probing_does_not_change_the_run(prior: TwoModes, geometry: GeometryBuffers, image: Tensor) -> None:
    distiller, generator = SSDConfig().build(prior), seeded()
    state = generator.get_state()
    first = probe_noise_variance(distiller, image, geometry, None, progress=0.0, generator=generator)
    assert torch.equal(generator.get_state(), state)
    again = probe_noise_variance(distiller, image, geometry, None, progress=0.0, generator=generator)
    assert again == first


def test_the_probe_is_unbiased(prior: TwoModes) -> None:
    """Against the sample covariance and mean over 4096 draws, at one timestep and image."""
    batch = 256
    timesteps = TimestepConfig(0.4, 0.401, 0.401)
    distiller = SDSConfig(timesteps=timesteps).build(prior)
    image = torch.rand(1, 3, 8, 8, generator=seeded(5)).expand(batch, -1, -1, -1)
    geometry, generator = make_geometry(batch), seeded()
    gradients = torch.cat([step(distiller, image, geometry, generator).gradient * batch for _ in range(16)]).flatten(1)
    probes = [
        probe_noise_variance(distiller, image, geometry, None, progress=0.0, generator=seeded(seed))
        for seed in range(16)
    ]
    variance = float(gradients.var(0).sum())
    assert sum(p.within_noise for p in probes) / 16 == pytest.approx(variance, rel=0.02)
    assert all(p.within_noise == p.within_noise_sds for p in probes)
    signal = float(gradients.mean(0).square().sum()) - variance / len(gradients)
    assert sum(p.signal for p in probes) / 16 == pytest.approx(signal, rel=0.1)


def test_antithetic_pairs_cancel_what_is_odd_in_the_noise(
    prior: TwoModes, geometry: GeometryBuffers, image: Tensor
) -> None:
    plain, paired = (SDSConfig(antithetic=antithetic).build(prior) for antithetic in (False, True))
    assert torch.equal(step(paired, image, geometry, seeded()).observations[0].terms, torch.zeros(1, 2, 3, 8, 8))
    variance = [
        probe_noise_variance(distiller, image, geometry, None, progress=0.0, generator=seeded(2)).within_noise
        for distiller in (plain, paired)
    ]
    assert variance[1] < 0.2 * variance[0]


def test_terms_and_coefficients_must_match(prior: TwoModes) -> None:
    with pytest.raises(ValueError, match="need 1 distinct terms, got noise, noise"):
        Distiller(prior, [NoiseTerm(), NoiseTerm()], FixedCoefficients((1.0,), 1000))


class LatentPrior(TwoModes):
    """Four channels at half the resolution, oblong images: what an autoencoder makes of them."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        generator = seeded(11)
        self.mode = torch.randn(1, 4, height // 2, width // 2, generator=generator)
        self.mixing = torch.randn(4, 3, generator=generator)

    def encode(self, image: Tensor) -> Tensor:
        return torch.einsum("lc,bchw->blhw", self.mixing, avg_pool2d(image * 2 - 1, 2))

    def decode(self, latent: Tensor) -> Tensor:
        image = torch.einsum("cl,blhw->bchw", torch.linalg.pinv(self.mixing), latent)
        return (interpolate(image, scale_factor=2.0, mode="bilinear") + 1) / 2


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("height", "width"), [(24, 16), (2, 6)])
def test_one_oblong_image_in_a_latent_space(name: str, height: int, width: int, estimator: GeometryEstimator) -> None:
    whole = make_geometry(1, 24)
    parts = {name: getattr(whole, name)[..., :height, :width] for name in ("opacity", "depth", "normal")}
    geometry = replace(whole, **parts)
    image = torch.rand(1, 3, height, width, generator=seeded(5)).requires_grad_()
    distiller, generator = CONFIGS[name].build(LatentPrior(height, width), estimator), seeded()
    for _ in range(3):
        distiller.update(step(distiller, image, geometry, generator))
    out = step(distiller, image, geometry, generator)
    (arrived,) = torch.autograd.grad(out.loss, image)
    assert out.gradient.shape == (1, 4, height // 2, width // 2)
    assert arrived.isfinite().all() and arrived.abs().max() > 0
