"""A step that runs out of memory is taken again with fewer views at a time, and ends in the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from jaxtyping import Float
from tiny_diffusion_models import save_tiny_model
from torch import Tensor

from steindreamer.distill import (
    ControlVariateConfig,
    ExactPrior,
    GaussianMixture,
    MixtureCondition,
    NoiseRequest,
    NoiseSchedule,
    Prior,
    SSDConfig,
)
from steindreamer.distill.priors.diffusion import DiffusersPrior
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.optimization.stage_config import StageConfig
from steindreamer.pipelines.optimization.views import ViewsConfig
from steindreamer.pipelines.runs.time_left import ExpectedStage
from steindreamer.pipelines.runs.training_log import TrainingLog
from steindreamer.representations import REPRESENTATIONS

SIZE, VIEWS = 16, 4
FAILURES = ("encode", "predict", "backward", "probe", "learn")
"""Where the memory gives out; the coefficients' learning encodes once more."""


class _Failing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, image: Tensor) -> Tensor:
        return image.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("as if")


class CrampedPrior(ExactPrior):
    """Knows two images, and has room for `room` views at a time; otherwise memory gives out at `failure`."""

    def __init__(self, room: int = VIEWS, failure: str = "") -> None:
        super().__init__(NoiseSchedule.scaled_linear(), torch.device("cpu"))
        means = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) * 2 - 1
        self.mixture = GaussianMixture.isotropic(means, 0.3)
        self.micro_batch, self.room, self.failure = 0, room, failure
        self.encoded = self.predicted = 0

    def embed(self, prompt: str, negative_prompt: str = "") -> None:
        return None

    def condition(self, embedding: Any, cameras: Any, background: Tensor) -> MixtureCondition:
        self.encoded = self.predicted = 0
        return MixtureCondition(self.mixture, lambda: self.mixture)

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        self.encoded += 1
        self._fail("encode", self.encoded == 1)
        self._fail("probe", self.encoded == 2)
        self._fail("learn", self.encoded == 3)
        if self._is_cramped and self.failure == "backward":
            image = _Failing.apply(image)  # pyright: ignore[reportAssignmentType]
        return super().encode(image)

    def predict_noise(self, requests: Sequence[NoiseRequest], condition: MixtureCondition) -> list[Tensor]:
        self.predicted += 1
        self._fail("predict", self.predicted == 1)
        return super().predict_noise(requests, condition)

    @property
    def _is_cramped(self) -> bool:
        return (self.micro_batch or VIEWS) > self.room

    def _fail(self, where: str, now: bool) -> None:
        if now and self._is_cramped and self.failure == where:
            raise torch.OutOfMemoryError("as if")


def _stage(representation: str, prior: Prior, embedding: Any = None) -> Stage:
    generator = torch.Generator().manual_seed(0)
    small = {"gaussians": {"count": 200}, "nerf": {"samples": 16}}
    config: Any = REPRESENTATIONS[representation](**small[representation])
    stage = StageConfig(
        steps=10, resolution=SIZE, warmup_resolution=SIZE, views=ViewsConfig(per_step=VIEWS), probe_every=1
    )
    distiller = SSDConfig(control_variates=ControlVariateConfig(["noise"], "second_moment")).build(prior, None)
    scene = config.build(generator, prior.device)
    return Stage(scene, distiller, prior, embedding, stage, generator)


def _same(one: Stage, other: Stage) -> bool:
    first, second = one.tensors(), other.tensors()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("representation", ["gaussians", "nerf"])
def test_the_second_attempt_ends_in_the_same_bits(representation: str, failure: str) -> None:
    roomy, cramped = (_stage(representation, CrampedPrior(room, failure)) for room in (VIEWS, 1))
    for step in range(3):
        expected, info = roomy.step(), cramped.step()
        assert (len(info.notes), len(expected.notes)) == (2 if step == 0 else 0, 0)
        assert (info.step, info.loss, info.values) == (expected.step, expected.loss, expected.values)
        assert _same(roomy, cramped)
    prior: Any = cramped.prior
    assert prior.micro_batch == 1


@pytest.mark.parametrize(("views_at_first", "expected"), [(0, [2, 1]), (3, [1]), (100, [2, 1])])
def test_half_as_many_views_each_time(views_at_first: int, expected: list[int]) -> None:
    prior = CrampedPrior(1, "encode")
    prior.micro_batch = views_at_first
    notes = _stage("gaussians", prior).step().notes
    assert [int(note.split("micro_batch=")[1].split(",")[0]) for note in notes] == expected


def test_what_was_learned_from_a_failed_attempt_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    roomy, cramped = (_stage("gaussians", CrampedPrior()) for _ in range(2))
    update, failures = cramped.distiller.update, iter([torch.OutOfMemoryError("as if")])

    def learn_and_fail(*args: Any) -> None:
        update(*args)
        for failure in failures:
            raise failure

    monkeypatch.setattr(cramped.distiller, "update", learn_and_fail)
    roomy.step()
    assert cramped.step().notes
    assert _same(roomy, cramped)


def test_one_view_that_does_not_fit_is_told() -> None:
    stage = _stage("gaussians", CrampedPrior(0, "predict"))
    with pytest.raises(UserError, match=r"one view at a time; lower .*resolution, views.per_step .*decoder"):
        stage.step()


@pytest.mark.parametrize("part", ["denoiser", "encoder", "backward"])
def test_the_second_attempt_is_that_of_a_smaller_micro_batch(part: str, tmp_path: Path) -> None:
    """With networks whose results depend on the portion in the last bits."""
    pytest.importorskip("diffusers")
    model = str(save_tiny_model(tmp_path))
    small, cramped = (DiffusersPrior(model, torch.device("cpu"), micro_batch=size) for size in (2, 0))
    stages = [_stage("gaussians", prior, prior.embed("a mug")) for prior in (small, cramped)]
    _cramp(cramped, part, room=2)
    for step in range(2):
        expected, info = (stage.step() for stage in stages)
        assert (len(info.notes), len(expected.notes)) == (1 if step == 0 else 0, 0)
        assert (info.step, info.loss, info.values) == (expected.step, expected.loss, expected.values)
        assert _same(*stages)
    assert cramped.micro_batch == 2


def _cramp(prior: DiffusersPrior, part: str, room: int) -> None:
    """Let the memory give out in a part of the prior for more images than there is room for."""

    def forward(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if len(inputs[0]) <= (2 * room if part == "denoiser" else room):  # with and without the prompt
            return None
        if part == "backward":
            return (_Failing.apply(inputs[0]),)  # pyright: ignore[reportReturnType]
        raise torch.OutOfMemoryError("as if")

    (prior.denoiser if part == "denoiser" else prior._codec._vae.encoder).register_forward_pre_hook(forward)  # pyright: ignore[reportAttributeAccessIssue]


def test_the_error_is_gone_before_the_next_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep alive all that had not fitted."""
    import sys

    stage, handled = _stage("gaussians", CrampedPrior(1, "predict")), []
    attempt = stage._backward

    def watched() -> Any:
        handled.append(sys.exc_info()[1])
        return attempt()

    monkeypatch.setattr(stage, "_backward", watched)
    stage.step()
    assert handled == [None, None, None]


def test_the_journal_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="steindreamer")
    training_log = TrainingLog(tmp_path / "metrics.jsonl", {"coarse": ExpectedStage(10, 0.1)}, 1)
    training_log.record(_stage("gaussians", CrampedPrior(2, "predict")).step())
    assert "step 1: out of memory: retrying with prior.micro_batch=2" in caplog.text
