"""The rows that a denoiser is asked for, and their portions, on a Stable Diffusion with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from predicted_noise import noise_pair, positive_noise
from tiny_diffusion_models import save_tiny_model
from torch import Tensor

from steindreamer.distill import NoiseRequest, NoisySample
from steindreamer.distill.priors.base import MicroBatched
from steindreamer.distill.priors.diffusion import DiffusersPrior
from steindreamer.distill.priors.diffusion.micro_batches import in_micro_batches
from steindreamer.distill.priors.diffusion.prior import TextCondition
from steindreamer.distill.priors.guidance import negative_view_weights, perpendicular
from steindreamer.representations import Cameras

diffusers: Any = pytest.importorskip("diffusers")
pytest.importorskip("transformers")

CPU = torch.device("cpu")
AROUND = [0.0, 40.0, 90.0, 180.0, 0.0]
NEGATIVES = 1 + 2 + 1 + 2 + 0
"""Of the front: the side; between front and side: both; of the side: the front; of the back: both; overhead: none."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def plain(folder: Path) -> DiffusersPrior:
    return DiffusersPrior(str(folder), CPU)


@pytest.fixture(scope="module")
def perp_neg(folder: Path) -> DiffusersPrior:
    return DiffusersPrior(str(folder), CPU, perp_neg=True)


@pytest.fixture
def cameras() -> Cameras:
    return Cameras.orbit(AROUND, [0.0, 0.0, 0.0, 0.0, 80.0], height=8)


@pytest.fixture
def sample(plain: DiffusersPrior, generator: torch.Generator) -> NoisySample:
    clean, noise = torch.randn(2, 5, 4, 8, 8, generator=generator)
    return plain.schedule.add_noise(clean, noise, torch.tensor([20, 300, 500, 700, 980]))


def _positive(prior: DiffusersPrior, sample: NoisySample, cameras: Cameras) -> Tensor:
    return positive_noise(prior, sample, _condition(prior, cameras))


def _pair(prior: DiffusersPrior, sample: NoisySample, cameras: Cameras) -> tuple[Tensor, Tensor]:
    return noise_pair(prior, sample, _condition(prior, cameras))


def _condition(prior: DiffusersPrior, cameras: Cameras) -> TextCondition:
    return prior.condition(prior.embed("a mug", "blurry"), cameras, torch.ones(len(cameras), 3))


def _calls(prior: DiffusersPrior) -> list[int]:
    """Rows of every call of the denoiser from now on."""
    rows: list[int] = []
    prior.embed("a mug")  # the first one asks the denoiser whether it fits the text
    prior.denoiser.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    return rows


def test_perp_neg_is_its_formula(
    plain: DiffusersPrior, perp_neg: DiffusersPrior, sample: NoisySample, cameras: Cameras
) -> None:
    expected, e_n = _pair(plain, sample, cameras)
    e_p = expected
    for view, weights in zip((0.0, 90.0), negative_view_weights(cameras).T, strict=False):
        seen_so = Cameras.orbit([view] * 5, [0.0] * 5, height=8)
        e_i = _positive(plain, sample, seen_so)
        e_p = e_p + weights[:, None, None, None] * perpendicular(e_i - e_n, expected - e_n)
    positive, negative = _pair(perp_neg, sample, cameras)
    torch.testing.assert_close(positive, e_p, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(negative, e_n, rtol=1e-4, atol=1e-5)
    differs = (positive - expected).abs().amax((1, 2, 3))
    assert (differs[:4] > 1e-4).all() and differs[4] < 1e-5


def test_perp_neg_requests_the_views_that_count(folder: Path, sample: NoisySample, cameras: Cameras) -> None:
    prior = DiffusersPrior(str(folder), CPU, perp_neg=True)
    rows = _calls(prior)
    (positive, _), alone = _pair(prior, sample, cameras), _positive(prior, sample, cameras)
    assert rows == [5 + 5 + NEGATIVES] * 2, "its directions begin at the negative prediction"
    torch.testing.assert_close(alone, positive)


def test_perp_neg_from_overhead_is_plain(folder: Path, plain: DiffusersPrior, sample: NoisySample) -> None:
    prior, overhead = DiffusersPrior(str(folder), CPU, perp_neg=True), Cameras.orbit(AROUND, [75.0] * 5, height=8)
    rows = _calls(prior)
    predicted = _positive(prior, sample, overhead)
    assert rows == [5]
    assert torch.equal(predicted, _positive(plain, sample, overhead))


def test_requests_at_several_timesteps_are_one_call(folder: Path, sample: NoisySample, cameras: Cameras) -> None:
    """With the predictions of single requests; negative and null prompt differ, and Perp-Neg applies at both levels."""
    prior = DiffusersPrior(str(folder), CPU, perp_neg=True)
    background = torch.ones(len(cameras), 3)
    unwanted, plain = (prior.condition(prior.embed("a mug", text), cameras, background) for text in ("blurry", ""))
    later = prior.schedule.add_noise(sample.clean, sample.noise, torch.tensor([60, 340, 560, 790, 990]))
    requests = [NoiseRequest(sample), NoiseRequest(sample, "null"), NoiseRequest(sample, "negative")]
    requests.append(NoiseRequest(later))
    rows = _calls(prior)
    together = prior.predict_noise(requests, unwanted)
    assert rows == [5 * 5 + 2 * NEGATIVES], "Perp-Neg needs the negative prediction of the second level too"
    one_by_one = [prior.predict_noise([each], unwanted)[0] for each in requests]
    for first, second in zip(together, one_by_one, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    _, null = noise_pair(prior, sample, plain)
    torch.testing.assert_close(together[1], null, rtol=1e-4, atol=1e-5)
    assert (together[1] - together[2]).abs().max() > 1e-4
    del rows[:]
    null, negative = prior.predict_noise(requests[1:3], plain)
    assert rows == [5] and torch.equal(null, negative), "without a negative prompt they are the same"
    portioned = DiffusersPrior(str(folder), CPU, perp_neg=True, micro_batch=2)
    for first, second in zip(together, portioned.predict_noise(requests, unwanted), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_perp_neg_needs_views(folder: Path) -> None:
    with pytest.raises(ValueError, match="perp_neg needs view-dependent prompts; set view_dependent=true"):
        DiffusersPrior(str(folder), CPU, perp_neg=True, view_dependent=False)


@pytest.mark.parametrize(
    ("size", "expected"), [(0, [16]), (1, [3, 4, 3, 4, 2]), (2, [7, 7, 2]), (3, [10, 6]), (9, [16])]
)
def test_portions_change_no_prediction(
    size: int, expected: list[int], folder: Path, perp_neg: DiffusersPrior, sample: NoisySample, cameras: Cameras
) -> None:
    prior = DiffusersPrior(str(folder), CPU, perp_neg=True, micro_batch=size)
    rows = _calls(prior)
    predicted, whole = (_pair(each, sample, cameras) for each in (prior, perp_neg))
    assert rows == expected
    torch.testing.assert_close(predicted, whole, rtol=1e-4, atol=1e-5)


def _gradient(network: Callable[[Tensor], Tensor], image: Tensor, weights: Tensor) -> Tensor:
    image = image.detach().requires_grad_()
    (gradient,) = torch.autograd.grad((network(image) * weights).sum(), image)
    return gradient


@pytest.mark.parametrize("size", [1, 2, 3])
def test_portions_change_no_gradient(size: int, folder: Path, generator: torch.Generator) -> None:
    vae: Any = diffusers.AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float64)
    image, weights = torch.rand(2, 3, 3, 32, 32, generator=generator).double()

    def there_and_back(rendering: Tensor) -> Tensor:
        return vae.decode(vae.encode(rendering).latent_dist.mode()).sample

    expected = _gradient(there_and_back, image, weights)
    gradient = _gradient(lambda rendering: in_micro_batches(there_and_back, rendering, size), image, weights)
    assert (gradient - expected).norm() < 1e-9 * expected.norm()


def test_portions_change_no_gradient_of_the_prior(
    folder: Path, plain: DiffusersPrior, generator: torch.Generator
) -> None:
    """But for the rounding of float32, which differs with the size of a batch."""
    image, weights = torch.rand(2, 3, 3, 64, 64, generator=generator)
    portioned = DiffusersPrior(str(folder), CPU, micro_batch=2)
    assert isinstance(portioned, MicroBatched)
    one, other = (
        _gradient(lambda rendering, prior=prior: prior.decode(prior.encode(rendering)), image, weights)
        for prior in (portioned, plain)
    )
    assert (one - other).norm() < 1e-4 * other.norm()


def test_a_portion_keeps_nothing_for_the_gradient(folder: Path, generator: torch.Generator) -> None:
    """Only what goes in and comes out stays between forward and backward."""
    image = torch.rand(4, 3, 64, 64, generator=generator).requires_grad_()

    def kept(prior: DiffusersPrior) -> int:
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            prior.encode(image)
        return sum(sizes.values())

    images = image.numel() * image.element_size()
    assert kept(DiffusersPrior(str(folder), CPU)) > 20 * images
    assert kept(DiffusersPrior(str(folder), CPU, micro_batch=1)) < 2 * images


def test_portions_live_one_at_a_time(generator: torch.Generator) -> None:
    """Each is computed again only when the gradient has come to it."""
    order: list[tuple[str, float]] = []

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            order.append(("forward", float(x.detach().flatten()[0])))
            return x * x

        @staticmethod
        def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
            order.append(("backward", float(x.detach().flatten()[0])))
            return 2 * x * gradients[0]

    batch = torch.arange(1.0, 4.0)[:, None].requires_grad_()
    in_micro_batches(lambda x: Square.apply(x), batch, 1).sum().backward()  # pyright: ignore
    assert batch.grad is not None
    torch.testing.assert_close(batch.grad, 2 * batch.detach())
    assert order[:3] == [("forward", 1.0), ("forward", 2.0), ("forward", 3.0)]
    later = order[3:]
    assert later == [step for x in (3.0, 2.0, 1.0) for step in (("forward", x), ("backward", x))]


def test_negative_portions_are_refused(folder: Path) -> None:
    with pytest.raises(ValueError, match=r"micro_batch is -1; 0 \(all images at once\) or more"):
        DiffusersPrior(str(folder), CPU, micro_batch=-1)
