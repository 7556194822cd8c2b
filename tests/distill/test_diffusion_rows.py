"""The rows that a denoiser is asked for, and their portions, on a Stable Diffusion with random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_diffusion_models import save_tiny_model
from torch import Tensor

from steindreamer.distill import MicroBatched, NoisePrediction, NoisySample, Question
from steindreamer.distill.diffusion import DiffusersPrior
from steindreamer.distill.diffusion.micro_batches import in_micro_batches
from steindreamer.distill.perp_neg import negative_view_weights, perpendicular
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
def wary(folder: Path) -> DiffusersPrior:
    return DiffusersPrior(str(folder), CPU, perp_neg=True)


@pytest.fixture
def cameras() -> Cameras:
    return Cameras.orbit(AROUND, [0.0, 0.0, 0.0, 0.0, 80.0], height=8)


@pytest.fixture
def sample(plain: DiffusersPrior, generator: torch.Generator) -> NoisySample:
    clean, noise = torch.randn(2, 5, 4, 8, 8, generator=generator)
    return plain.schedule.add_noise(clean, noise, torch.tensor([20, 300, 500, 700, 980]))


def _predict(prior: DiffusersPrior, sample: NoisySample, cameras: Cameras, *, unconditional: bool) -> NoisePrediction:
    condition = prior.condition(prior.embed("a mug", "blurry"), cameras, torch.ones(len(cameras), 3))
    return prior.predict_noise(sample, condition, unconditional=unconditional)


def _calls(prior: DiffusersPrior) -> list[int]:
    """Rows of every call of the denoiser from now on."""
    rows: list[int] = []
    prior.embed("a mug")  # the first one asks the denoiser whether it fits the text
    prior.denoiser.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    return rows


def test_perp_neg_is_its_formula(
    plain: DiffusersPrior, wary: DiffusersPrior, sample: NoisySample, cameras: Cameras
) -> None:
    expected = _predict(plain, sample, cameras, unconditional=True)
    e_c, e_0 = expected.conditional, expected.unconditional
    assert e_0 is not None
    for view, weights in zip((0.0, 90.0), negative_view_weights(cameras).T, strict=False):
        seen_so = Cameras.orbit([view] * 5, [0.0] * 5, height=8)
        e_n = _predict(plain, sample, seen_so, unconditional=False).conditional
        e_c = e_c + weights[:, None, None, None] * perpendicular(e_n - e_0, expected.conditional - e_0)
    predicted = _predict(wary, sample, cameras, unconditional=True)
    assert predicted.unconditional is not None
    torch.testing.assert_close(predicted.conditional, e_c, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predicted.unconditional, e_0, rtol=1e-4, atol=1e-5)
    differs = (predicted.conditional - expected.conditional).abs().amax((1, 2, 3))
    assert (differs[:4] > 1e-4).all() and differs[4] < 1e-5


def test_perp_neg_asks_for_the_negatives_that_count(folder: Path, sample: NoisySample, cameras: Cameras) -> None:
    prior = DiffusersPrior(str(folder), CPU, perp_neg=True)
    rows = _calls(prior)
    both = _predict(prior, sample, cameras, unconditional=True)
    alone = _predict(prior, sample, cameras, unconditional=False)
    assert rows == [5 + 5 + NEGATIVES] * 2, "its directions begin at the unconditional prediction"
    assert alone.unconditional is None
    torch.testing.assert_close(alone.conditional, both.conditional)


def test_perp_neg_from_overhead_is_plain(folder: Path, plain: DiffusersPrior, sample: NoisySample) -> None:
    prior, overhead = DiffusersPrior(str(folder), CPU, perp_neg=True), Cameras.orbit(AROUND, [75.0] * 5, height=8)
    rows = _calls(prior)
    predicted = _predict(prior, sample, overhead, unconditional=False).conditional
    assert rows == [5]
    assert torch.equal(predicted, _predict(plain, sample, overhead, unconditional=False).conditional)


def test_questions_at_several_levels_are_one_call(folder: Path, sample: NoisySample, cameras: Cameras) -> None:
    """And are answered as one by one; the negative prompt is told from no prompt, and Perp-Neg holds at both levels."""
    prior = DiffusersPrior(str(folder), CPU, perp_neg=True)
    background = torch.ones(len(cameras), 3)
    unwanted, plain = (prior.condition(prior.embed("a mug", text), cameras, background) for text in ("blurry", ""))
    later = prior.schedule.add_noise(sample.clean, sample.noise, torch.tensor([60, 340, 560, 790, 990]))
    questions = [Question(sample), Question(sample, "null"), Question(sample, "unconditional"), Question(later)]
    rows = _calls(prior)
    together = prior.answer(questions, unwanted)
    assert rows == [5 * 5 + 2 * NEGATIVES], "Perp-Neg asks for the unconditional prediction of the second level too"
    one_by_one = [prior.answer([each], unwanted)[0] for each in questions]
    for first, second in zip(together, one_by_one, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    null = prior.predict_noise(sample, plain, unconditional=True).unconditional
    torch.testing.assert_close(together[1], null, rtol=1e-4, atol=1e-5)
    assert (together[1] - together[2]).abs().max() > 1e-4
    del rows[:]
    null, unconditional = prior.answer(questions[1:3], plain)
    assert rows == [5] and torch.equal(null, unconditional), "without a negative prompt they are the same"
    portioned = DiffusersPrior(str(folder), CPU, perp_neg=True, micro_batch=2)
    for first, second in zip(together, portioned.answer(questions, unwanted), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)


def test_perp_neg_needs_views(folder: Path) -> None:
    with pytest.raises(ValueError, match="perp_neg tells views apart by their words; set view_dependent=true"):
        DiffusersPrior(str(folder), CPU, perp_neg=True, view_dependent=False)


@pytest.mark.parametrize(
    ("size", "expected"), [(0, [16]), (1, [3, 4, 3, 4, 2]), (2, [7, 7, 2]), (3, [10, 6]), (9, [16])]
)
def test_portions_change_no_prediction(
    size: int, expected: list[int], folder: Path, wary: DiffusersPrior, sample: NoisySample, cameras: Cameras
) -> None:
    prior = DiffusersPrior(str(folder), CPU, perp_neg=True, micro_batch=size)
    rows = _calls(prior)
    predicted, whole = (_predict(each, sample, cameras, unconditional=True) for each in (prior, wary))
    assert rows == expected
    torch.testing.assert_close(predicted.conditional, whole.conditional, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predicted.unconditional, whole.unconditional, rtol=1e-4, atol=1e-5)


def _gradient(network: Callable[[Tensor], Tensor], image: Tensor, weights: Tensor) -> Tensor:
    image = image.detach().requires_grad_()
    (gradient,) = torch.autograd.grad((network(image) * weights).sum(), image)
    return gradient


@pytest.mark.parametrize("size", [1, 2, 3])
def test_portions_change_no_gradient(size: int, folder: Path, generator: torch.Generator) -> None:
    vae: Any = diffusers.AutoencoderKL.from_pretrained(folder, subfolder="vae", torch_dtype=torch.float64)
    image, weights = torch.rand(2, 3, 3, 32, 32, generator=generator).double()

    def there_and_back(picture: Tensor) -> Tensor:
        return vae.decode(vae.encode(picture).latent_dist.mode()).sample

    expected = _gradient(there_and_back, image, weights)
    gradient = _gradient(lambda picture: in_micro_batches(there_and_back, picture, size), image, weights)
    assert (gradient - expected).norm() < 1e-9 * expected.norm()


def test_portions_change_no_gradient_of_the_prior(
    folder: Path, plain: DiffusersPrior, generator: torch.Generator
) -> None:
    """But for the rounding of float32, which differs with the size of a batch."""
    image, weights = torch.rand(2, 3, 3, 64, 64, generator=generator)
    portioned = DiffusersPrior(str(folder), CPU, micro_batch=2)
    assert isinstance(portioned, MicroBatched)
    one, other = (
        _gradient(lambda picture, prior=prior: prior.decode(prior.encode(picture)), image, weights)
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

    pictures = image.numel() * image.element_size()
    assert kept(DiffusersPrior(str(folder), CPU)) > 20 * pictures
    assert kept(DiffusersPrior(str(folder), CPU, micro_batch=1)) < 2 * pictures


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
    with pytest.raises(ValueError, match=r"micro_batch is -1; 0 \(all pictures at once\) or more"):
        DiffusersPrior(str(folder), CPU, micro_batch=-1)
