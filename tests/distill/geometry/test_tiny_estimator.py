"""The small geometry estimator: the contract of `GeometryEstimator`, its files, and what the shipped weights can do."""

from __future__ import annotations

import importlib.resources
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from steindreamer import assets
from steindreamer.distill.geometry.base import GeometryEstimate, GeometryEstimator
from steindreamer.distill.geometry.files import CONFIG_FILE, WEIGHTS_FILE
from steindreamer.distill.geometry.tiny_estimator import (
    TinyEstimatorConfig,
    TinyGeometryEstimator,
    averaged,
    load_tiny_estimator,
    save_tiny_estimator,
)
from steindreamer.training.estimator.dataset import Views, render_views
from steindreamer.training.estimator.evaluate import HELD_OUT, Score, evaluate, noisy_batches

SHIPPED = importlib.resources.files(assets).joinpath("tiny_geometry_estimator")
# Below what was measured on these 16 objects (see the model card), by more than a change of machine can cost.
LEAST_CLEAN = Score(image=0.9, object=0.74, degrees=24.5, error=0.11)
LEAST_NOISY = Score(image=0.86, object=0.67, degrees=26.0, error=0.16)
CHECKERBOARD = 0.002
"""Of the disparity's standard deviation."""
SMALL = TinyEstimatorConfig(channels=(8, 16, 8), head_channels=8, embedding_channels=8, core_size=16)
"""Images of 24 to 39 pixels are averaged down by 2."""


def small_estimator(seed: int = 0) -> TinyGeometryEstimator:
    """In evaluation mode, with random weights."""
    torch.manual_seed(seed)
    return TinyGeometryEstimator(SMALL).eval()


@pytest.fixture(scope="module")
def shipped() -> TinyGeometryEstimator:
    return load_tiny_estimator(SHIPPED)


@pytest.fixture(scope="module")
def held_out() -> Views:
    """16 objects that the training has not seen, from 4 sides each."""
    return render_views(HELD_OUT, 0, 16)


@pytest.mark.parametrize("size", [(64, 64), (128, 128), (40, 56), (33, 70), (1, 9)])
def test_contract_at_any_size(shipped: TinyGeometryEstimator, size: tuple[int, int]) -> None:
    assert isinstance(shipped, GeometryEstimator)
    generator = torch.Generator().manual_seed(0)
    image = 0.5 + 2 * torch.randn(3, 3, *size, generator=generator)
    estimate = shipped(image, torch.tensor([0.0, 0.5, 1.0]))
    assert estimate.disparity.shape == (3, 1, *size) and estimate.normal.shape == (3, 3, *size)
    assert estimate.disparity.isfinite().all() and estimate.disparity.dtype == torch.float32
    torch.testing.assert_close(estimate.normal.norm(dim=1), torch.ones(3, *size))
    assert (estimate.normal[:, 2] < 0).all()


@pytest.mark.parametrize("size", [(16, 8), (21, 27)])
def test_a_mirrored_image_has_the_mirrored_geometry(size: tuple[int, int], generator: torch.Generator) -> None:
    estimator, noise_level = small_estimator().double(), torch.tensor([0.1, 0.7]).double()
    image = torch.rand(2, 3, *size, generator=generator).double()
    estimate, mirrored = estimator(image, noise_level), estimator(image.flip(3), noise_level)
    torch.testing.assert_close(mirrored.disparity, estimate.disparity.flip(3))
    sign = torch.tensor([-1.0, 1.0, 1.0]).double()[:, None, None]
    torch.testing.assert_close(mirrored.normal, sign * estimate.normal.flip(3))


def test_padding_repeats_the_border() -> None:
    # In training mode: padding at the right is at the left of the mirror image.
    estimator, noise_level = small_estimator().double().train(), torch.tensor([0.3]).double()
    image = torch.rand(1, 3, 21, 27, generator=torch.Generator().manual_seed(0)).double()
    whole = estimator(F.pad(image, (0, 5, 0, 3), mode="replicate"), noise_level)
    part = estimator(image, noise_level)
    torch.testing.assert_close(part.disparity, whole.disparity[..., :21, :27])
    torch.testing.assert_close(part.normal, whole.normal[..., :21, :27])


@pytest.mark.parametrize("sigma", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("factor", [1, 2, 4])
def test_an_averaged_noisy_image_is_a_noisy_image_of_its_level(
    generator: torch.Generator, sigma: float, factor: int
) -> None:
    """Of a constant image: alpha and sigma keep their sum of squares, and their ratio grows by the factor."""
    alpha, clean = (1 - sigma**2) ** 0.5, 0.7
    noisy = alpha * clean + sigma * torch.randn(2, 3, 256, 256, generator=generator)
    core, level = averaged(noisy, torch.full((2,), sigma), factor)
    assert core.shape == (2, 3, 256 // factor, 256 // factor)
    expected = sigma / (sigma**2 + (factor * alpha) ** 2) ** 0.5
    torch.testing.assert_close(level, torch.full((2,), expected))
    assert core.std().item() == pytest.approx(expected, rel=0.02, abs=1e-5)
    assert core.mean().item() == pytest.approx(clean * (1 - expected**2) ** 0.5, abs=0.02)


@pytest.mark.parametrize(("size", "factor"), [(16, 1), (23, 1), (24, 2), (32, 2), (48, 3)])
def test_the_u_net_sees_at_most_its_size_and_a_half(size: int, factor: int) -> None:
    """Of a clean image it sees the averages of blocks."""
    estimator, seen = small_estimator(), []
    estimator.stem.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    estimator(image, torch.zeros(1))
    whole = size // factor
    assert seen[0].shape[0] == 2  # the image and its mirror image
    assert seen[0].shape[-1] == -(-whole // estimator.stride) * estimator.stride // 2
    core = F.pixel_shuffle(seen[0][:1], 2)[..., :whole, :whole]
    torch.testing.assert_close(core, F.avg_pool2d(2 * image - 1, factor)[..., :whole, :whole])


def scalar(estimate: GeometryEstimate) -> Tensor:
    """Some number per image that all outputs enter."""
    weight = (
        torch.linspace(-1, 1, estimate.disparity[0].numel())
        .to(estimate.disparity)
        .reshape(1, *estimate.disparity[0].shape)
    )
    return (weight * (estimate.disparity + estimate.normal.sin().sum(1, keepdim=True))).flatten(1).sum(1)


def test_gradient_agrees_with_finite_differences(generator: torch.Generator) -> None:
    estimator, noise_level = small_estimator().double(), torch.tensor([0.2, 0.9]).double()
    image = torch.randn(2, 3, 24, 16, generator=generator).double().requires_grad_()
    direction = torch.randn(2, 3, 24, 16, generator=generator).double()
    (gradient,) = torch.autograd.grad(scalar(estimator(image, noise_level)).sum(), image)
    step = 1e-5
    with torch.no_grad():
        ahead, behind = (scalar(estimator(image + s * step * direction, noise_level)) for s in (1, -1))
    torch.testing.assert_close(
        (gradient * direction).sum((1, 2, 3)), (ahead - behind) / (2 * step), rtol=1e-7, atol=1e-7
    )


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


def test_same_image_same_bits(shipped: TinyGeometryEstimator, generator: torch.Generator) -> None:
    image, noise_level = torch.rand(2, 3, 64, 64, generator=generator), torch.tensor([0.0, 0.7])
    first, second = shipped(image, noise_level), shipped(image, noise_level)
    assert torch.equal(first.disparity, second.disparity) and torch.equal(first.normal, second.normal)


def test_shipped_weights_are_small_and_frozen(shipped: TinyGeometryEstimator) -> None:
    assert sum(parameter.numel() for parameter in shipped.parameters()) < 1_000_000
    assert len(SHIPPED.joinpath(WEIGHTS_FILE).read_bytes()) <= 2_000_000
    assert not any(parameter.requires_grad for parameter in shipped.parameters())
    assert SHIPPED.joinpath("README.md").is_file()


@pytest.mark.parametrize(
    ("size", "timestep", "least"), [(64, None, LEAST_CLEAN), (128, None, LEAST_CLEAN), (128, 600, LEAST_NOISY)]
)
def test_shipped_weights_see_held_out_objects(
    shipped: TinyGeometryEstimator, held_out: Views, size: int, timestep: int | None, least: Score
) -> None:
    score = evaluate(shipped, held_out, size, timestep)
    assert score.image > least.image and score.object > least.object
    assert score.degrees < least.degrees and score.error < least.error


@pytest.mark.parametrize("timestep", [None, 600])
def test_no_checkerboard(shipped: TinyGeometryEstimator, held_out: Views, timestep: int | None) -> None:
    """Patterns of period two, fixed to the pixel grid, are what a careless upsampling leaves."""
    (batch, *_) = noisy_batches(held_out, 128, timestep)
    disparity = shipped(batch.image, batch.noise_level).disparity
    y, x = torch.meshgrid(torch.arange(128), torch.arange(128), indexing="ij")
    for parity in (x, y, x + y):
        pattern = (disparity * (1 - 2 * (parity % 2))).mean((1, 2, 3))
        assert pattern.abs().max() < CHECKERBOARD * disparity.std((1, 2, 3)).max()


def test_save_and_load_keep_half_precision(tmp_path: Path, generator: torch.Generator) -> None:
    estimator = small_estimator()
    save_tiny_estimator(tmp_path, SMALL, estimator.state_dict())
    loaded = load_tiny_estimator(tmp_path)
    assert loaded.config == SMALL
    for name, value in loaded.state_dict().items():
        assert torch.equal(value, estimator.state_dict()[name].half().float())


def test_damaged_and_missing_files_are_told(tmp_path: Path) -> None:
    save_tiny_estimator(tmp_path, SMALL, small_estimator().state_dict())
    weights, config = tmp_path / WEIGHTS_FILE, tmp_path / CONFIG_FILE
    content, text = weights.read_bytes(), config.read_text()
    weights.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="damaged, or is not a geometry estimator"):
        load_tiny_estimator(tmp_path)
    weights.write_bytes(content)
    config.write_text(TinyEstimatorConfig(channels=(8, 8, 8)).to_json())
    with pytest.raises(ValueError, match="damaged, or is not a geometry estimator"):
        load_tiny_estimator(tmp_path)
    config.write_text(text.replace("head_channels", "tail_channels"))
    with pytest.raises(ValueError, match="keys channels, head_channels, embedding_channels"):
        load_tiny_estimator(tmp_path)
    config.unlink()
    with pytest.raises(FileNotFoundError):
        load_tiny_estimator(tmp_path)


def test_channels_must_fit_the_groups() -> None:
    with pytest.raises(ValueError, match="multiples of 8"):
        TinyEstimatorConfig(channels=(24, 12))


def test_the_core_size_must_be_positive() -> None:
    with pytest.raises(ValueError, match="core size must be positive"):
        TinyEstimatorConfig(core_size=0)
