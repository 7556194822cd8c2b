"""Whole steps with everything on CUDA, without a GPU: wherever a tensor of the CPU gets in between, one of these fails.

What cannot be shown so is listed in `fake_cuda`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_cuda import FakeCudaTensor, MixedDevices, fake_cuda, real_devices
from predicted_noise import noise_pair
from tiny_diffusion_models import IMAGE_SIZE, PIPELINES, save_tiny_model
from torch import Tensor

import steindreamer.distill.priors.diffusion.prior as diffusers_prior
import steindreamer.distill.priors.diffusion.text_encoding as text_encoding
from steindreamer.distill import METHODS, NoiseRequest, NoiseSchedule, NoisySample
from steindreamer.distill.priors.diffusion import DiffusersPrior
from steindreamer.distill.priors.modalities import MODALITIES
from steindreamer.pipelines.optimization.shading import ShadingConfig
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.optimization.stage_config import StageConfig
from steindreamer.pipelines.optimization.views import ViewsConfig
from steindreamer.representations import (
    Cameras,
    DmtetConfig,
    GaussiansConfig,
    NerfConfig,
    Representation,
    TexturedMesh,
    TriangleMesh,
)
from steindreamer.representations.gaussians import gaussians
from steindreamer.representations.gaussians.densification import DensifyConfig

SIDE = 16


class Toy:
    """A `Prior` on CUDA, which knows one image for all modalities."""

    modalities = MODALITIES
    schedule = NoiseSchedule.scaled_linear()
    device = torch.device("cuda")

    def __init__(self) -> None:
        self.mode = torch.randn(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7)).to(self.device)

    def embed(self, prompt: str, negative_prompt: str = "") -> None:
        return None

    def condition(self, embedding: None, cameras: Any, background: Tensor, modality: str = "color") -> None:
        assert cameras.position.is_cuda and background.is_cuda

    def encode(self, image: Tensor) -> Tensor:
        return image * 2 - 1

    def decode(self, latent: Tensor) -> Tensor:
        return (latent + 1) / 2

    def predict_noise(self, requests: Sequence[NoiseRequest], condition: None) -> list[Tensor]:
        return [self._predict(request.sample, request.prompt) for request in requests]

    def _predict(self, sample: NoisySample, prompt: str) -> Tensor:
        return sample.noisy - sample.alpha * self.mode if prompt == "positive" else 0.5 * sample.noisy


def quad() -> TexturedMesh:
    vertices = torch.tensor([[-0.5, -0.5, 0.0], [0.5, -0.5, 0.0], [0.5, 0.5, 0.0], [-0.5, 0.5, 0.0]])
    faces, uvs = torch.tensor([[0, 1, 2], [0, 2, 3]]), vertices[:, :2] * 0.9 + 0.5
    mesh = TexturedMesh.from_mesh(TriangleMesh(vertices, faces, uvs=uvs, texture=torch.full((3, 8, 8), 0.5)))
    mesh.config.backend = "torch"
    return mesh.to("cuda")


def scene(name: str) -> Representation:
    generator = torch.Generator().manual_seed(0)
    if name == "texture":
        return quad()
    if name == "gaussians":
        every_step = DensifyConfig(interval=1, start=0.0, minimum_count=0)
        return GaussiansConfig(count=30, opacity=0.6, backend="torch", densify=every_step).build(generator, "cuda")
    if name == "nerf":
        config = NerfConfig(samples=12)
        config.occupancy.resolution = 8
        return config.build(generator, "cuda")
    return DmtetConfig(resolution=8, backend="torch").build(generator, "cuda")


def steps(stage: Stage, count: int = 2) -> None:
    before = [parameter.detach().clone() for parameter in stage.representation.parameters()]
    assert all(isinstance(parameter, FakeCudaTensor) for parameter in stage.representation.parameters())
    for _ in range(count):
        info = stage.step()
        assert not info.skipped, info
    after = list(stage.representation.parameters())
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(after, before, strict=True))


def stage(name: str, method: Any, **settings: Any) -> Stage:
    representation, prior = scene(name), Toy()
    config = StageConfig(steps=2, resolution=SIDE, warmup_resolution=SIDE, views=ViewsConfig(per_step=2), **settings)
    distillers = {modality: method.build(prior).to(prior.device) for modality in config.fractions}
    return Stage(representation, distillers, prior, None, config, torch.Generator().manual_seed(1))


REGULARIZERS = {"normal_consistency": 0.1, "normal_smoothness": 0.1, "transparency": 0.1}


@pytest.mark.parametrize("name", ["gaussians", "nerf", "mesh", "texture"])
def test_scenes_take_steps(name: str) -> None:
    """With every regularizer, a learned background, random light, and the gradient's variance."""
    with fake_cuda():
        made = scene(name)
        own = {*made.regularizers(), *made.render_terms}
        steps(
            stage(
                name,
                METHODS["sds"](),
                regularizers=REGULARIZERS | dict.fromkeys(own, 0.1),
                environment=True,
                shading=ShadingConfig(enabled=True, begin=0.0),
                probe_every=1,
            )
        )


@pytest.mark.parametrize("method", sorted({*METHODS} - {"vsd"}))
def test_methods_take_steps(method: str) -> None:
    with fake_cuda():
        steps(stage("gaussians", METHODS[method](), probe_every=2))


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("name", ["gaussians", "nerf", "mesh"])
def test_modalities_take_steps(name: str, modality: Any) -> None:
    with fake_cuda():
        steps(stage(name, METHODS["sds"](), modalities={modality: 1.0}, probe_every=1), 1)


@pytest.mark.parametrize("family", PIPELINES)
def test_families_encode_predict_and_decode(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny_model(tmp_path, family)
    for module in (diffusers_prior, text_encoding):
        monkeypatch.setattr(module, "load_part", asleep(module.load_part))
    size = 16 if family == "IFPipeline" else IMAGE_SIZE
    with fake_cuda() as device:
        prior = DiffusersPrior(str(folder), device, precision="float32", image_size=size, cache_text=False)
        cameras = Cameras.orbit([0.0, 130.0], [0.0, 10.0], height=8).to(device)
        condition = prior.condition(prior.embed("a mug", "blurry"), cameras, torch.ones(2, 3, device=device))
        image = torch.rand(2, 3, size, size).to(device).requires_grad_()
        latent = prior.encode(image)
        prior.decode(latent).sum().backward()
        assert image.grad is not None and image.grad.isfinite().all()
        noise = torch.randn(latent.shape).to(device)
        sample = prior.schedule.add_noise(latent.detach(), noise, torch.tensor([300, 700]).to(device))
        for predicted in noise_pair(prior, sample, condition):
            assert predicted.is_cuda and predicted.isfinite().all()


def asleep(load: Any) -> Any:
    def load_part(*arguments: Any, **options: Any) -> Any:
        with real_devices():
            return load(*arguments, **options)

    return load_part


def test_mixed_devices_are_found() -> None:
    """Planted: what a step may do wrong in a forward pass, in a hook, in drawing and on the way to NumPy."""
    with fake_cuda() as device:
        there, here = torch.ones(3, device=device).requires_grad_(), torch.ones(3)
        assert there.is_cuda and there.device.type == "cuda" and not (2 * there).cpu().is_cuda
        with pytest.raises(MixedDevices, match=r"aten\.add\.Tensor"):
            torch.add(there, here)
        with pytest.raises(MixedDevices, match=r"aten\.cat"):
            torch.cat([there, torch.zeros(1)])
        with pytest.raises(MixedDevices, match="numpy"):
            there.detach().numpy()
        with pytest.raises(MixedDevices, match="generator"):
            torch.rand(3, generator=torch.Generator(), device=device)
        product = 2 * there
        product.register_hook(lambda gradient: gradient * torch.ones(3))
        with pytest.raises(MixedDevices, match=r"aten\.mul"):
            product.sum().backward()


def test_a_planted_defect_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor without a device in the middle of drawing."""
    drawn = gaussians.splat

    def faulty(means: Tensor, *rest: Any, **options: Any) -> Any:
        return drawn(means + torch.zeros(3), *rest, **options)

    monkeypatch.setattr(gaussians, "splat", faulty)
    with fake_cuda(), pytest.raises(MixedDevices):
        stage("gaussians", METHODS["sds"]()).step()
