"""The prior `mixture`: an exact score, symmetric about the image of a known scene at every camera."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from steindreamer.distill import GeometryBuffers, NoiseRequest, Prior, SDSConfig
from steindreamer.distill.noise.schedule import NoisySample
from steindreamer.distill.priors.mixture import MixtureCondition
from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.errors import UserError
from steindreamer.representations import Cameras, render_mesh
from steindreamer.world.mixture_prior import SceneMixtureConfig, SceneMixturePrior

SIZE = 16
CAMERAS = Cameras.orbit([20.0, 140.0], [10.0, 40.0], height=2 * SIZE)
BACKGROUND = torch.tensor([[1.0, 1, 1], [0.2, 0.4, 0.6]])
GUIDANCE_SCALES = (1.0, 7.5, 30.0, 100.0)


@pytest.fixture(scope="module")
def prior() -> SceneMixturePrior:
    return SceneMixturePrior(SceneMixtureConfig(image_size=SIZE))


@pytest.fixture(scope="module")
def condition(prior: SceneMixturePrior) -> MixtureCondition:
    return prior.condition(prior.embed("a red mug"), CAMERAS, BACKGROUND)


@pytest.fixture(scope="module")
def best(prior: SceneMixturePrior) -> Float[Tensor, "b 3 h w"]:
    """Images of the best scene, drawn by the mesh renderer."""
    return render_mesh(prior.embed("a red mug").base, CAMERAS, BACKGROUND).rgb


def guided(prior: SceneMixturePrior, sample: NoisySample, condition: MixtureCondition, scale: float) -> Tensor:
    positive, null = prior.predict_noise([NoiseRequest(sample), NoiseRequest(sample, "null")], condition)
    return null + scale * (positive - null)


def test_it_is_a_prior_that_says_what_it_is(prior: SceneMixturePrior) -> None:
    assert isinstance(prior, Prior)
    assert "not a learned model" in prior.description
    assert prior.prompt_notes("a toadstool") == ["the prompt is read as 'a mushroom with a red cap'"]


def test_the_mixtures_have_many_components(condition: MixtureCondition) -> None:
    assert condition.positive.means.shape == (2, 32, 3, SIZE, SIZE)
    assert condition.negative().means.shape == (2, 96, 3, SIZE, SIZE)
    torch.testing.assert_close(condition.negative().means[:, :32], condition.positive.means)
    variances = condition.positive.variances
    assert float(variances.max() / variances.min()) > 300


@pytest.mark.parametrize("prompt", ["positive", "null"])
@pytest.mark.parametrize("timestep", [50, 500, 950])
def test_the_prediction_is_the_gradient_of_the_log_density(
    prior: SceneMixturePrior, condition: MixtureCondition, best: Tensor, prompt: str, timestep: int
) -> None:
    """In float64 by autograd, at two cameras."""
    noise = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(timestep))
    sample = prior.schedule.add_noise(prior.encode(best), noise, torch.full((2,), timestep))
    mixture = condition.positive if prompt == "positive" else condition.negative()
    exact = replace(mixture, means=mixture.means.double(), variances=mixture.variances.double())
    noisy = sample.noisy.double().requires_grad_()
    density = exact.log_density(noisy, sample.alpha.double(), sample.sigma.double()).sum()
    score = torch.autograd.grad(density, noisy)[0]
    (prediction,) = prior.predict_noise([NoiseRequest(sample, prompt)], condition)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(prediction.double(), -sample.sigma * score, rtol=1e-3, atol=1e-3)


def test_every_mean_is_an_image_of_a_3d_scene(prior: SceneMixturePrior, condition: MixtureCondition) -> None:
    """Component 3 is the mesh with its third texture, at both cameras; drawn here with `render_mesh`."""
    embedding = prior.embed("a red mug")
    assert embedding.base.colors is not None
    textured = replace(embedding.base, colors=embedding.base.colors + embedding.textures[3])
    image = prior.encode(render_mesh(textured, CAMERAS, BACKGROUND).rgb)
    torch.testing.assert_close(condition.positive.means[:, 3], image, atol=1e-4, rtol=0)
    tinted = replace(textured, colors=textured.colors - embedding.tints[3])  # pyright: ignore[reportOptionalOperand]
    image = prior.encode(render_mesh(tinted, CAMERAS, BACKGROUND).rgb)
    torch.testing.assert_close(condition.negative().means[:, 64 + 3], image, atol=1e-4, rtol=0)


def test_the_conditioning_follows_the_camera_and_the_background(
    prior: SceneMixturePrior, condition: MixtureCondition
) -> None:
    means = condition.positive.means
    assert float((means[0] - means[1]).abs().mean()) > 0.05
    swapped = prior.condition(prior.embed("a red mug"), CAMERAS[torch.tensor([1, 0])], BACKGROUND.flip(0))
    torch.testing.assert_close(swapped.positive.means, means.flip(0), atol=1e-4, rtol=0)


@pytest.mark.parametrize("scale", GUIDANCE_SCALES)
@pytest.mark.parametrize("timestep", [50, 300, 900])
def test_the_expected_gradient_vanishes_at_the_best_scene(
    prior: SceneMixturePrior, condition: MixtureCondition, best: Tensor, scale: float, timestep: int
) -> None:
    """Opposite noises cancel there, draw by draw; at a gray image they do not."""
    noise = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))

    def mean_and_size(image: Tensor) -> tuple[float, float]:
        levels = torch.full((2,), timestep)
        samples = [prior.schedule.add_noise(prior.encode(image), each, levels) for each in (noise, -noise)]
        first, second = (guided(prior, sample, condition, scale) - sample.noise for sample in samples)
        return float((first + second).norm()), float((first - second).norm())

    mean, size = mean_and_size(best)
    assert mean < 2e-3 * size
    elsewhere, size = mean_and_size(torch.full_like(best, 0.5))
    assert elsewhere > 0.05 * size


def test_the_expected_gradient_leads_back_to_the_best_scene(prior: SceneMixturePrior, best: Tensor) -> None:
    """Along the textures, where the curvature is weakest, and along a tint, at every guidance scale.

    On average over the timesteps with the default weight sigma^2, and at each that is not among the smallest.
    """
    noise = torch.randn(16, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))
    noise = torch.cat([noise, -noise])
    count = len(noise)
    views = CAMERAS[torch.zeros(count, dtype=torch.long)]
    condition = prior.condition(prior.embed("a red mug"), views, BACKGROUND[:1].expand(count, 3))
    clean, means = prior.encode(best)[0], condition.negative().means[0]
    for direction in (*(means[[0, 5]] - clean), means[32] - means[0]):
        moved = (clean + direction).expand(count, -1, -1, -1)
        average = dict.fromkeys(GUIDANCE_SCALES, 0.0)
        for timestep in (20, 100, 300, 500, 700):
            sample = prior.schedule.add_noise(moved, noise, torch.full((count,), timestep))
            positive, null = prior.predict_noise([NoiseRequest(sample), NoiseRequest(sample, "null")], condition)
            for scale in GUIDANCE_SCALES:
                gradient = (null + scale * (positive - null) - noise).mean(0)
                slope = float((gradient * direction).sum())
                assert slope > 0 or timestep < 200
                average[scale] += slope * float(sample.sigma[0]) ** 2
        assert min(average.values()) > 0


def test_the_shipped_distiller_has_no_mean_gradient_at_the_best_scene(
    prior: SceneMixturePrior, condition: MixtureCondition, best: Tensor
) -> None:
    distiller = SDSConfig(guidance_scale=7.5, antithetic=True).build(prior)
    nothing = torch.zeros_like(best[:, :1])
    geometry = GeometryBuffers(nothing, nothing, torch.zeros_like(best), CAMERAS.camera_to_world)
    found = distiller(best, geometry, condition, progress=0.0, generator=torch.Generator().manual_seed(0))
    assert float(found.residual.abs().max()) < 1e-2


def test_images_of_another_size_are_averaged(prior: SceneMixturePrior) -> None:
    image = torch.rand(1, 3, 4 * SIZE, 4 * SIZE, generator=torch.Generator().manual_seed(0))
    blocks = image.reshape(1, 3, SIZE, 4, SIZE, 4).mean((3, 5))
    torch.testing.assert_close(prior.encode(image), 2 * blocks - 1)
    torch.testing.assert_close(prior.decode(prior.encode(image)), blocks)


def test_the_same_seed_is_the_same_prior() -> None:
    def means(seed: int) -> Tensor:
        prior = SceneMixturePrior(SceneMixtureConfig(image_size=SIZE, seed=seed))
        return prior.condition(prior.embed("a red mug"), CAMERAS, BACKGROUND).positive.means

    assert torch.equal(means(3), means(3))
    assert not torch.allclose(means(3), means(4))


def test_what_would_make_the_best_scene_unknown_is_refused(prior: SceneMixturePrior) -> None:
    with pytest.raises(ValueError, match="takes no negative prompt, got 'a blue mug'"):
        prior.embed("a red mug", "a blue mug")
    with pytest.raises(ValueError, match="'giraffe'"):
        prior.embed("a giraffe")
    with pytest.raises(ValueError, match="image_size is 24; the Haar basis takes powers of two"):
        SceneMixtureConfig(image_size=24)
    assert SceneMixturePrior(SceneMixtureConfig(image_size=24, basis="cosine")).encode(torch.zeros(1, 3, 48, 48)).shape


def test_a_run_selects_it_by_name() -> None:
    config = load_config("cpu", prior="mixture", overrides=["prior.spread=0.5"])
    prior = config.prior.build(torch.device("cpu"))
    assert isinstance(prior, SceneMixturePrior) and prior.config.spread == 0.5
    with pytest.raises(UserError, match="image_size is 24"):
        load_config("cpu", prior="mixture", overrides=["prior.image_size=24"])
