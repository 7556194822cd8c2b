"""Control variates have zero mean; what is not one is found out. Noise is drawn at one clean image and timestep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from small_world import SIZE, TwoModes, make_estimator, make_geometry
from torch import Tensor
from zero_mean import drift, mean_ratio

from steindreamer.distill import (
    CONTROL_VARIATES,
    ControlVariate,
    ControlVariateConfig,
    GeometryBuffers,
    NoiseLevel,
    NoiseSchedule,
    NoisySample,
)
from steindreamer.distill.control_variates.baselines import ConstantBaseline
from steindreamer.distill.control_variates.terms import NoiseTerm, SpectralTerm, SteinTerm

DRAWS = 4096  # the drift is tested on half of them
GUIDE = make_geometry(DRAWS)
LEVELS = (100, 500, 900)

SLOPE = 0.3 * torch.nn.functional.normalize(torch.linspace(-1, 2, 3 * SIZE * SIZE), dim=0).view(3, SIZE, SIZE)


def linear(noisy: Tensor, level: NoiseLevel, geometry: GeometryBuffers) -> Tensor:
    return -1 + (SLOPE * noisy).sum((1, 2, 3))


def registered(name: str) -> ControlVariate:
    """As a run would build it. Whatever is registered is tested."""
    (variate,), _ = ControlVariateConfig([name], bands=5).build(TwoModes(), make_estimator(), starts_as_sds=True)
    return variate


VARIATES: dict[str, ControlVariate] = {
    **{name: registered(name) for name in CONTROL_VARIATES},
    "constant": SteinTerm("constant", ConstantBaseline()),
    "linear": SteinTerm("linear", linear),
}
STEIN_TERMS = {
    name: variate for name, variate in VARIATES.items() if isinstance(variate, SteinTerm) and name != "constant"
}


def draw(timestep: int, seed: int) -> NoisySample:
    clean = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5)) * 2 - 1
    noise = torch.randn(DRAWS, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    return NoiseSchedule.scaled_linear().add_noise(clean.expand_as(noise), noise, torch.full((DRAWS,), timestep))


@pytest.mark.parametrize("timestep", LEVELS)
@pytest.mark.parametrize("name", VARIATES)
def test_every_term_has_zero_mean(name: str, timestep: int) -> None:
    variate = VARIATES[name]
    sample = draw(timestep, 0)
    terms = variate.terms(sample, GUIDE)
    assert len(terms) == len(variate.names) == len(variate.initial)
    assert max(mean_ratio(h) for h in terms) < 1.4  # at least 192 / 5 degrees of freedom each
    assert max(abs(drift(h, sample.noise)) for h in terms) < 4


@pytest.mark.parametrize("timestep", LEVELS)
@pytest.mark.parametrize("name", STEIN_TERMS)
def test_the_papers_printed_form_does_not(name: str, timestep: int) -> None:
    sample = draw(timestep, 0)
    printed = replace(STEIN_TERMS[name], variant="paper")
    assert drift(printed.terms(sample, GUIDE)[0], sample.noise) > 20


@pytest.mark.parametrize("pixels", [1, 2, 3, 9])
def test_an_object_of_a_few_pixels_makes_no_spikes(pixels: int) -> None:
    """The correlation of two pixels is 1 or -1: its gradient would be nearly nothing or enormous."""
    few = replace(GUIDE, opacity=torch.zeros_like(GUIDE.opacity))
    block = torch.zeros(9)
    block[:pixels] = 1
    few.opacity[:, 0, 2:5, 2:5] = block.view(3, 3)
    sample = draw(500, 0)
    h = VARIATES["depth"].terms(sample, few)[0]
    assert h.abs().max() < 2 * sample.noise.abs().max()
    assert abs(drift(h, sample.noise)) < 4


@pytest.mark.parametrize(
    ("gain", "timestep"),
    # Without sigma the mean is (1 - sigma) E[grad phi]: seen where there is little noise.
    [
        pytest.param(lambda sigma: -1.0, 100, id="missing sigma"),
        pytest.param(lambda sigma: sigma, 500, id="wrong sign"),
    ],
)
@pytest.mark.parametrize("name", STEIN_TERMS)
def test_the_test_would_see_a_wrong_formula(name: str, gain: Callable[[Tensor], Tensor], timestep: int) -> None:
    sample = draw(timestep, 0)
    noisy = sample.noisy.requires_grad_()
    phi = STEIN_TERMS[name].baseline(noisy, NoiseLevel(sample.timestep, sample.alpha, sample.sigma), GUIDE)
    (gradient,) = torch.autograd.grad(phi.sum(), noisy)
    wrong = phi.detach()[:, None, None, None] * sample.noise + gain(sample.sigma) * gradient
    assert drift(wrong, sample.noise) > 20


@pytest.mark.parametrize("timestep", LEVELS)
def test_the_printed_forms_mean_is_one_plus_sigma_times_the_mean_gradient(timestep: int) -> None:
    """Gaussian integration by parts: E[phi noise] = sigma E[grad phi]; for a linear phi the gradient is its slope."""
    sample = draw(timestep, 0)
    mean = SteinTerm("phi", linear, "paper").terms(sample, GUIDE)[0].mean(0)
    along = (mean * SLOPE).sum() / SLOPE.square().sum()
    standard_error = 1.1 / (DRAWS**0.5 * SLOPE.norm())  # phi's mean square is about 1.1
    assert abs(along - 1 - sample.sigma[0]) < 4 * standard_error


def test_minus_one_is_the_noise_to_the_bit() -> None:
    sample = draw(500, 0)
    expected = NoiseTerm().terms(sample, GUIDE)
    assert torch.equal(expected[0], -sample.noise)
    assert torch.equal(SteinTerm("constant", ConstantBaseline(-1.0)).terms(sample, GUIDE), expected)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 4, 24, 16), (1, 1, 5, 7)])
@pytest.mark.parametrize("bands", [1, 5, 12])
def test_spectral_bands_partition_the_noise(shape: tuple[int, ...], bands: int) -> None:
    generator = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, *shape, generator=generator)
    sample = NoiseSchedule.scaled_linear().add_noise(clean, noise, torch.full(shape[:1], 500))
    terms = SpectralTerm(bands).terms(sample, make_geometry(shape[0]))
    torch.testing.assert_close(terms.sum(0), -noise, atol=1e-5, rtol=0)
    products = torch.einsum("jbchw,kbchw->jk", terms, terms)
    torch.testing.assert_close(products, torch.diag(products.diag()), atol=1e-3, rtol=0)


def test_a_band_is_the_same_frequencies_at_every_resolution() -> None:
    """A cosine of a quarter of the Nyquist frequency falls into the same band of small and large images."""
    found = []
    for size in (16, 64):
        wave = torch.cos(torch.pi * (torch.arange(size) + 0.5) / 4).expand(1, 1, size, size)
        sample = NoisySample(wave, wave, torch.zeros(1, dtype=torch.long), *torch.ones(2, 1, 1, 1, 1))
        energy = SpectralTerm(8).terms(sample, make_geometry(1)).square().sum((1, 2, 3, 4))
        torch.testing.assert_close(energy.max(), wave.square().sum())
        found.append(int(energy.argmax()))
    assert found[0] == found[1] == 1  # 0.25 / sqrt(2) * 8 = 1.41


def test_a_detached_baseline_is_refused() -> None:
    def detached(noisy: Tensor, level: NoiseLevel, geometry: GeometryBuffers) -> Tensor:
        return noisy.detach().mean((1, 2, 3))

    parameter = torch.ones((), requires_grad=True)

    def with_a_parameter(noisy: Tensor, level: NoiseLevel, geometry: GeometryBuffers) -> Tensor:
        return parameter * detached(noisy, level, geometry)

    for baseline in (detached, with_a_parameter):
        with pytest.raises(ValueError, match="'mine' is detached from the noisy image"):
            SteinTerm("mine", baseline).terms(draw(500, 0), GUIDE)


def test_a_baseline_that_is_no_number_per_image_is_refused() -> None:
    def per_channel(noisy: Tensor, level: NoiseLevel, geometry: GeometryBuffers) -> Tensor:
        return noisy.mean((2, 3))

    with pytest.raises(
        ValueError, match=r"one floating-point number per image, of shape \(4096,\) on cpu; got .* \(4096, 3\)"
    ):
        SteinTerm("mine", per_channel).terms(draw(500, 0), GUIDE)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown Stein variant 'printed': use one of corrected, paper"):
        SteinTerm("phi", ConstantBaseline(), "printed")
    with pytest.raises(ValueError, match="at least one band, got 0"):
        SpectralTerm(0)
