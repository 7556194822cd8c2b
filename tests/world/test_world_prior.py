"""The world's exact prior: its components are images of the prompt, seen by the very cameras that were asked."""

from __future__ import annotations

from dataclasses import asdict
from itertools import combinations, pairwise

import pytest
import torch
from predicted_noise import noise_pair, positive_noise
from pydantic import TypeAdapter
from torch import Tensor

from steindreamer.distill import Prior
from steindreamer.distill.priors.mixture import MixtureCondition
from steindreamer.distill.priors.modalities import MODALITIES, background_of, encode
from steindreamer.representations import Cameras, render_mesh
from steindreamer.world import prior as world_prior
from steindreamer.world.prior import WorldPrior, WorldPriorConfig
from steindreamer.world.views import shade

CAMERAS = Cameras.orbit([0.0, 120.0], [10.0, 30.0], height=32)
BACKGROUND = torch.tensor([[1.0, 1, 1], [0.2, 0.4, 0.6]])


@pytest.fixture(scope="module")
def prior() -> WorldPrior:
    return WorldPrior(WorldPriorConfig(objects=4, unconditional_objects=6))


@pytest.fixture(scope="module")
def condition(prior: WorldPrior) -> MixtureCondition:
    return prior.condition(prior.embed("a red mug"), CAMERAS, BACKGROUND)


def test_it_is_a_prior_and_says_what_it_is(prior: WorldPrior) -> None:
    assert isinstance(prior, Prior)
    assert "not a learned model" in prior.description


def test_components_are_images_over_the_asked_background(prior: WorldPrior, condition: MixtureCondition) -> None:
    means = condition.positive.means
    assert means.shape == (2, 4, 3, 32, 32)
    images = prior.decode(means.flatten(0, 1)).reshape(means.shape)
    assert 0 <= float(images.min()) and float(images.max()) <= 1
    torch.testing.assert_close(images[:, :, :, 0, 0], BACKGROUND[:, None].expand(2, 4, 3))
    red, green, blue = images[0, 0, :, 16, 16]
    assert red > green + 0.2 and red > blue + 0.2


def test_objects_differ_and_follow_the_camera(prior: WorldPrior, condition: MixtureCondition) -> None:
    means = condition.positive.means
    assert float((means[0, 0] - means[0, 1]).abs().mean()) > 0.01
    turned = prior.condition(prior.embed("a red mug"), CAMERAS[torch.tensor([1, 0])], BACKGROUND.flip(0))
    torch.testing.assert_close(turned.positive.means, means.flip(0), atol=1e-3, rtol=0)
    wide = prior.condition(prior.embed("a red mug"), CAMERAS.resized(24, 40), BACKGROUND)
    assert wide.positive.means.shape[-2:] == (24, 40)


def test_the_same_seed_is_the_same_world() -> None:
    def first(seed: int, objects: int) -> Tensor:
        prior = WorldPrior(WorldPriorConfig(objects=objects, unconditional_objects=2, seed=seed))
        return prior.condition(prior.embed("a yellow duck"), CAMERAS, BACKGROUND).positive.means[:, 0]

    assert torch.equal(first(0, 1), first(0, 3))
    assert not torch.equal(first(0, 1), first(1, 1))


def test_unconditional_components_are_drawn_once_and_only_if_asked(
    prior: WorldPrior, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    drawn: list[int] = []
    original = world_prior.render_all

    def counting(objects: list, *arguments: object, **options: int) -> Tensor:
        drawn.append(len(objects))
        return original(objects, *arguments, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(world_prior, "render_all", counting)
    condition = prior.condition(prior.embed("a red mug"), CAMERAS, BACKGROUND)
    clean = condition.positive.means[:, 0]
    noise = torch.randn(clean.shape, generator=generator)
    sample = prior.schedule.add_noise(clean, noise, torch.tensor([500, 500]))
    positive_noise(prior, sample, condition)
    assert drawn == [4]
    for _ in range(2):
        noise_pair(prior, sample, condition)
    assert drawn == [4, 6]


def test_the_unconditional_mixture_gives_every_caption_the_same_weight(condition: MixtureCondition) -> None:
    mixture = condition.negative()
    torch.testing.assert_close(mixture.means[:, :4], condition.positive.means)
    torch.testing.assert_close(mixture.log_weights.exp(), torch.tensor([1 / 28] * 4 + [1 / 7] * 6))


def test_a_negative_prompt_replaces_the_unconditional_mixture(prior: WorldPrior) -> None:
    embedding = prior.embed("a red mug", "a blue mug")
    images = prior.decode(prior.condition(embedding, CAMERAS, BACKGROUND).negative().means[:, 0])
    assert len(embedding.negatives) == 4
    red, _, blue = images[0, :, 16, 16]
    assert blue > red + 0.2


def test_a_little_noise_is_recognized(
    prior: WorldPrior, condition: MixtureCondition, generator: torch.Generator
) -> None:
    """The posterior mean of a slightly noisy component is that component; of pure noise, the mean of all."""
    means = condition.positive.means
    noise = torch.randn(means[:, 2].shape, generator=generator)

    def denoise(timestep: int) -> Tensor:
        sample = prior.schedule.add_noise(means[:, 2], noise, torch.full((2,), timestep))
        prediction = positive_noise(prior, sample, condition)
        return (sample.noisy - sample.sigma * prediction) / sample.alpha

    assert float((denoise(300) - means[:, 2]).square().mean()) < 0.15**2
    blind, average = denoise(999), means.mean(1)
    assert float((blind - average).square().mean()) < 0.5 * float((means[:, 2] - average).square().mean())


def test_sampling_from_noise_ends_at_an_object(
    prior: WorldPrior, condition: MixtureCondition, generator: torch.Generator
) -> None:
    """Deterministic DDIM from t = 999 lands about one bandwidth (0.15) away from a component."""
    noisy = torch.randn(2, 3, 32, 32, generator=generator)
    timesteps = torch.linspace(999, 0, 40).long()
    for now, after in pairwise(timesteps):
        (alpha, sigma), (alpha_after, sigma_after) = (prior.schedule.at(t.expand(2)) for t in (now, after))
        noise = condition.positive.predict_noise(noisy, alpha, sigma)
        noisy = alpha_after * (noisy - sigma * noise) / alpha + sigma_after * noise
    distance = (noisy[:, None] - condition.positive.means).square().mean((2, 3, 4)).sqrt()
    nearest = distance.min(1).values
    assert 0.1 < float(nearest.min()) and float(nearest.max()) < 0.16


def test_bad_input_is_named(prior: WorldPrior) -> None:
    with pytest.raises(ValueError, match="zeppelin"):
        prior.embed("a red zeppelin")
    with pytest.raises(ValueError, match="zeppelin"):
        prior.embed("a red mug", "zeppelin")


@pytest.mark.parametrize(
    ("name", "value"),
    [("objects", 0), ("unconditional_objects", 0), ("supersample", 0), ("bandwidth", 0.0), ("seed", -1)],
)
def test_settings_out_of_range_are_refused(name: str, value: float) -> None:
    config = WorldPriorConfig()
    setattr(config, name, value)
    with pytest.raises(ValueError, match=f"{name}={value}"):
        config.build(torch.device("cpu"))


def test_the_config_is_one_that_pydantic_reads() -> None:
    assert TypeAdapter(WorldPriorConfig).validate_python(asdict(WorldPriorConfig())) == WorldPriorConfig()


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_modality_is_what_the_renderer_would_distill(prior: WorldPrior, modality: str) -> None:
    """The components are the objects' own buffers, encoded as those of a scene that is distilled."""
    embedding = prior.embed("a red mug")
    means = prior.condition(embedding, CAMERAS, BACKGROUND, modality).positive.means
    behind = background_of(modality, BACKGROUND)
    for index, mesh in enumerate(embedding.objects):
        plain, lit = (render_mesh(each, CAMERAS, behind, supersample=2) for each in (mesh, shade(mesh)))
        expected = encode(
            modality,
            rgb=lit.rgb,
            albedo=plain.rgb,
            normal=plain.normal,
            depth=plain.depth,
            opacity=plain.opacity,
            cameras=CAMERAS,
        )
        torch.testing.assert_close(prior.decode(means[:, index]), expected, atol=2e-5, rtol=0)


def test_modalities_differ_and_color_is_the_default(prior: WorldPrior) -> None:
    embedding = prior.embed("a red mug")
    means = {name: prior.condition(embedding, CAMERAS, BACKGROUND, name).positive.means for name in MODALITIES}
    assert means["color"].equal(prior.condition(embedding, CAMERAS, BACKGROUND).positive.means)
    for one, other in combinations(MODALITIES, 2):
        assert float((means[one] - means[other]).abs().max()) > 0.1
    with pytest.raises(ValueError, match="no modality 'heat': available: color, albedo, normal, depth"):
        prior.condition(embedding, CAMERAS, BACKGROUND, "heat")


def test_a_normal_map_is_recognized_by_its_own_noise_prediction(prior: WorldPrior, generator: torch.Generator) -> None:
    condition = prior.condition(prior.embed("a red mug"), CAMERAS, BACKGROUND, "normal")
    noise = torch.randn(2, 3, 32, 32, generator=generator)
    sample = prior.schedule.add_noise(condition.positive.means[:, 2], noise, torch.tensor([20, 20]))
    predicted, _ = noise_pair(prior, sample, condition)
    assert float((predicted - noise).square().mean()) < float(noise.square().mean())
    unconditional = condition.negative()
    assert unconditional.means[:, :4].equal(condition.positive.means) and unconditional.means.shape[1] == 10
