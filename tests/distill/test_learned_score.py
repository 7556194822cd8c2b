"""VSD: a LoRA denoiser that starts as the prior, learns the scene's own images, and is restored to the bit."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float
from predicted_noise import noise_pair, positive_noise
from safetensors.torch import load, save
from small_world import TwoModes, make_geometry
from tiny_diffusion_models import IMAGE_SIZE, PIPELINES, save_tiny_model
from torch import Tensor, nn

from steindreamer.distill import ControlVariateConfig, Distillation, Distiller, NoisySample, SDSConfig
from steindreamer.distill.learned_score import LearnedScore, LoRABatch
from steindreamer.distill.methods.vsd import VSDConfig
from steindreamer.distill.priors.base import LoRAPrediction, LoRAPrior
from steindreamer.distill.priors.diffusion import DiffusersPrior
from steindreamer.distill.variance.probe import count_predictions, probe_noise_variance
from steindreamer.representations import Cameras

CAMERAS = Cameras.orbit([0.0, 130.0], [10.0, -20.0], height=8)
POSES = CAMERAS.camera_to_world


class OffsetDenoiser(nn.Module):
    """An image that is added to the prediction, and one that depends on the camera."""

    def __init__(self, shape: torch.Size, camera: bool) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(shape))
        self.by_camera = nn.Parameter(torch.zeros(16, *shape)) if camera else None

    def forward(self, camera: Tensor | None) -> Tensor:
        if camera is None or self.by_camera is None:
            return self.offset
        return self.offset + torch.einsum("bk,kchw->bchw", camera.flatten(1), self.by_camera)


class TrainableTwoModes(TwoModes):
    """Records the camera conditions of its LoRA denoiser."""

    def __init__(self) -> None:
        super().__init__()
        self.cameras: list[Tensor | None] = []

    def lora_denoiser(self, rank: int, *, camera: bool, generator: torch.Generator) -> OffsetDenoiser:
        return OffsetDenoiser(self.mode.shape[1:], camera)

    def predict_lora(
        self, denoiser: OffsetDenoiser, sample: NoisySample, condition: None, camera: Float[Tensor, "b 4 4"] | None
    ) -> LoRAPrediction:
        self.cameras.append(camera)
        noise = self.positive(sample) + denoiser(camera)
        return LoRAPrediction(noise, noise - sample.noise)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def disturb(module: nn.Module, strength: float = 0.3) -> None:
    """As if it had been trained."""
    generator = seeded(9)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += strength * torch.randn(parameter.shape, generator=generator)


class Scene:
    """Two images of fixed pixels, seen by `CAMERAS`, and a prior that judges them."""

    def __init__(self, prior: Any, size: int, embedding: Any = None, **settings: Any) -> None:
        self.prior = prior
        self.image = torch.rand(2, 3, size, size, generator=seeded(5)).requires_grad_()
        self.geometry = replace(make_geometry(2), camera_to_world=POSES)
        self.condition = prior.condition(embedding, CAMERAS, torch.ones(2, 3))
        self.distiller: Distiller = VSDConfig(**settings).build(prior)
        self.generator = seeded(3)

    @property
    def score(self) -> LearnedScore:
        assert self.distiller.learned_score is not None
        return self.distiller.learned_score

    def step(self, learn: bool = True, distiller: Distiller | None = None) -> Distillation:
        chosen = distiller or self.distiller
        out = chosen(self.image, self.geometry, self.condition, progress=0.3, generator=self.generator)
        if learn:
            chosen.update(out)
        return out

    def batch(self, seed: int = 0) -> LoRABatch[Any]:
        return LoRABatch(self.prior.encode(self.image).detach(), self.condition, POSES, seed)

    def sample(self, seed: int = 1) -> NoisySample:
        clean = self.prior.encode(self.image).detach()
        noise = torch.randn(clean.shape, generator=seeded(seed))
        return self.prior.schedule.add_noise(clean, noise, torch.tensor([150, 600]))

    @torch.no_grad()
    def error(self) -> float:
        """Of the copy, at noises that it has not seen."""
        samples = [self.sample(seed) for seed in range(100, 104)]
        predict = self.prior.predict_lora
        return sum(
            float(predict(self.score.lora, sample, self.condition, POSES).error.square().mean()) / len(samples)
            for sample in samples
        )


def small(**settings: Any) -> Scene:
    return Scene(TrainableTwoModes(), 8, **settings)


@pytest.fixture(scope="module")
def scene_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Scene]:
    """A scene under a tiny model of a family: the prior is made once, the copy anew each time."""
    pytest.importorskip("diffusers")
    made: dict[str, tuple[DiffusersPrior, Any]] = {}

    def scene(pipeline: str = "StableDiffusionPipeline", **settings: Any) -> Scene:
        if pipeline not in made:
            folder = save_tiny_model(tmp_path_factory.mktemp("tiny") / pipeline, pipeline)
            size = 16 if pipeline == "IFPipeline" else IMAGE_SIZE
            prior = DiffusersPrior(str(folder), torch.device("cpu"), image_size=size)
            made[pipeline] = prior, prior.embed("a red mug", "blurry")
        prior, embedding = made[pipeline]
        prior.micro_batch = 0
        return Scene(prior, prior.image_size, embedding, **settings)

    return scene


@pytest.mark.parametrize("pipeline", PIPELINES)
def test_at_first_only_guidance_is_left(pipeline: str, scene_of: Callable[..., Scene]) -> None:
    """The LoRA denoiser predicts what the prior predicts, to the bit; the residual is (s - 1) (e_p - e_n)."""
    scene = scene_of(pipeline, guidance_scale=7.5)
    prior, sample = scene.prior, scene.sample()
    assert isinstance(prior, LoRAPrior)
    plain = positive_noise(prior, sample, scene.condition)
    with torch.no_grad():
        copied = prior.predict_lora(scene.score.lora, sample, scene.condition, POSES)
    assert torch.equal(copied.noise, plain)

    out = scene.step(learn=False)
    scene.generator.manual_seed(3)
    sds = scene.step(distiller=SDSConfig().build(prior), learn=False)
    assert torch.equal(out.observations[0].timestep, sds.observations[0].timestep)
    noisy = prior.schedule.add_noise(
        prior.encode(scene.image).detach(), -sds.observations[0].terms[0], out.observations[0].timestep
    )
    positive, negative = noise_pair(prior, noisy, scene.condition)
    torch.testing.assert_close(out.residual, 6.5 * (positive - negative), atol=2e-5, rtol=1e-5)
    assert out.residual.abs().max() > 1e-3
    assert out.diagnostics["learned_score_error"] == 0


@pytest.mark.parametrize("pipeline", ["StableDiffusionPipeline", "StableDiffusion3Pipeline", "IFPipeline"])
def test_training_learns_the_scene_and_leaves_the_prior_alone(pipeline: str, scene_of: Callable[..., Scene]) -> None:
    scene = scene_of(pipeline, lora_rate=2e-2)
    denoiser, sample = scene.prior.denoiser, scene.sample()
    weights = {name: (p.data_ptr(), p.clone()) for name, p in denoiser.named_parameters()}
    before = noise_pair(scene.prior, sample, scene.condition)
    networks, error = _alive(type(denoiser)), scene.error()
    for seed in range(16):
        scene.score.learn(scene.batch(seed))
    assert scene.error() < 0.97 * error
    assert scene.step(learn=False).diagnostics["learned_score_error"] > 0

    after = noise_pair(scene.prior, sample, scene.condition)
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    own = {p.data_ptr() for p in scene.score.parameters()}
    assert dict(denoiser.named_parameters()).keys() == weights.keys()
    for name, parameter in denoiser.named_parameters():
        address, value = weights[name]
        assert parameter.data_ptr() == address not in own and torch.equal(parameter, value)
        assert not parameter.requires_grad and parameter.grad is None
    assert _alive(type(denoiser)) == networks, "one base in memory"
    assert sum(p.numel() for p in scene.score.parameters()) < 0.3 * sum(p.numel() for p in denoiser.parameters())


def _alive(kind: type) -> int:
    gc.collect()
    return sum(type(thing) is kind for thing in gc.get_objects())


def test_a_denoiser_that_has_memorized_its_images_makes_sds_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = small()
    monkeypatch.setattr(
        scene.prior,
        "predict_lora",
        lambda copy, sample, condition, camera: LoRAPrediction(sample.noise, 0 * sample.noise),
    )
    vsd = scene.step(learn=False)
    scene.generator.manual_seed(3)
    sds = scene.step(distiller=SDSConfig().build(scene.prior), learn=False)
    assert torch.equal(vsd.residual, sds.residual) and torch.equal(vsd.gradient, sds.gradient)
    assert vsd.diagnostics["second_moment_vs_sds"] == 1


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0, 2.0])
def test_the_camera_weight_mixes_with_and_without_camera(weight: float, scene_of: Callable[..., Scene]) -> None:
    scene = scene_of(camera_weight=weight)
    disturb(scene.score)
    sample, predict, copy = scene.sample(), scene.prior.predict_lora, scene.score.lora
    with torch.no_grad():
        given, withheld = (predict(copy, sample, scene.condition, camera).noise for camera in (POSES, None))
    assert not torch.allclose(given, withheld, atol=1e-2)
    mixed = scene.score(sample, scene.condition, POSES)
    torch.testing.assert_close(mixed, weight * given + (1 - weight) * withheld)
    turned = scene.score(sample, scene.condition, POSES.flip(0))
    assert torch.equal(turned, mixed) == (weight == 0)


@pytest.mark.parametrize(("dropout", "least", "most"), [(0.0, 1.0, 1.0), (0.3, 0.6, 0.8), (1.0, 0.0, 0.0)])
def test_cameras_are_left_out_image_by_image(dropout: float, least: float, most: float) -> None:
    scene = small(camera_dropout=dropout, lora_steps=100)
    scene.score.learn(scene.batch())
    cameras = torch.cat([camera for camera in scene.prior.cameras if camera is not None])
    assert len(cameras) == 200
    shown = cameras.abs().sum((1, 2)) > 0
    assert least <= float(shown.float().mean()) <= most
    assert torch.equal(cameras[shown], POSES.repeat(100, 1, 1)[shown])


def test_without_cameras_none_are_told() -> None:
    scene = small(camera=False)
    scene.step()
    assert scene.prior.cameras == [None, None]


def test_guidance_does_not_reach_the_lora_denoiser() -> None:
    """Two guidance scales, the same copy's prediction subtracted."""
    scenes = [small(guidance_scale=scale) for scale in (1.0, 7.5)]
    for scene in scenes:
        disturb(scene.score)
    plain, guided = (scene.step(learn=False) for scene in scenes)
    sds = [
        each.step(distiller=SDSConfig(guidance_scale=scale).build(each.prior), learn=False)
        for each, scale in ((small(), 1.0), (small(), 7.5))
    ]
    difference = sds[1].observations[0].prediction - sds[0].observations[0].prediction
    torch.testing.assert_close(guided.residual - plain.residual, difference)


def test_steins_terms_join_and_begin_at_zero() -> None:
    plain, joined = small(), small(control_variates=ControlVariateConfig(["spectral"], bands=3))
    first, second = plain.step(), joined.step()
    assert first.observations[0].terms.shape == (0, 2, 3, 8, 8)
    assert torch.equal(first.residual, second.residual)
    assert [second.diagnostics[f"mu/spectral_{band:02d}"] for band in range(3)] == [0, 0, 0]
    out = [joined.step() for _ in range(5)][-1]
    assert all(out.diagnostics[f"mu/spectral_{band:02d}"] != 0 for band in range(3))
    assert not torch.equal(out.residual, out.observations[0].prediction)
    with pytest.raises(ValueError, match="terms must list some of"):
        VSDConfig(control_variates=ControlVariateConfig(["dept"])).build(TrainableTwoModes())


@pytest.mark.parametrize("pipeline", ["", "StableDiffusionPipeline", "StableDiffusion3Pipeline"])
def test_a_restored_run_continues_to_the_bit(pipeline: str, scene_of: Callable[..., Scene]) -> None:
    def make() -> Scene:
        settings: dict[str, Any] = {
            "lora_rate": 1e-2,
            "lora_steps": 2,
            "control_variates": ControlVariateConfig(["noise"]),
        }
        return scene_of(pipeline, **settings) if pipeline else small(**settings)

    whole = make()
    for _ in range(2):
        whole.step()
    saved, drawn = load(save(whole.distiller.state_dict())), whole.generator.get_state()
    expected = [whole.step() for _ in range(2)]
    again = make()
    again.step()  # what it learned here must be forgotten
    for _ in range(2):  # and loading leaves what is loaded as it was
        again.distiller.load_state_dict(saved)
        again.generator.set_state(drawn)
        for step in expected:
            out = again.step()
            assert torch.equal(out.gradient, step.gradient) and out.diagnostics == step.diagnostics
    first, second = again.distiller.state_dict(), whole.distiller.state_dict()
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    fresh = make()
    again.distiller.load_state_dict({name: tensor.clone() for name, tensor in fresh.distiller.state_dict().items()})
    assert not again.score.optimizer.state, "before the first step there are no moments"


def test_the_state_is_the_copys_and_its_optimizers(scene_of: Callable[..., Scene]) -> None:
    scene = scene_of()
    scene.step()
    names = {name.split(".")[1] for name in scene.distiller.state_dict() if name.startswith("learned_score.")}
    assert names == {"error", "lora", "optimizer"}
    assert {name.split(".")[0] for name in scene.distiller.state_dict()} == {"learned_score"}
    assert all(p.dtype == torch.float32 for p in scene.score.parameters())
    before = {key: value.clone() for key, value in scene.distiller.state_dict().items()}
    scene.step(learn=False)
    probe_noise_variance(
        scene.distiller, scene.image, scene.geometry, scene.condition, progress=0.0, generator=scene.generator
    )
    assert all(torch.equal(value, before[name]) for name, value in scene.distiller.state_dict().items())


@pytest.mark.parametrize("pipeline", ["StableDiffusionPipeline", "StableDiffusion3Pipeline"])
def test_portions_learn_the_same(pipeline: str, scene_of: Callable[..., Scene]) -> None:
    scene = scene_of(pipeline)
    disturb(scene.score, 0.03)
    sample, gradients = scene.sample(), []
    for size in (0, 1):
        scene.prior.micro_batch = size
        predicted = scene.prior.predict_lora(scene.score.lora, sample, scene.condition, POSES)
        predicted.error.square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in scene.score.parameters() if p.grad is not None]))
        scene.score.optimizer.zero_grad()
    assert (gradients[1] - gradients[0]).norm() < 1e-5 * gradients[0].norm()


def test_perp_neg_is_the_priors_business(tmp_path: Path) -> None:
    """The LoRA denoiser gets the prompt alone."""
    pytest.importorskip("diffusers")
    folder, device = save_tiny_model(tmp_path / "model"), torch.device("cpu")
    plain, perp = (DiffusersPrior(str(folder), device, perp_neg=negatives) for negatives in (False, True))
    scenes = [Scene(prior, IMAGE_SIZE, prior.embed("a red mug")) for prior in (plain, perp)]
    assert bool(scenes[1].condition.negative_weights.any())
    for scene in scenes:
        disturb(scene.score)
    one, two = (scene.score(scene.sample(), scene.condition, POSES) for scene in scenes)
    assert torch.equal(one, two)


def test_predictions_of_the_lora_denoiser_count() -> None:
    scene = small(camera_weight=0.5)
    with count_predictions(scene.distiller) as counter:
        scene.step()
    assert counter.calls == [4, 2, 2, 2], "guided prediction, with and without camera, training"
    assert isinstance(counter, LoRAPrior) and scene.score.prior is scene.prior


def test_an_error_that_is_not_finite_teaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scene = small()
    scene.score.learn(scene.batch())
    before = [p.clone() for p in scene.score.parameters()]
    batch = scene.batch()
    scene.score.learn(replace(batch, clean=batch.clean * float("nan")))
    assert all(torch.equal(p, b) for p, b in zip(scene.score.parameters(), before, strict=True))
    scene.score.learn(scene.batch(1))
    assert not torch.equal(next(scene.score.parameters()), before[0])


def test_what_cannot_be_is_refused(prior: TwoModes) -> None:
    with pytest.raises(ValueError, match="TwoModes has none: give a text-to-image model with --prior"):
        VSDConfig().build(prior)
    for settings, message in (
        ({"lora_rate": 0.0}, "need a learning rate > 0 and steps >= 0 of the learned score, got 0.0, 1"),
        ({"lora_steps": -1}, "steps >= 0 of the learned score, got 0.0001, -1"),
        ({"camera_dropout": 1.5}, "camera_dropout must be a fraction between 0 and 1, got 1.5"),
        ({"camera_weight": 0.5, "camera_dropout": 0.0}, "camera_weight=0.5 mixes predictions with and without camera"),
        ({"camera_weight": 0.5, "camera": False}, "set camera=true and camera_dropout above 0"),
    ):
        with pytest.raises(ValueError, match=message):
            small(**settings)
