"""Against diffusers itself, on a Stable Diffusion of the real classes with random weights."""

from __future__ import annotations

import gc
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from predicted_noise import noise_pair, positive_noise
from tiny_diffusion_models import IMAGE_SIZE, edit_json, save_tiny_model
from torch import Tensor

from steindreamer.distill import (
    METHODS,
    ControlVariateConfig,
    GeometryBuffers,
    GeometryEstimator,
    NoisySample,
    Prior,
    SSDConfig,
)
from steindreamer.distill.priors.diffusion import DiffusersPrior, TextRows
from steindreamer.distill.priors.guidance import guided_noise
from steindreamer.distill.priors.view_prompts import VIEWS, view_prompts, view_weights
from steindreamer.representations import Cameras

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")

CPU = torch.device("cpu")
WHITE = torch.ones(3, 3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def prior(folder: Path) -> DiffusersPrior:
    return DiffusersPrior(str(folder), CPU)


@pytest.fixture
def edited(folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the model with some values of one of its JSON files replaced."""

    def edit(part: str, **values: Any) -> Path:
        copy = shutil.copytree(folder, tmp_path / "copy")
        edit_json(next((copy / part).glob("*config.json")), **values)
        return copy

    return edit


@pytest.fixture
def cameras() -> Cameras:
    return Cameras.orbit([0.0, 120.0, -60.0], [10.0, 0.0, 70.0], height=8)


@pytest.fixture
def sample(prior: DiffusersPrior, generator: torch.Generator) -> NoisySample:
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
    return prior.schedule.add_noise(clean, noise, torch.tensor([20, 500, 980]))


def _embeddings(rows: TextRows) -> Tensor:
    return rows.tensors["encoder_hidden_states"]


def _vae(prior: DiffusersPrior) -> Any:
    codec: Any = prior._codec
    return codec._vae


def _raw_output(folder: Path, sample: NoisySample, text: Tensor) -> Tensor:
    """The U-Net called one image at a time."""
    unet: Any = diffusers.UNet2DConditionModel.from_pretrained(folder, subfolder="unet")
    rows = zip(sample.noisy, sample.timestep, text, strict=True)
    with torch.no_grad():
        return torch.cat([unet(x[None], t, encoder_hidden_states=c[None]).sample for x, t, c in rows])


def test_it_is_a_prior(prior: DiffusersPrior) -> None:
    assert isinstance(prior, Prior)
    assert prior.image_size == IMAGE_SIZE
    assert "Stable Diffusion, epsilon, 64 px, float32" in prior.description


def test_loading_is_silent_and_leaves_progress_bars_on(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    DiffusersPrior(str(folder), CPU, cache_text=False).embed("a red mug")
    assert not "".join(capfd.readouterr())
    assert all(library.utils.logging.is_progress_bar_enabled() for library in (diffusers, transformers))


def test_each_row_is_the_models_own_answer(
    prior: DiffusersPrior, folder: Path, cameras: Cameras, sample: NoisySample
) -> None:
    condition = prior.condition(prior.embed("a red mug", "blurry"), cameras, WHITE)
    predicted = noise_pair(prior, sample, condition)
    positive, negative = (
        _raw_output(folder, sample, _embeddings(text)) for text in (condition.positive, condition.negative)
    )
    torch.testing.assert_close(predicted, (positive, negative), rtol=1e-4, atol=1e-5)
    assert not torch.allclose(positive, negative)


def test_the_negative_row_is_computed_only_on_request(
    prior: DiffusersPrior, cameras: Cameras, sample: NoisySample
) -> None:
    rows: list[int] = []
    prior.embed("a mug")  # the first one asks the denoiser whether it fits the text
    hook = prior.denoiser.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    condition = prior.condition(prior.embed("a mug"), cameras, WHITE)
    alone, (positive, _) = positive_noise(prior, sample, condition), noise_pair(prior, sample, condition)
    hook.remove()
    assert rows == [3, 6]
    torch.testing.assert_close(alone, positive, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction_type", ["v_prediction", "sample"])
def test_other_predictions_become_noise(
    prediction_type: str, edited: Callable[..., Path], cameras: Cameras, sample: NoisySample
) -> None:
    folder = edited("scheduler", prediction_type=prediction_type)
    prior = DiffusersPrior(str(folder), CPU)
    condition = prior.condition(prior.embed("a mug"), cameras, WHITE)
    predicted = positive_noise(prior, sample, condition)
    output = _raw_output(folder, sample, _embeddings(condition.positive))
    alpha, sigma, noisy = sample.alpha, sample.sigma, sample.noisy
    expected = alpha * output + sigma * noisy if prediction_type == "v_prediction" else (noisy - alpha * output) / sigma
    torch.testing.assert_close(predicted, expected, rtol=1e-4, atol=1e-4)


def test_the_schedule_is_the_schedulers(prior: DiffusersPrior, folder: Path) -> None:
    scheduler: Any = diffusers.DDPMScheduler.from_pretrained(folder, subfolder="scheduler")
    torch.testing.assert_close(prior.schedule.alphas**2, scheduler.alphas_cumprod)
    torch.testing.assert_close(prior.schedule.alphas**2 + prior.schedule.sigmas**2, torch.ones(1000))


def test_prompts_are_encoded_as_diffusers_does(prior: DiffusersPrior, folder: Path) -> None:
    pipeline: Any = diffusers.StableDiffusionPipeline.__new__(diffusers.StableDiffusionPipeline)
    pipeline.tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer")
    pipeline.text_encoder = transformers.CLIPTextModel.from_pretrained(folder / "text_encoder")
    pipeline.unet = None
    embedding = prior.embed("a red mug", "blurry")
    with torch.no_grad():
        for row, prompt in zip(_embeddings(embedding.views), view_prompts("a red mug"), strict=True):
            positive, negative = diffusers.StableDiffusionPipeline.encode_prompt(
                pipeline, prompt, CPU, 1, True, negative_prompt="blurry"
            )
            torch.testing.assert_close(row, positive[0])
            torch.testing.assert_close(_embeddings(embedding.negative), negative)


def test_the_text_encoder_is_gone_after_embedding(prior: DiffusersPrior, monkeypatch: pytest.MonkeyPatch) -> None:
    load, loaded = transformers.CLIPTextModel.from_pretrained, []

    def watched(*arguments: Any, **options: Any) -> Any:
        model, report = load(*arguments, **options)
        loaded.append(weakref.ref(model))
        return model, report

    monkeypatch.setattr(transformers.CLIPTextModel, "from_pretrained", watched)
    embedding = prior.embed("a mug never seen before")
    gc.collect()
    assert len(loaded) == 1
    assert loaded[0]() is None
    assert not _embeddings(embedding.views).requires_grad


def test_a_prompt_too_long_to_be_read_is_refused(prior: DiffusersPrior) -> None:
    with pytest.raises(ValueError, match=r"has \d+ tokens .* reads 77; shorten"):
        prior.embed("a mug " * 40)


def test_view_words_follow_the_camera(prior: DiffusersPrior) -> None:
    around = Cameras.orbit([0.0, 90.0, -90.0, 180.0, 45.0, 0.0], [0.0, 0.0, 0.0, 0.0, 20.0, 80.0], height=8)
    front, side, back, overhead = torch.eye(4)
    expected = torch.stack([front, side, side, back, (front + side) / 2, overhead])
    torch.testing.assert_close(view_weights(around), expected, rtol=0, atol=1e-5)

    embedding = prior.embed("a mug")
    text = _embeddings(prior.condition(embedding, around, torch.ones(6, 3)).positive)
    assert len(embedding.views) == len(VIEWS)
    views = _embeddings(embedding.views)
    torch.testing.assert_close(text[[0, 1, 3, 5]], views, rtol=1e-4, atol=1e-5)
    assert (views[:, None] - views).abs().amax((2, 3)).add(torch.eye(4)).min() > 1e-2


def test_view_words_can_be_left_out(folder: Path, cameras: Cameras) -> None:
    prior = DiffusersPrior(str(folder), CPU, view_dependent=False)
    embedding = prior.embed("a landscape", "a landscape")
    condition = prior.condition(embedding, cameras, WHITE)
    torch.testing.assert_close(_embeddings(condition.positive), _embeddings(condition.negative))


@pytest.mark.parametrize("size", [24, 64, 160])
def test_images_of_any_size_are_encoded_at_the_models_size(prior: DiffusersPrior, size: int) -> None:
    assert prior.encode(torch.rand(2, 3, size, size)).shape == (2, 4, 8, 8)


def test_encoding_is_the_scaled_mode(prior: DiffusersPrior, folder: Path, generator: torch.Generator) -> None:
    vae: Any = diffusers.AutoencoderKL.from_pretrained(folder, subfolder="vae")
    image = torch.rand(1, 3, 64, 64, generator=generator)
    with torch.no_grad():
        mean = vae.encode(image * 2 - 1).latent_dist.mean
        latent = prior.encode(image)
        torch.testing.assert_close(latent, 0.18215 * mean)
        torch.testing.assert_close(prior.decode(latent), vae.decode(mean).sample / 2 + 0.5)


def test_encoding_has_the_right_gradient(prior: DiffusersPrior, generator: torch.Generator) -> None:
    image = torch.rand(1, 3, 40, 40, generator=generator).requires_grad_()
    weights = torch.randn(1, 4, 8, 8, generator=generator)
    (gradient,) = torch.autograd.grad((prior.encode(image) * weights).sum(), image)
    slope = gradient.norm()
    with torch.no_grad():
        step = 0.1 * gradient / slope
        difference = ((prior.encode(image + step) - prior.encode(image - step)) * weights).sum() / 0.2
    torch.testing.assert_close(slope, difference, rtol=2e-2, atol=0)


def test_only_square_images_are_encoded(prior: DiffusersPrior) -> None:
    with pytest.raises(ValueError, match=r"square images, got \(32, 48\)"):
        prior.encode(torch.rand(1, 3, 32, 48))


def test_half_precision_answers_in_float32(folder: Path, cameras: Cameras, sample: NoisySample) -> None:
    full, half = (DiffusersPrior(str(folder), CPU, precision=name) for name in ("float32", "bfloat16"))
    condition = full.condition(full.embed("a mug"), cameras, WHITE)
    expected = guided_noise(*noise_pair(full, sample, condition), scale=7.5)
    predicted = guided_noise(*noise_pair(half, sample, condition), scale=7.5)
    assert predicted.dtype == torch.float32
    assert 0 < (predicted - expected).abs().mean() < 0.2 * expected.abs().mean()
    assert half.encode(torch.rand(1, 3, 8, 8)).dtype == torch.float32


def test_unknown_precision_is_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match="unknown precision 'fp8': use auto, float32"):
        DiffusersPrior(str(folder), CPU, precision="fp8")


@pytest.mark.parametrize("method", METHODS)
def test_distillation_needs_no_decoder(
    method: str,
    prior: DiffusersPrior,
    geometry: GeometryBuffers,
    image: Tensor,
    generator: torch.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_vae(prior), "decode", None)
    distiller = METHODS[method]().build(prior)
    condition = prior.condition(
        prior.embed("a mug"), Cameras.orbit([0.0, 90.0], [0.0, 0.0], height=8), torch.ones(2, 3)
    )
    for progress in (0.0, 0.5):
        step = distiller(image, geometry, condition, progress=progress, generator=generator)
        (gradient,) = torch.autograd.grad(step.loss, image)
        distiller.update(step)
        assert step.gradient.shape == (2, 4, 8, 8)
        assert bool(torch.isfinite(gradient).all())
        assert gradient.abs().max() > 0
    assert all(
        p.grad is None and not p.requires_grad for p in (*prior.denoiser.parameters(), *_vae(prior).parameters())
    )


def test_a_geometric_baseline_looks_through_the_decoder(
    prior: DiffusersPrior,
    estimator: GeometryEstimator,
    geometry: GeometryBuffers,
    image: Tensor,
    generator: torch.Generator,
) -> None:
    distiller = SSDConfig(control_variates=ControlVariateConfig(["depth", "noise"])).build(prior, estimator)
    condition = prior.condition(
        prior.embed("a mug"), Cameras.orbit([0.0, 90.0], [0.0, 0.0], height=8), torch.ones(2, 3)
    )
    step = distiller(image, geometry, condition, progress=0.0, generator=generator)
    assert bool(torch.isfinite(step.gradient).all())
    assert step.observations[0].terms[0].abs().max() > 0


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("unet", {"in_channels": 9}, "an inpainting, depth or upscaling model"),
        ("unet", {"class_embed_type": "timestep"}, "needs more conditions than a text embedding"),
        ("scheduler", {"prediction_type": "flow_prediction"}, "predicts 'flow_prediction'; known"),
    ],
)
def test_models_of_another_kind_are_refused(
    part: str, values: dict[str, Any], message: str, edited: Callable[..., Path]
) -> None:
    folder = edited(part, **values)
    if part == "unet":
        _resave_unet(folder)
    with pytest.raises(ValueError, match=message):
        DiffusersPrior(str(folder), CPU)


def _resave_unet(folder: Path) -> None:
    config: Any = diffusers.UNet2DConditionModel.load_config(folder / "unet")
    model: Any = diffusers.UNet2DConditionModel.from_config(config)
    model.save_pretrained(folder / "unet")


def _gradient(prior: DiffusersPrior, image: Tensor) -> Tensor:
    image = image.detach().requires_grad_()
    (prior.decode(prior.encode(image)) ** 2).sum().backward()
    assert image.grad is not None
    return image.grad


def test_checkpointing_computes_twice_for_the_same_gradient(
    folder: Path, prior: DiffusersPrior, generator: torch.Generator
) -> None:
    thrifty = DiffusersPrior(str(folder), CPU, gradient_checkpointing=True)
    image, calls = torch.rand(1, 3, 64, 64, generator=generator), {False: 0, True: 0}

    def count(checkpointed: bool) -> Any:
        def hook(*_: Any) -> None:
            calls[checkpointed] += 1

        return hook

    for checkpointed, each in ((False, prior), (True, thrifty)):
        _vae(each).encoder.down_blocks[0].register_forward_pre_hook(count(checkpointed))
    torch.testing.assert_close(_gradient(thrifty, image), _gradient(prior, image))
    assert calls == {False: 1, True: 2}


def test_compiling_changes_no_prediction(
    folder: Path, prior: DiffusersPrior, cameras: Cameras, sample: NoisySample, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []
    compile_in_place = torch.nn.Module.compile

    def traced(module: torch.nn.Module, **options: Any) -> None:
        """Traced as for a GPU, but run as it is: generating code would take a minute."""
        compiled.append(type(module).__name__)
        compile_in_place(module, backend="eager", **options)

    monkeypatch.setattr(torch.nn.Module, "compile", traced)
    fast = DiffusersPrior(str(folder), CPU, compile=True)
    condition = fast.condition(fast.embed("a mug"), cameras, WHITE)
    assert compiled == ["UNet2DConditionModel"]
    predicted = guided_noise(*noise_pair(fast, sample, condition), scale=7.5)
    expected = guided_noise(*noise_pair(prior, sample, condition), scale=7.5)
    torch.testing.assert_close(predicted, expected, rtol=1e-4, atol=1e-4)


def _save_tiny_decoder(folder: Path, **config: Any) -> Path:
    model: Any = diffusers.AutoencoderTiny(
        **{
            "encoder_block_out_channels": (8,) * 4,
            "decoder_block_out_channels": (8,) * 4,
            "num_encoder_blocks": (1, 1, 1, 1),
            "num_decoder_blocks": (1, 1, 1, 1),
            **config,
        }
    )
    model.save_pretrained(folder)
    return folder


def test_a_small_decoder_decodes_instead(folder: Path, tmp_path: Path, generator: torch.Generator) -> None:
    """Its scaling factor is one: it was trained on latents as the denoiser knows them."""
    decoder = _save_tiny_decoder(tmp_path)
    prior = DiffusersPrior(str(folder), CPU, decoder=str(decoder))
    small: Any = diffusers.AutoencoderTiny.from_pretrained(decoder)
    latent = torch.randn(1, 4, 8, 8, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(prior.decode(latent), small.decode(latent).sample / 2 + 0.5)
        image = torch.rand(1, 3, 64, 64, generator=generator)
        torch.testing.assert_close(prior.encode(image), DiffusersPrior(str(folder), CPU).encode(image))
    assert not any(parameter.requires_grad for parameter in _decoder(prior).parameters())


def _decoder(prior: DiffusersPrior) -> Any:
    codec: Any = prior._codec
    return codec._decoder


@pytest.mark.parametrize("config", [{"latent_channels": 16}, {"decoder_block_out_channels": (8,) * 3}])
def test_a_decoder_of_other_latents_is_refused(config: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    if "latent_channels" not in config:
        config = {**config, "num_decoder_blocks": (1, 1, 1)}
    decoder = _save_tiny_decoder(tmp_path, **config)
    with pytest.raises(ValueError, match=r"decodes latents of .* the model's have 4 and are 8 times smaller") as error:
        DiffusersPrior(str(folder), CPU, decoder=str(decoder))
    assert str(decoder) in str(error.value)
