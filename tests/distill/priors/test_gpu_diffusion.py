"""Half precision, portions, checkpoints and compilation of the text-to-image priors, on a GPU and on the CPU.

What is expected comes from float32 on the CPU. Every test runs on the CPU too, so a GPU brings nothing new but itself.
"""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest
import torch
from predicted_noise import noise_pair, positive_noise
from small_world import make_geometry
from tiny_depth_models import save_hybrid_dpt
from tiny_diffusion_models import IMAGE_SIZE, PIPELINES, save_tiny_model
from torch import Tensor

from steindreamer.distill import ControlVariateConfig, GeometryBuffers, NoisySample, SDSConfig, SSDConfig
from steindreamer.distill.geometry.loading import load_monocular_estimator
from steindreamer.distill.priors.diffusion import DiffusersPrior
from steindreamer.distill.priors.diffusion.prior import TextCondition
from steindreamer.distill.priors.guidance import guided_noise
from steindreamer.representations import Cameras

diffusers: Any = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

CPU = torch.device("cpu")
COUNT = 5
GUIDANCE = 7.5
SIZES = {"IFPipeline": 16}
"""Pixels that a model sees, where they are not `IMAGE_SIZE`."""
BFLOAT16, GUIDED, FLOAT32 = 0.03, 0.15, 1e-3
"""Accepted root mean square errors over that of what is expected. bfloat16 has 8 significant bits: a layer errs by some
0.2 %, the layers' errors add up, and guidance multiplies the errors of two rows but not what the rows share."""
CONTROL_VARIATES = ControlVariateConfig(timestep_bins=1, prior_observations=0.1)
METHODS = {"sds": SDSConfig(), "ssd": SSDConfig(control_variates=CONTROL_VARIATES)}
"""SSD in a hurry to learn."""


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    # TF32, by default of convolutions, has 11 significant bits.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return torch.device(request.param)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_tiny_model(tmp_path_factory.mktemp(name), name) for name in PIPELINES}


@pytest.fixture
def folder(folders: dict[str, Path]) -> Path:
    return folders["StableDiffusionPipeline"]


@pytest.fixture
def images(generator: torch.Generator) -> Tensor:
    return torch.rand(COUNT, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)


def half(folder: Path, device: torch.device, **options: Any) -> DiffusersPrior:
    return DiffusersPrior(str(folder), device, precision="bfloat16", **options)


def error(value: Tensor | None, expected: Tensor | None) -> float:
    """Relative to what is expected, root mean square; not a number if anything is not finite."""
    assert value is not None and expected is not None
    assert value.dtype == expected.dtype == torch.float32
    return float((value.cpu() - expected.cpu()).norm() / expected.cpu().norm())


def draw(prior: DiffusersPrior, channels: int, side: int) -> NoisySample:
    """The same numbers on every device."""
    clean, noise = torch.randn(2, COUNT, channels, side, side, generator=torch.Generator().manual_seed(2))
    timestep = torch.tensor([19, 301, 499, 701, 979])
    return prior.schedule.add_noise(*(each.to(prior.device) for each in (clean, noise, timestep)))


def predict(prior: DiffusersPrior) -> tuple[Tensor, Tensor]:
    return noise_pair(prior, *arguments(prior))


def arguments(prior: DiffusersPrior) -> tuple[NoisySample, TextCondition]:
    cameras = Cameras.orbit([0.0, 40.0, 90.0, 180.0, 0.0], [0.0, 0.0, 0.0, 0.0, 80.0], height=8).to(prior.device)
    condition = prior.condition(prior.embed("a mug", "blurry"), cameras, torch.ones(COUNT, 3, device=prior.device))
    channels, reduction = prior._codec.channels, prior._codec.reduction
    return draw(prior, channels, prior.image_size // reduction), condition


def there_and_back(prior: DiffusersPrior, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, decoded latents, and the gradient of the images."""
    images = images.detach().to(prior.device).requires_grad_()
    latents = prior.encode(images)
    decoded = prior.decode(latents)
    weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(3)).to(prior.device)
    (gradient,) = torch.autograd.grad((decoded * weights).sum(), images)
    return latents.detach(), decoded.detach(), gradient


@pytest.mark.parametrize("name", PIPELINES)
def test_bfloat16_predicts_what_float32_does(name: str, folders: dict[str, Path], device: torch.device) -> None:
    size = SIZES.get(name, IMAGE_SIZE)
    expected = predict(DiffusersPrior(str(folders[name]), CPU, image_size=size))
    prior = half(folders[name], device, image_size=size)
    predicted = predict(prior)
    assert predicted[0].device.type == device.type
    assert {value.dtype for value in prior.denoiser.parameters()} == {torch.bfloat16}
    assert 0 < error(predicted[0], expected[0]) < BFLOAT16
    assert 0 < error(predicted[1], expected[1]) < BFLOAT16
    assert error(*(guided_noise(*pair, scale=GUIDANCE) for pair in (predicted, expected))) < GUIDED


def test_both_rows_of_the_guidance_come_from_one_call(folder: Path, device: torch.device) -> None:
    prior, rows = half(folder, device), []
    prior.embed("a mug")  # tries the model once
    prior.denoiser.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    (positive, _), alone = predict(prior), positive_noise(prior, *arguments(prior))
    assert rows == [2 * COUNT, COUNT]
    assert error(alone, positive) < BFLOAT16


def test_the_autoencoder_stays_in_float32(folder: Path, device: torch.device, images: Tensor) -> None:
    expected = there_and_back(DiffusersPrior(str(folder), CPU), images)
    for value, wanted in zip(there_and_back(half(folder, device), images), expected, strict=True):
        assert value.device.type == device.type
        assert error(value, wanted) < FLOAT32


def on(device: torch.device, geometry: GeometryBuffers) -> GeometryBuffers:
    images = geometry.opacity, geometry.depth, geometry.normal
    cameras = geometry.camera_to_world, geometry.intrinsics
    return GeometryBuffers(*(each.to(device) for each in (*images, *cameras) if each is not None))


def test_the_depth_term_stays_in_float32(
    folder: Path, device: torch.device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = str(save_hybrid_dpt(tmp_path))

    def term(prior: DiffusersPrior) -> Tensor:
        distiller = SSDConfig(control_variates=ControlVariateConfig(["depth"])).build(
            prior, load_monocular_estimator(saved).to(prior.device)
        )
        (variate,) = distiller.control_variates
        return variate.terms(draw(prior, 4, IMAGE_SIZE // 8), on(prior.device, make_geometry(COUNT, IMAGE_SIZE)))

    expected = term(DiffusersPrior(str(folder), CPU))
    value = term(half(folder, device))
    assert value.device.type == device.type
    assert error(value, expected) < FLOAT32


@pytest.mark.parametrize("method", METHODS)
def test_a_step_in_bfloat16_is_that_of_float32(method: str, folder: Path, device: torch.device, images: Tensor) -> None:
    """With the same draws, which come from the CPU's generator; coefficients learn in between."""

    def steps(prior: DiffusersPrior) -> tuple[list[Tensor], float]:
        """Gradients of latents and of images by step, and the last coefficient."""
        image = images.to(prior.device).requires_grad_()
        distiller, geometry = METHODS[method].build(prior).to(prior.device), on(prior.device, make_geometry(COUNT))
        cameras = Cameras.orbit([72.0 * i for i in range(COUNT)], [10.0] * COUNT, height=8).to(prior.device)
        condition = prior.condition(prior.embed("a mug"), cameras, torch.ones(COUNT, 3, device=prior.device))
        generator, gradients = torch.Generator().manual_seed(4), []
        learned = 1.0
        for progress in (0.0, 0.5, 1.0):
            step = distiller(image, geometry, condition, progress=progress, generator=generator)
            gradients += [step.gradient, *torch.autograd.grad(step.loss, image)]
            distiller.update(step)
            learned = next(value for name, value in step.diagnostics.items() if name.startswith("mu/"))
        return gradients, learned

    (values, learned), (expected, wished) = steps(half(folder, device)), steps(DiffusersPrior(str(folder), CPU))
    for value, wanted in zip(values, expected, strict=True):
        assert value.device.type == device.type
        assert error(value, wanted) < GUIDED
    assert learned == pytest.approx(wished, rel=GUIDED)
    assert (abs(wished - 1) > 0.1) == (method == "ssd")


@pytest.mark.parametrize("size", [1, 2])
def test_portions_change_nothing(size: int, folder: Path, device: torch.device, images: Tensor) -> None:
    whole, portioned = half(folder, device), half(folder, device, micro_batch=size)
    one, other = predict(portioned), predict(whole)
    assert error(one[0], other[0]) < BFLOAT16
    assert error(one[1], other[1]) < BFLOAT16
    for value, wanted in zip(there_and_back(portioned, images), there_and_back(whole, images), strict=True):
        assert error(value, wanted) < FLOAT32


def test_checkpointing_changes_nothing_and_keeps_less(folder: Path, device: torch.device, images: Tensor) -> None:
    plain, thrifty = half(folder, device), half(folder, device, gradient_checkpointing=True)

    def kept(prior: DiffusersPrior) -> int:
        """Bytes between forward and backward."""
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            latents = prior.encode(images.to(device).requires_grad_())
        assert latents.requires_grad
        return sum(sizes.values())

    for value, wanted in zip(there_and_back(thrifty, images), there_and_back(plain, images), strict=True):
        assert error(value, wanted) < FLOAT32
    assert kept(thrifty) < 0.5 * kept(plain)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*Dynamo detected a call to a `functools.lru_cache`")
def test_compiling_changes_no_prediction(folder: Path, device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    if device.type == "cpu":  # traced as for a GPU, but run as it is: generating code would take a minute
        monkeypatch.setattr(torch.nn.Module, "compile", partialmethod(torch.nn.Module.compile, backend="eager"))
    torch.compiler.reset()
    expected, traced = predict(half(folder, device)), half(folder, device, compile=True)
    predicted = predict(traced)
    assert traced.denoiser._compiled_call_impl is not None
    assert error(predicted[0], expected[0]) < BFLOAT16
    assert error(predicted[1], expected[1]) < BFLOAT16
