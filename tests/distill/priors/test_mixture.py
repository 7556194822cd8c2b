"""The exact priors: noise predictions are scores, rows are what the prompt says, bases are orthonormal."""

from __future__ import annotations

import math

import pytest
import torch
from predicted_noise import noise_pair
from torch import Tensor

from steindreamer.distill import NoiseSchedule, Prior
from steindreamer.distill.basis import SeparableBasis
from steindreamer.distill.priors.mixture import GaussianMixture, MixturePrior, image_like_mixture

COSINE, HAAR = SeparableBasis.cosine(3, 8, 8), SeparableBasis.haar(3, 8, 8)
BACKGROUND = torch.ones(2, 3)


class Views:
    """Cameras that a `MixturePrior` never looks at."""

    camera_to_world = torch.eye(4).expand(2, 4, 4)
    intrinsics = torch.eye(3).expand(2, 3, 3)
    azimuth = elevation = torch.zeros(2)
    height = width = 8


def double(mixture: GaussianMixture) -> GaussianMixture:
    return GaussianMixture(
        mixture.means.double(), mixture.variances.double(), mixture.log_weights.double(), mixture.basis
    )


def overlapping(generator: torch.Generator, basis: SeparableBasis | None) -> GaussianMixture:
    """Three components so close that all responsibilities matter at a noisy image."""
    means = 0.15 * torch.randn(3, 3, 8, 8, generator=generator)
    if basis is None:
        return GaussianMixture.isotropic(means, 0.3)
    variances = 0.02 + 0.2 * torch.rand(3, 3, 8, 8, generator=generator)
    return GaussianMixture(means, variances, torch.tensor([0.5, 0.3, 0.2]).log(), basis)


def levels(*alphas: float) -> tuple[Tensor, Tensor]:
    alpha = torch.tensor(alphas, dtype=torch.float64).reshape(-1, 1, 1, 1)
    return alpha, (1 - alpha**2).sqrt()


@pytest.mark.parametrize("basis", [None, COSINE, HAAR], ids=["pixels", "cosine", "haar"])
def test_the_noise_prediction_is_minus_sigma_times_the_score(
    basis: SeparableBasis | None, generator: torch.Generator
) -> None:
    mixture = double(overlapping(generator, basis))
    alpha, sigma = levels(0.95, 0.6, 0.1)
    noisy = torch.randn(3, 3, 8, 8, generator=generator, dtype=torch.float64).requires_grad_()
    (score,) = torch.autograd.grad(mixture.log_density(noisy, alpha, sigma).sum(), noisy)
    torch.testing.assert_close(
        mixture.predict_noise(noisy.detach(), alpha, sigma), -sigma * score, atol=1e-9, rtol=1e-9
    )
    # A single component would be linear in the image; the responsibilities must take part.
    alone = mixture.subset([0]).predict_noise(noisy.detach(), alpha, sigma)
    assert not torch.allclose(alone, -sigma * score, atol=1e-3)


def test_the_density_is_normalized() -> None:
    """One pixel, on a fine grid."""
    means = torch.tensor([-0.5, 0.7]).reshape(2, 1, 1, 1)
    mixture = GaussianMixture(means, torch.tensor([0.04, 0.3]).reshape(2, 1, 1, 1), torch.tensor([0.3, 0.7]).log())
    grid = torch.linspace(-6, 6, 4001).reshape(-1, 1, 1, 1)
    one = torch.ones_like(grid)
    density = mixture.log_density(grid, 0.8 * one, 0.6 * one).exp()
    assert float(density.sum() * 12 / 4000) == pytest.approx(1, abs=1e-6)
    assert float((density * grid.flatten()).sum() * 12 / 4000) == pytest.approx(0.8 * (-0.15 + 0.49), abs=1e-5)


def test_the_noise_prediction_is_the_mean_of_the_noise_given_the_image(generator: torch.Generator) -> None:
    """E[(eps - eps_hat) f(noisy)] = 0 for any f: here f = 1, eps_hat and tanh."""
    mixture = image_like_mixture(COSINE, 5, generator)
    clean = mixture.sample(4000, generator)
    noise = torch.randn(clean.shape, generator=generator)
    alpha, sigma = (a.float().expand(4000, 1, 1, 1) for a in levels(0.7))
    noisy = alpha * clean + sigma * noise
    prediction = mixture.predict_noise(noisy, alpha, sigma)
    for f in (torch.ones_like(noisy), prediction, noisy.tanh()):
        product = ((noise - prediction) * f).flatten(1).mean(1)
        assert abs(float(product.mean())) < 4 * float(product.std()) / math.sqrt(4000)
    assert float((noise - prediction).square().mean()) < 0.7


@pytest.mark.parametrize("basis", [COSINE, HAAR], ids=["cosine", "haar"])
def test_bases_are_orthonormal(basis: SeparableBasis, generator: torch.Generator) -> None:
    image = torch.randn(2, 3, 8, 8, generator=generator, dtype=torch.float64)
    coefficients = basis.to_coefficients(image)
    torch.testing.assert_close(coefficients.square().sum(), image.square().sum())
    torch.testing.assert_close(basis.to_image(coefficients), image)
    constant = basis.to_coefficients(torch.ones(1, 3, 8, 8))
    assert float(constant[0, 0, 0, 0]) == pytest.approx(math.sqrt(3 * 64))
    assert float(constant.abs().sum()) == pytest.approx(math.sqrt(3 * 64), rel=1e-5)
    assert (
        float(basis.squared_frequency[0, 0]) == 0 and basis.squared_frequency[-1, -1] == basis.squared_frequency.max()
    )


def test_equal_variances_are_the_same_in_every_basis(generator: torch.Generator) -> None:
    means = torch.randn(4, 3, 8, 8, generator=generator)
    shared = GaussianMixture.isotropic(means, 0.4)
    full = GaussianMixture(means, torch.full((4, 3, 8, 8), 0.16), shared.log_weights, COSINE)
    noisy = 0.3 * torch.randn(2, 3, 8, 8, generator=generator)
    alpha, sigma = (level.float() for level in levels(0.5, 0.2))
    torch.testing.assert_close(
        shared.predict_noise(noisy, alpha, sigma), full.predict_noise(noisy, alpha, sigma), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(shared.log_density(noisy, alpha, sigma), full.log_density(noisy, alpha, sigma))


def test_means_per_image_are_one_mixture_per_image(generator: torch.Generator) -> None:
    means = torch.randn(2, 4, 3, 8, 8, generator=generator)
    noisy = 0.3 * torch.randn(2, 3, 8, 8, generator=generator)
    alpha, sigma = (level.float() for level in levels(0.4, 0.4))
    together = GaussianMixture.isotropic(means, 0.5).predict_noise(noisy, alpha, sigma)
    for i in range(2):
        alone = GaussianMixture.isotropic(means[i], 0.5).predict_noise(noisy[i : i + 1], alpha[:1], sigma[:1])
        torch.testing.assert_close(together[i : i + 1], alone)
    with pytest.raises(ValueError, match="no single distribution"):
        GaussianMixture.isotropic(means, 0.5).sample(1, generator)


def test_a_large_image_at_little_noise_stays_finite(generator: torch.Generator) -> None:
    """Log densities of 10^5 pixels differ by thousands; float32 softmax over the raw densities would overflow."""
    means = torch.rand(6, 3, 128, 128, generator=generator) * 2 - 1
    mixture = GaussianMixture.isotropic(means, 0.05)
    schedule = NoiseSchedule.scaled_linear()
    sample = schedule.add_noise(means[2:3], torch.randn(1, 3, 128, 128, generator=generator), torch.tensor([0]))
    prediction = mixture.predict_noise(sample.noisy, sample.alpha, sample.sigma)
    residual = (sample.noisy - sample.alpha * means[2:3]) * sample.sigma
    torch.testing.assert_close(prediction, residual / (sample.alpha**2 * 0.05**2 + sample.sigma**2))


def test_samples_have_the_mixture_s_moments(generator: torch.Generator) -> None:
    mixture = image_like_mixture(HAAR, 4, generator)
    clean = mixture.sample(20000, generator)
    weights = mixture.log_weights.exp()[:, None, None, None]
    mean = (weights * mixture.means).sum(0)
    torch.testing.assert_close(clean.mean(0), mean, atol=0.06, rtol=0)
    spread = HAAR.to_coefficients(mixture.means - mean).square()
    variance = (weights * (mixture.variances + spread)).sum(0)
    torch.testing.assert_close(HAAR.to_coefficients(clean - mean).var(0), variance, atol=0.01, rtol=0.08)
    assert float(clean.var()) == pytest.approx(1, abs=0.2)


def test_the_prior_s_rows(generator: torch.Generator) -> None:
    mixture = image_like_mixture(COSINE, 6, generator)
    prior = MixturePrior(mixture, {"stripes": [0, 1], "dots": [4]})
    assert isinstance(prior, Prior)
    sample = prior.schedule.add_noise(
        mixture.sample(2, generator), torch.randn(2, 3, 8, 8, generator=generator), torch.tensor([300, 700])
    )
    level = (sample.alpha, sample.sigma)

    def predict(prompt: str, negative: str = "") -> tuple[Tensor, Tensor]:
        return noise_pair(prior, sample, prior.condition(prior.embed(prompt, negative), Views(), BACKGROUND))

    stripes, everything = predict("stripes")
    assert not torch.allclose(stripes, everything)
    torch.testing.assert_close(stripes, mixture.subset([0, 1]).predict_noise(sample.noisy, *level))
    torch.testing.assert_close(everything, mixture.predict_noise(sample.noisy, *level))
    torch.testing.assert_close(predict("stripes", "dots")[1], predict("dots")[0])
    image = torch.rand(2, 3, 8, 8, generator=generator)
    torch.testing.assert_close(prior.decode(prior.encode(image)), image)
    assert float(prior.encode(image).min()) < 0


def test_subsets_renormalize(generator: torch.Generator) -> None:
    part = overlapping(generator, COSINE).subset([0, 2])
    torch.testing.assert_close(part.log_weights.exp(), torch.tensor([5 / 7, 2 / 7]))


def test_bad_input_is_named(generator: torch.Generator) -> None:
    prior = MixturePrior(image_like_mixture(COSINE, 2, generator), {"dots": [0]})
    with pytest.raises(ValueError, match="unknown prompt 'mug'; this mixture knows"):
        prior.embed("mug")
    with pytest.raises(ValueError, match="bandwidth must be positive"):
        GaussianMixture.isotropic(torch.zeros(1, 3, 2, 2), 0.0)
    with pytest.raises(ValueError, match="power of two, got 12"):
        SeparableBasis.haar(3, 8, 12)
