"""Depth models against transformers' own classes with small random weights: preprocessing, sense, gradient."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_world import make_geometry
from tiny_depth_models import save_depth_anything, save_dpt, save_hybrid_dpt, save_zoedepth
from torch import Tensor
from zero_mean import drift, mean_ratio

from steindreamer.distill import GeometryEstimate, GeometryEstimator, NoiseSchedule
from steindreamer.distill.control_variates.baselines import DepthBaseline, NormalBaseline
from steindreamer.distill.control_variates.terms import SteinTerm
from steindreamer.distill.geometry.loading import load_monocular_estimator
from steindreamer.distill.geometry.preprocessing import Preprocessing
from steindreamer.distill.geometry.transformers_depth import NEAREST, TransformersDepthEstimator

transformers = pytest.importorskip("transformers")

MODELS: dict[str, Callable[[Path], Path]] = {
    "dpt": save_dpt,
    "hybrid dpt": save_hybrid_dpt,
    "depth anything": save_depth_anything,
    "metric depth anything": lambda folder: save_depth_anything(folder, metric=True),
    "zoedepth": save_zoedepth,
}
METRIC = ("metric depth anything", "zoedepth")
Loaded = Callable[[str], TransformersDepthEstimator]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save(tmp_path_factory.mktemp("model")) for name, save in MODELS.items()}


@pytest.fixture
def load(folders: dict[str, Path]) -> Loaded:
    def loaded(name: str) -> TransformersDepthEstimator:
        estimator = load_monocular_estimator(str(folders[name]))
        assert isinstance(estimator, TransformersDepthEstimator)
        return estimator

    return loaded


def images(height: int, width: int, count: int = 2, seed: int = 0) -> Tensor:
    """Blobs of a few pixels, so that resizing does not level them."""
    coarse = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (20, 20), (40, 56)])
@pytest.mark.parametrize("name", MODELS)
def test_it_sees_what_transformers_own_processor_prepares(
    name: str, height: int, width: int, folders: dict[str, Path]
) -> None:
    processor = transformers.AutoImageProcessor.from_pretrained(folders[name])
    image = images(height, width)
    expected = processor(images=list(image), do_rescale=False, return_tensors="pt").pixel_values
    preprocessing = Preprocessing.from_json((folders[name] / "preprocessor_config.json").read_bytes())
    torch.testing.assert_close(preprocessing(image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_it_answers_as_transformers_own_pipeline(name: str, folders: dict[str, Path], load: Loaded) -> None:
    """Up to the rounding of images to bytes and the interpolation of the answer."""
    from PIL import Image

    image = (images(64, 64, 1) * 255).round()
    pipeline = transformers.pipeline("depth-estimation", model=str(folders[name]))
    answer = pipeline(Image.fromarray(image[0].permute(1, 2, 0).byte().numpy()))["predicted_depth"]
    with torch.no_grad():
        disparity = load(name)(image / 255, torch.zeros(1)).disparity[0, 0]
    found = 1 / disparity if name in METRIC else disparity
    assert torch.corrcoef(torch.stack([found.flatten(), answer.flatten()]))[0, 1] > 0.95
    assert (found - answer).abs().mean() < 0.1 * answer.std()


@pytest.mark.parametrize("name", MODELS)
def test_at_the_models_own_size_the_answer_is_the_models(name: str, load: Loaded) -> None:
    estimator = load(name)
    image = images(estimator.preprocessing.height, estimator.preprocessing.width)
    predicted = estimator.model(pixel_values=estimator.preprocessing(image)).predicted_depth[:, None]
    disparity = 1 / predicted if name in METRIC else predicted
    expected = estimator.preprocessing.undo(disparity, *image.shape[-2:])
    if name != "zoedepth":  # which enlarges images
        assert torch.equal(expected, disparity)
    torch.testing.assert_close(estimator(image, torch.zeros(2)).disparity, expected)
    assert estimator.predicts_depth == (name in METRIC)


def test_the_user_may_say_what_is_predicted(folders: dict[str, Path], load: Loaded) -> None:
    image = images(32, 32)
    said = load_monocular_estimator(str(folders["dpt"]), "depth")
    torch.testing.assert_close(
        said(image, torch.zeros(2)).disparity, 1 / load("dpt")(image, torch.zeros(2)).disparity.clamp(min=NEAREST)
    )
    with pytest.raises(ValueError, match="auto, disparity, depth; got 'up'"):
        load_monocular_estimator(str(folders["dpt"]), "up")


@pytest.mark.parametrize("name", MODELS)
def test_contract(name: str, load: Loaded) -> None:
    estimator = load(name)
    assert isinstance(estimator, GeometryEstimator) and not estimator.training
    assert not any(parameter.requires_grad for parameter in estimator.parameters())
    image = 0.5 + 2 * torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    first, second = (estimator(image, torch.tensor([0.1, 1.0])) for _ in range(2))
    assert first.disparity.shape == (2, 1, 40, 56) and first.normal.shape == (2, 3, 40, 56)
    assert first.disparity.dtype == torch.float32 and first.disparity.isfinite().all()
    assert torch.equal(first.disparity, second.disparity) and torch.equal(first.normal, second.normal)
    torch.testing.assert_close(first.normal.norm(dim=1), torch.ones(2, 40, 56))
    assert (first.normal[:, 2] < 0).all()


def scalar(estimate: GeometryEstimate) -> Tensor:
    """Some number per image that all outputs enter."""
    weight = torch.linspace(-1, 1, estimate.disparity[0].numel()).to(estimate.disparity).view_as(estimate.disparity[0])
    return (weight * estimate.disparity).mean((1, 2, 3)) + (weight * estimate.normal).mean((1, 2, 3))


@pytest.mark.parametrize("name", MODELS)
def test_gradient_against_finite_differences(name: str, load: Loaded) -> None:
    """Pixels far outside [0, 1] have none; ReLUs switch rarely on so small a step."""
    estimator, noise_level = load(name).double(), torch.tensor([0.3, 0.8]).double()
    image = 0.1 + 0.8 * images(24, 24).double()
    image[:, :, :4] = 1.5
    image.requires_grad_()
    direction = torch.randn(image.shape, generator=torch.Generator().manual_seed(1)).double()
    (gradient,) = torch.autograd.grad(scalar(estimator(image, noise_level)).sum(), image)
    step = 1e-8
    with torch.no_grad():
        ahead, behind = (scalar(estimator(image + s * step * direction, noise_level)) for s in (1, -1))
    slope = (ahead - behind) / (2 * step)
    assert (slope.abs() > 1e-5).all()
    torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), slope, rtol=1e-4, atol=1e-6)
    assert gradient[:, :, :4].abs().max() == 0


@pytest.mark.parametrize("name", MODELS)
def test_every_image_is_treated_on_its_own(name: str, load: Loaded) -> None:
    estimator, noise_level = load(name).double(), torch.tensor([0.0, 0.4, 0.8]).double()
    image = images(24, 24, 3).double().requires_grad_()
    together = estimator(image, noise_level)
    for index in range(3):
        alone = estimator(image[index : index + 1], noise_level[index : index + 1])
        torch.testing.assert_close(together.disparity[index], alone.disparity[0])
        torch.testing.assert_close(together.normal[index], alone.normal[0])
    (gradient,) = torch.autograd.grad(scalar(together)[1], image)
    assert gradient[1].abs().max() > 0 and gradient[0].abs().max() == 0 and gradient[2].abs().max() == 0


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("depth anything", DepthBaseline),
        ("metric depth anything", NormalBaseline),
    ],
)
def test_the_stein_term_has_zero_mean(name: str, kind: Any, load: Loaded) -> None:
    draws = 512
    noise = torch.randn(draws, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    clean = (images(8, 8, 1) * 2 - 1).expand_as(noise)
    sample = NoiseSchedule.scaled_linear().add_noise(clean, noise, torch.full((draws,), 300))
    term = SteinTerm("phi", kind(load(name), lambda latent: (latent + 1) / 2))
    h = term.terms(sample, make_geometry(draws))[0]
    assert mean_ratio(h) < 1.4
    assert abs(drift(h, noise)) < 4
    phi_noise = SteinTerm("phi", term.baseline, "paper").terms(sample, make_geometry(draws))[0]
    assert drift(phi_noise, noise) > 10  # the printed form: the test can tell


def test_two_heads_that_vote_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"chooses between 2 heads by a vote over the whole batch.* Intel/zoedepth-nyu$"
    ):
        load_monocular_estimator(str(save_zoedepth(tmp_path, heads=2)))


@pytest.fixture
def copy(folders: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(folders["dpt"], tmp_path / "copy")


def test_weights_that_matter_may_not_be_missing(copy: Path, load: Loaded) -> None:
    """The first fusion layer's first unit is never called; published files lack it."""
    weights = load_file(copy / "model.safetensors")
    idle = [name for name in weights if "fusion_stage.layers.0.residual_layer1" in name]
    assert idle
    save_file({name: value for name, value in weights.items() if name not in idle}, copy / "model.safetensors")
    image = images(32, 32)
    found = load_monocular_estimator(str(copy))
    assert torch.equal(found(image, torch.zeros(2)).disparity, load("dpt")(image, torch.zeros(2)).disparity)
    assert not any(parameter.requires_grad for parameter in found.parameters())
    save_file({name: value for name, value in weights.items() if "head" not in name}, copy / "model.safetensors")
    with pytest.raises(ValueError, match=r"lacks \d+ of the model's weights, such as head"):
        load_monocular_estimator(str(copy))


def test_damaged_weights_are_told_in_one_line(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged") as error:
        load_monocular_estimator(str(copy))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_processor_type": "GLPNImageProcessor"}, "image processor GLPNImageProcessor is not known"),
        ({"do_resize": False}, "do_resize is false"),
        ({"resample": 0}, "resample is 0; 1, 2, 3 are accepted"),
        ({"size": {"shortest_edge": 384}}, "a height and a width in pixels are accepted"),
    ],
)
def test_preparations_that_are_not_known_are_refused(copy: Path, change: dict[str, Any], message: str) -> None:
    file = copy / "preprocessor_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ValueError, match=f"does not specify how images are preprocessed: .*{message}"):
        load_monocular_estimator(str(copy))


def test_missing_preparations_are_told(copy: Path) -> None:
    (copy / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"preprocessor_config\.json does not specify"):
        load_monocular_estimator(str(copy))


def test_old_files_say_little() -> None:
    old = Preprocessing.from_json(json.dumps({"feature_extractor_type": "DPTFeatureExtractor", "size": 384}))
    assert (old.height, old.width, old.multiple, old.mode, old.mean) == (384, 384, 1, "bicubic", (0.5, 0.5, 0.5))


@pytest.mark.parametrize("architecture", ["DPTForSemanticSegmentation", "ViTModel"])
def test_other_models_are_refused(copy: Path, architecture: str) -> None:
    config = copy / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": [architecture]}))
    with pytest.raises(ValueError, match=f"holds {architecture}; known depth models: DPTForDepthEstimation"):
        load_monocular_estimator(str(copy))
