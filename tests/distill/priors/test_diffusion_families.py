"""Every family against diffusers' own pipeline, step for step, on models of the real classes with random weights."""

from __future__ import annotations

import importlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from predicted_noise import noise_pair, positive_noise
from small_world import make_geometry
from tiny_diffusion_models import IMAGE_SIZE, PIPELINES, camera_conditioned_of, edit_json, save_tiny_model
from torch import Tensor

from steindreamer.distill import METHODS, NoisySample, Prior
from steindreamer.distill.noise.parameterization import noise_from_output
from steindreamer.distill.priors.camera_features import camera_features
from steindreamer.distill.priors.diffusion import FAMILIES, DiffusersPrior, FamilyOptions, register_family
from steindreamer.distill.priors.diffusion.families import StableDiffusion
from steindreamer.distill.priors.diffusion.families.camera_conditioned import named_kinds
from steindreamer.distill.priors.diffusion.families.flux import pack, positions, unpack
from steindreamer.distill.priors.diffusion.model_sources import find_model
from steindreamer.distill.priors.guidance import guided_noise
from steindreamer.representations import Cameras

diffusers: Any = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

# diffusers' samplers hand torch tensors to numpy in a way that numpy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CPU = torch.device("cpu")
PROMPT, NEGATIVE, SCALE, STEPS = "a red mug", "blurry", 3.0, 3


CAMERAS = Cameras.orbit([0.0], [0.0], height=8)
ON_PIXELS = ("IFPipeline", "CameraConditionedPipeline")


@dataclass
class Case:
    """How diffusers is asked for guided images of a family, and the settings that the adapter needs for it."""

    call: dict[str, Any] = field(default_factory=lambda: {"guidance_scale": SCALE})
    options: FamilyOptions = field(default_factory=FamilyOptions)
    image_size: int = IMAGE_SIZE


CASES = {
    "StableDiffusionPipeline": Case(),
    "StableDiffusionXLPipeline": Case(),
    "StableDiffusion3Pipeline": Case(),
    "FluxPipeline": Case(
        # guidance_scale is an input of the model; only the other one needs a second row.
        {"guidance_scale": 2.5, "true_cfg_scale": SCALE},
        FamilyOptions(embedded_guidance=2.5),
    ),
    "PixArtAlphaPipeline": Case({"guidance_scale": SCALE, "use_resolution_binning": False, "clean_caption": False}),
    "PixArtSigmaPipeline": Case({"guidance_scale": SCALE, "use_resolution_binning": False, "clean_caption": False}),
    "IFPipeline": Case({"guidance_scale": SCALE, "clean_caption": False}, image_size=16),
    "CameraConditionedPipeline": Case(
        {"guidance_scale": SCALE, "camera": camera_features(CAMERAS, torch.ones(1, 3))}, image_size=16
    ),
}


@dataclass(frozen=True)
class Step:
    """What a pipeline hands its sampler."""

    output: Tensor
    """Guided."""
    timestep: Tensor
    noisy: Tensor


def _steps(pipeline: Any, negative: str | None, case: Case) -> list[Step]:
    """A few steps of diffusers' own sampling, overheard at the sampler."""
    steps: list[Step] = []
    sample = pipeline.scheduler.step

    def overheard(output: Tensor, timestep: Any, noisy: Tensor, *rest: Any, **options: Any) -> Any:
        steps.append(Step(output.clone(), torch.as_tensor(timestep), noisy.clone()))
        return sample(output, timestep, noisy, *rest, **options)

    pipeline.scheduler.step = overheard
    pipeline.set_progress_bar_config(disable=True)
    pipeline(
        PROMPT,
        negative_prompt=negative,
        num_inference_steps=STEPS,
        height=case.image_size,
        width=case.image_size,
        generator=torch.Generator().manual_seed(0),
        output_type="pt" if type(pipeline).__name__ in ON_PIXELS else "latent",
        **case.call,
    )
    return steps


def _as_image(tokens: Tensor) -> Tensor:
    """FLUX.1 samples packed latents; unpacked by its own pipeline."""
    return diffusers.FluxPipeline._unpack_latents(tokens, IMAGE_SIZE, IMAGE_SIZE, 8) if tokens.ndim == 3 else tokens


def _sample(prior: DiffusersPrior, step: Step) -> NoisySample:
    """The step as a sample of the prior's: only what is noisy, and how much, can matter."""
    noisy = _as_image(step.noisy)
    if prior._prediction_type == "flow":
        sigma = (step.timestep / 1000).reshape(1, 1, 1, 1).float()
        return NoisySample(torch.zeros_like(noisy), noisy / sigma, torch.tensor([0]), 1 - sigma, sigma)
    timestep = step.timestep.reshape(1).long()
    _, sigma = prior.schedule.at(timestep)
    return prior.schedule.add_noise(torch.zeros_like(noisy), noisy / sigma, timestep)


def _predicted(prior: DiffusersPrior, sample: NoisySample, negative: str) -> tuple[Tensor, Tensor]:
    condition = prior.condition(prior.embed(PROMPT, negative), CAMERAS, torch.ones(1, 3))
    return noise_pair(prior, sample, condition)


def _prior(folder: Path, name: str, **options: Any) -> DiffusersPrior:
    case = CASES[name]
    return DiffusersPrior(
        str(folder), CPU, view_dependent=False, image_size=case.image_size, options=case.options, **options
    )


def _check_steps(folder: Path, name: str, negative: str | None, **absent: None) -> None:
    pipeline: Any = FAMILIES[name].pipeline_class(name).from_pretrained(folder, **absent)
    prior = _prior(folder, name)
    steps = _steps(pipeline, negative, CASES[name])
    assert len(steps) >= STEPS - 1
    for step in steps:
        sample = _sample(prior, step)
        predicted = _predicted(prior, sample, negative or "")
        output = _as_image(step.output)[:, : sample.noisy.shape[1]]
        expected = noise_from_output(output, prior._prediction_type, sample)
        torch.testing.assert_close(guided_noise(*predicted, scale=SCALE), expected, rtol=1e-3, atol=1e-4)
        told_apart = (predicted[0] - predicted[1]).abs().max()
        assert told_apart > 1e-3 or sample.alpha == 0, "the prompt must matter, unless there is nothing but noise"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_tiny_model(tmp_path_factory.mktemp(name), name) for name in PIPELINES}


def test_every_family_is_tested() -> None:
    assert set(FAMILIES) == set(PIPELINES) == set(CASES)


@pytest.mark.parametrize("name", FAMILIES)
def test_guided_predictions_are_those_of_diffusers(name: str, folders: dict[str, Path]) -> None:
    _check_steps(folders[name], name, NEGATIVE)


@pytest.mark.parametrize("zeros", [True, False])
def test_no_negative_prompt_means_to_xl_what_it_means_to_diffusers(zeros: bool, tmp_path: Path) -> None:
    name = "StableDiffusionXLPipeline"
    _check_steps(save_tiny_model(tmp_path, name, force_zeros_for_empty_prompt=zeros), name, None)


def test_stable_diffusion_3_does_without_its_t5(tmp_path: Path) -> None:
    name = "StableDiffusion3Pipeline"
    _check_steps(save_tiny_model(tmp_path, name, with_t5=False), name, NEGATIVE, text_encoder_3=None, tokenizer_3=None)


def test_flux_without_the_guidance_input_reads_half_as_much(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "FluxPipeline", guidance_embeds=False)
    prior = _prior(folder, "FluxPipeline")
    assert prior.embed(PROMPT).views.tensors["encoder_hidden_states"].shape[1] == 256
    with pytest.raises(ValueError, match=r"has 30\d tokens .* reads 256"):
        prior.embed("mug " * 75)


def test_v_prediction_of_diffusers(tmp_path: Path) -> None:
    name = "StableDiffusionPipeline"
    _check_steps(save_tiny_model(tmp_path, name, prediction_type="v_prediction"), name, NEGATIVE)


@pytest.mark.parametrize("name", FAMILIES)
def test_images_are_encoded_as_diffusers_decodes(
    name: str, folders: dict[str, Path], generator: torch.Generator
) -> None:
    prior, size = _prior(folders[name], name), CASES[name].image_size
    image = torch.rand(1, 3, size, size, generator=generator)
    with torch.no_grad():
        encoded = prior.encode(image)
        if name in ON_PIXELS:
            torch.testing.assert_close(encoded, image * 2 - 1)
            torch.testing.assert_close(prior.decode(encoded), image)
            return
        vae: Any = diffusers.AutoencoderKL.from_pretrained(folders[name], subfolder="vae")
        mean = vae.encode(image * 2 - 1).latent_dist.mean
        # As the pipelines undo it before decoding.
        torch.testing.assert_close(encoded / vae.config.scaling_factor + (vae.config.shift_factor or 0), mean)
        torch.testing.assert_close(prior.decode(encoded), vae.decode(mean).sample / 2 + 0.5, rtol=1e-4, atol=1e-5)
    if name in ("StableDiffusion3Pipeline", "FluxPipeline"):
        assert vae.config.shift_factor


@pytest.mark.parametrize("name", FAMILIES)
def test_distillation_reaches_the_image(name: str, folders: dict[str, Path], generator: torch.Generator) -> None:
    prior = DiffusersPrior(str(folders[name]), CPU, image_size=CASES[name].image_size)
    assert isinstance(prior, Prior)
    image = torch.rand(2, 3, 24, 24, generator=generator).requires_grad_()
    condition = prior.condition(
        prior.embed("a mug"), Cameras.orbit([0.0, 50.0], [0.0, 0.0], height=8), torch.ones(2, 3)
    )
    step = METHODS["ssd"]().build(prior)(image, make_geometry(2), condition, progress=0.0, generator=generator)
    (gradient,) = torch.autograd.grad(step.loss, image)
    assert bool(torch.isfinite(gradient).all()) and gradient.abs().max() > 0


@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_without_an_index_is_recognized_by_its_parts(
    name: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    for part in folders[name].iterdir():
        if part.is_dir():
            (tmp_path / part.name).symlink_to(part, target_is_directory=True)
    if name.startswith("PixArt"):  # alpha and Sigma differ in nothing else that is written down
        with pytest.raises(
            ValueError, match="may be those of PixArtAlphaPipeline or PixArtSigmaPipeline; specify which"
        ):
            find_model(str(tmp_path))
        (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": name}))
        _prior(tmp_path, name)
    assert find_model(str(tmp_path)).pipeline == name


@pytest.mark.parametrize("name", FAMILIES)
def test_half_precision_is_close(name: str, folders: dict[str, Path], generator: torch.Generator) -> None:
    full, half = (_prior(folders[name], name, precision=precision) for precision in ("float32", "bfloat16"))
    clean = full.encode(torch.rand(1, 3, 16, 16, generator=generator)).detach()
    sample = full.schedule.add_noise(clean, torch.randn(clean.shape, generator=generator), torch.tensor([500]))
    expected, predicted = (guided_noise(*_predicted(prior, sample, NEGATIVE), scale=SCALE) for prior in (full, half))
    assert predicted.dtype == torch.float32
    assert 0 < (predicted - expected).abs().mean() < 0.1 * expected.abs().mean()


def test_masked_tokens_do_not_matter(folders: dict[str, Path], generator: torch.Generator) -> None:
    """PixArt's padding: with the mask the rows behind the text may hold anything."""
    prior = _prior(folders["PixArtSigmaPipeline"], "PixArtSigmaPipeline")
    condition = prior.condition(prior.embed(PROMPT), Cameras.orbit([0.0], [0.0], height=8), torch.ones(1, 3))
    clean = torch.randn(1, 4, 8, 8, generator=generator)
    sample = prior.schedule.add_noise(clean, torch.randn(clean.shape, generator=generator), torch.tensor([500]))
    expected = positive_noise(prior, sample, condition)
    rows, mask = (condition.positive.tensors[f"encoder_{name}"] for name in ("hidden_states", "attention_mask"))
    assert mask.dtype == torch.bool and 0 < mask.sum() < mask.numel()
    rows[~mask] += 10
    torch.testing.assert_close(positive_noise(prior, sample, condition), expected)
    rows[mask] += 10
    assert (positive_noise(prior, sample, condition) - expected).abs().max() > 1e-3


def test_packing_is_diffusers(generator: torch.Generator) -> None:
    latent = torch.randn(2, 16, 6, 8, generator=generator)
    packed = diffusers.FluxPipeline._pack_latents(latent, 2, 16, 6, 8)
    torch.testing.assert_close(pack(latent), packed, rtol=0, atol=0)
    torch.testing.assert_close(unpack(packed, 3, 4), latent, rtol=0, atol=0)
    expected = diffusers.FluxPipeline._prepare_latent_image_ids(2, 3, 4, CPU, torch.float32)
    torch.testing.assert_close(positions(3, 4), expected, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["StableDiffusion3Pipeline", "FluxPipeline"])
def test_noise_levels_of_flows(name: str, folders: dict[str, Path]) -> None:
    even = _prior(folders[name], name).schedule
    torch.testing.assert_close(even.sigmas, torch.arange(1, 1001) / 1001)
    shifted = DiffusersPrior(
        str(folders[name]), CPU, image_size=IMAGE_SIZE, options=FamilyOptions(shifted_noise=True)
    ).schedule
    torch.testing.assert_close(shifted.alphas + shifted.sigmas, torch.ones(1000))
    scheduler: Any = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(folders[name], subfolder="scheduler")
    options: dict[str, Any] = {}
    if name == "FluxPipeline":
        flux = importlib.import_module("diffusers.pipelines.flux.pipeline_flux")
        options = {"mu": flux.calculate_shift((IMAGE_SIZE // 16) ** 2)}
    scheduler.set_timesteps(sigmas=even.sigmas.flip(0).tolist(), **options)
    torch.testing.assert_close(shifted.sigmas, scheduler.sigmas[:-1].flip(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "part", "values", "message"),
    [
        ("StableDiffusionXLPipeline", "unet", {"addition_embed_type": "text"}, "takes 'text'"),
        ("StableDiffusionXLPipeline", "vae", {"latents_mean": [0.0] * 4}, "channel by channel"),
        (
            "CameraConditionedPipeline",
            "unet",
            {"in_channels": 12},
            "maps 12 channels to 48; images in patches of 4",
        ),
        ("IFPipeline", "unet", {"class_embed_type": "timestep"}, "is an upscaling model"),
        ("FluxPipeline", "transformer", {"in_channels": 96}, "a filling, depth or edge model"),
        ("PixArtSigmaPipeline", "transformer", {"out_channels": 12}, "maps 4 channels to 12"),
    ],
)
def test_kindred_models_are_refused(name: str, part: str, values: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, name)
    edit_json(folder / part / "config.json", **values)
    with pytest.raises(ValueError, match=message) as error:
        _prior(folder, name)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "FluxPipeline", *ON_PIXELS])
def test_images_that_the_denoiser_cannot_halve_are_refused(name: str, folders: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match=r"image_size is \d+; .* takes multiples of (2|8|16)$"):
        DiffusersPrior(str(folders[name]), CPU, image_size=41)


@pytest.fixture(scope="module")
def camera_conditioned(folders: dict[str, Path]) -> DiffusersPrior:
    return DiffusersPrior(str(folders["CameraConditionedPipeline"]), CPU, cache_text=False)


def test_a_model_that_is_told_the_camera_needs_no_words_about_it(
    camera_conditioned: DiffusersPrior, folders: dict[str, Path], generator: torch.Generator
) -> None:
    assert camera_conditioned.image_size == 16
    embedding = camera_conditioned.embed(PROMPT)
    assert len(embedding.views) == 1
    clean = torch.randn(4, 3, 16, 16, generator=generator)
    noise = torch.randn(1, 3, 16, 16, generator=generator).expand(4, -1, -1, -1)
    sample = camera_conditioned.schedule.add_noise(clean[:1].expand(4, -1, -1, -1), noise, torch.full((4,), 800))
    cameras = Cameras.orbit([0.0, 90.0, 0.0, 0.0], [0.0, 0.0, 50.0, 0.0], height=8)
    background = torch.tensor([[1.0, 1, 1], [1, 1, 1], [1, 1, 1], [1, 0, 1]])
    condition = camera_conditioned.condition(embedding, cameras, background)
    expected = noise_pair(camera_conditioned, sample, condition)
    for prediction in expected:
        assert min(float((prediction[0] - other).abs().max()) for other in prediction[1:]) > 1e-3
    camera_conditioned.micro_batch = 3
    torch.testing.assert_close(noise_pair(camera_conditioned, sample, condition), expected)
    camera_conditioned.micro_batch = 0
    with pytest.raises(ValueError, match="is camera-conditioned and has no view prompts; set perp_neg=false"):
        DiffusersPrior(str(folders["CameraConditionedPipeline"]), CPU, perp_neg=True)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (
            "a red unicorn and a mug",
            "not trained on: 'unicorn', 'and'. It knows mug, rocket, sailboat, .*and their colors",
        ),
        ("a red", "names no object; name one. It knows mug"),
        ("a ship, a cup", "names mug and sailboat; name one"),
    ],
)
def test_what_a_small_model_was_not_trained_on_is_refused(
    camera_conditioned: DiffusersPrior, prompt: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        camera_conditioned.embed(prompt)


def test_words_that_overlap_name_the_longest() -> None:
    kinds = {"rocket": ["rocket", "rocket ship"], "sailboat": ["ship"]}
    assert named_kinds("A red ROCKET-ship!", kinds) == ["rocket"]
    assert named_kinds("a rocketship", kinds) == []


def test_negative_words_must_be_known_too(camera_conditioned: DiffusersPrior) -> None:
    with pytest.raises(ValueError, match="not trained on: 'ugly'"):
        camera_conditioned.embed("a mug", "ugly")
    assert len(camera_conditioned.embed("a mug", "blurry").negative) == 1


def test_a_camera_described_otherwise_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "CameraConditionedPipeline")
    edit_json(folder / "model_index.json", camera_features=["roll"])
    with pytest.raises(ValueError, match=r"expects the camera as \['roll'\]"):
        DiffusersPrior(str(folder), CPU)


def test_a_model_with_modality_features_knows_these_modalities(tmp_path: Path, generator: torch.Generator) -> None:
    folder = tmp_path / "model"
    camera_conditioned_of(("color", "normal")).save_pretrained(folder)
    prior = DiffusersPrior(str(folder), CPU, cache_text=False)
    assert prior.modalities == ("color", "normal")
    embedding, white = prior.embed(PROMPT), torch.ones(1, 3)
    clean, noise = torch.randn(2, 1, 3, 16, 16, generator=generator)
    sample = prior.schedule.add_noise(clean, noise, torch.tensor([800]))
    predicted = {}
    for modality in prior.modalities:
        condition = prior.condition(embedding, CAMERAS, white, modality)
        labels = condition.camera.tensors["class_labels"]
        assert labels[0, -2:].tolist() == [float(modality == "color"), float(modality == "normal")]
        assert (labels[0, -5:-2] == (1 if modality == "color" else -1)).all(), "normal maps are over black"
        predicted[modality] = noise_pair(prior, sample, condition)[0]
    assert float((predicted["color"] - predicted["normal"]).abs().max()) > 1e-3
    with pytest.raises(ValueError, match="does not support depth images; it supports color, normal"):
        prior.condition(embedding, CAMERAS, white, "depth")


class NormalDiffusion(StableDiffusion):
    """Stable Diffusion fine-tuned to normal maps, as a plugin would add it."""

    modalities = ("normal",)

    @staticmethod
    def pipeline_class(name: str) -> Any:
        return StableDiffusion.pipeline_class("StableDiffusionPipeline")


def test_a_model_of_another_modality_is_a_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny_model(tmp_path, "StableDiffusionPipeline")
    edit_json(folder / "model_index.json", _class_name="NormalPipeline")
    monkeypatch.setitem(FAMILIES, "NormalPipeline", NormalDiffusion)
    prior = DiffusersPrior(str(folder), CPU, cache_text=False)
    assert prior.modalities == ("normal",)
    embedding = prior.embed(PROMPT)
    assert not prior.condition(embedding, CAMERAS, torch.ones(1, 3), "normal").camera.tensors
    with pytest.raises(ValueError, match="does not support color images; it supports normal"):
        prior.condition(embedding, CAMERAS, torch.ones(1, 3))


@pytest.mark.parametrize("given", [(), ("normals",)])
def test_a_family_of_unknown_modalities_is_refused(given: tuple[str, ...]) -> None:
    kind = type("Strange", (StableDiffusion,), {"modalities": given})
    with pytest.raises(ValueError, match="a tuple of color, albedo, normal, depth is accepted"):
        register_family("StrangePipeline")(kind)
