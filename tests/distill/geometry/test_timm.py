"""The estimator on timm backbones: contract, gradient, independence, zero-mean Stein term, and its files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small_world import make_geometry
from torch import Tensor
from zero_mean import drift, mean_ratio

from steindreamer.distill import GeometryEstimate, GeometryEstimator, NoiseSchedule
from steindreamer.distill.control_variates.baselines import DepthBaseline, NormalBaseline
from steindreamer.distill.control_variates.terms import SteinTerm
from steindreamer.distill.geometry.files import CONFIG_FILE, WEIGHTS_FILE
from steindreamer.distill.geometry.loading import load_monocular_estimator
from steindreamer.distill.geometry.timm_estimator import (
    TimmEstimatorConfig,
    TimmGeometryEstimator,
    load_timm_estimator,
    save_timm_estimator,
)
from steindreamer.distill.third_party.torchvision_compat import prepare_torchvision

prepare_torchvision()
pytest.importorskip("timm")

SMALL = TimmEstimatorConfig(
    backbone="mobilenetv3_small_050", decoder_channels=16, head_channels=8, embedding_channels=8
)


def small_estimator(config: TimmEstimatorConfig = SMALL) -> TimmGeometryEstimator:
    """With running statistics of some images: those of a new BatchNorm are everybody's."""
    torch.manual_seed(0)
    estimator = TimmGeometryEstimator(config)
    for module in estimator.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        estimator(torch.rand(4, 3, 96, 96), torch.rand(4))
    return estimator.requires_grad_(False).eval()


@pytest.fixture(scope="module")
def estimator() -> TimmGeometryEstimator:
    return small_estimator()


@pytest.mark.parametrize("size", [(64, 64), (40, 56), (33, 70), (1, 9)])
def test_contract_at_any_size(estimator: TimmGeometryEstimator, size: tuple[int, int]) -> None:
    assert isinstance(estimator, GeometryEstimator)
    image = 0.5 + 2 * torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    first, second = (estimator(image, torch.tensor([0.0, 1.0])) for _ in range(2))
    assert first.disparity.shape == (2, 1, *size) and first.normal.shape == (2, 3, *size)
    assert torch.equal(first.disparity, second.disparity) and first.disparity.isfinite().all()
    torch.testing.assert_close(first.normal.norm(dim=1), torch.ones(2, *size))
    assert (first.normal[:, 2] < 0).all()


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_100", "repvit_m0_9"])
def test_backbones_with_and_without_a_first_half(backbone: str) -> None:
    """Their finest features are at 1/2 and 1/4 of the size; the small one is below 8 MB in half precision."""
    estimator = TimmGeometryEstimator(TimmEstimatorConfig(backbone=backbone)).eval()
    assert estimator(torch.rand(1, 3, 64, 32), torch.rand(1)).disparity.shape == (1, 1, 64, 32)
    megabytes = sum(value.numel() for value in estimator.state_dict().values()) * 2 / 1e6
    assert (megabytes < 8) == (backbone == "mobilenetv3_small_100")


def scalar(estimate: GeometryEstimate) -> Tensor:
    """Some number per image that all outputs enter."""
    weight = torch.linspace(-1, 1, estimate.disparity[0].numel()).to(estimate.disparity).view_as(estimate.disparity[0])
    return (weight * estimate.disparity).mean((1, 2, 3)) + (weight * estimate.normal).mean((1, 2, 3))


def test_gradient_against_finite_differences(generator: torch.Generator) -> None:
    estimator, noise_level = small_estimator().double(), torch.tensor([0.3, 0.8]).double()
    image = torch.randn(2, 3, 48, 40, generator=generator).double().requires_grad_()
    direction = torch.randn(2, 3, 48, 40, generator=generator).double()
    (gradient,) = torch.autograd.grad(scalar(estimator(image, noise_level)).sum(), image)
    step = 1e-7
    with torch.no_grad():
        ahead, behind = (scalar(estimator(image + s * step * direction, noise_level)) for s in (1, -1))
    slope = (ahead - behind) / (2 * step)
    assert (slope.abs() > 1e-4).all()
    torch.testing.assert_close((gradient * direction).sum((1, 2, 3)), slope, rtol=1e-4, atol=1e-7)


def test_every_image_is_treated_on_its_own(generator: torch.Generator) -> None:
    estimator, noise_level = small_estimator().double(), torch.tensor([0.0, 0.4, 0.8]).double()
    image = torch.rand(3, 3, 32, 32, generator=generator).double().requires_grad_()
    together = estimator(image, noise_level)
    for index in range(3):
        alone = estimator(image[index : index + 1], noise_level[index : index + 1])
        torch.testing.assert_close(together.disparity[index], alone.disparity[0])
        torch.testing.assert_close(together.normal[index], alone.normal[0])
    (gradient,) = torch.autograd.grad(scalar(together)[1], image)
    assert gradient[1].abs().max() > 0 and gradient[0].abs().max() == 0 and gradient[2].abs().max() == 0


@pytest.mark.parametrize("conditioned", [True, False])
def test_the_noise_level_counts_only_where_it_should(conditioned: bool) -> None:
    estimator = small_estimator(TimmEstimatorConfig(**{**vars(SMALL), "noise_conditioned": conditioned}))
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    low, high = (estimator(image, torch.tensor([level])).disparity for level in (0.1, 0.9))
    assert torch.equal(low, high) != conditioned


@pytest.mark.parametrize("kind", [DepthBaseline, NormalBaseline])
def test_the_stein_term_has_zero_mean(kind: Any, estimator: TimmGeometryEstimator) -> None:
    draws = 512
    noise = torch.randn(draws, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    clean = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(5)).expand_as(noise) * 2 - 1
    sample = NoiseSchedule.scaled_linear().add_noise(clean, noise, torch.full((draws,), 300))
    term = SteinTerm("phi", kind(estimator, lambda latent: (latent + 1) / 2))
    h = term.terms(sample, make_geometry(draws))[0]
    assert mean_ratio(h) < 1.4
    assert abs(drift(h, noise)) < 4
    printed = SteinTerm("phi", term.baseline, "paper").terms(sample, make_geometry(draws))[0]
    assert drift(printed, noise) > 10  # the test can tell


def test_save_and_load_keep_half_precision_and_running_statistics(tmp_path: Path) -> None:
    estimator = small_estimator()
    save_timm_estimator(tmp_path, SMALL, estimator.state_dict())
    loaded = load_monocular_estimator(str(tmp_path))
    assert isinstance(loaded, TimmGeometryEstimator) and loaded.config == SMALL and not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    saved = estimator.state_dict()
    assert loaded.state_dict().keys() == saved.keys()
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, saved[name] if "running_" in name or "num_" in name else saved[name].half().float())


def test_a_second_round_changes_nothing(tmp_path: Path) -> None:
    save_timm_estimator(tmp_path / "first", SMALL, small_estimator().state_dict())
    first = load_timm_estimator(tmp_path / "first")
    save_timm_estimator(tmp_path / "second", first.config, first.state_dict())
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    second = load_timm_estimator(tmp_path / "second")
    assert torch.equal(first(image, torch.zeros(1)).disparity, second(image, torch.zeros(1)).disparity)


def test_damaged_and_foreign_files_are_told(tmp_path: Path) -> None:
    save_timm_estimator(tmp_path, SMALL, small_estimator().state_dict())
    config, weights = tmp_path / CONFIG_FILE, tmp_path / WEIGHTS_FILE
    text, content = config.read_text(), weights.read_bytes()
    config.write_text(text.replace("small_050", "small_100"))
    with pytest.raises(ValueError, match="damaged, or is not a geometry estimator"):
        load_timm_estimator(tmp_path)
    config.write_text(text.replace("head_channels", "tail_channels"))
    with pytest.raises(ValueError, match="keys backbone, decoder_channels"):
        load_timm_estimator(tmp_path)
    config.write_text(text)
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged, or is not a geometry estimator"):
        load_timm_estimator(tmp_path)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("mobilenetv3_smal_050", "has no backbone 'mobilenetv3_smal_050' .did you mean 'mobilenetv3_small_050'"),
        ("hf-hub:someone/model", "has no backbone 'hf-hub:someone/model'"),
        ("local-dir:/tmp", "has no backbone 'local-dir:/tmp'"),
        ("vit_tiny_patch16_224", "has no feature maps at any size"),
        ("swin_s3_tiny_224", "(no feature maps at any size|channels first)"),
    ],
)
def test_backbones_that_cannot_serve_are_refused(backbone: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimmGeometryEstimator(TimmEstimatorConfig(backbone=backbone))


def test_channels_must_fit_the_groups() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        TimmEstimatorConfig(decoder_channels=20)
