"""One step of optimization: what it changes, what it skips, what it carries over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from jaxtyping import Float
from torch import Tensor, nn

from steindreamer.distill import (
    METHODS,
    ControlVariateConfig,
    Distillation,
    NoiseRequest,
    NoiseSchedule,
    NoisySample,
    SSDConfig,
)
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.optimization.stage import MAX_CONSECUTIVE_SKIPS, Stage
from steindreamer.pipelines.optimization.stage_config import StageConfig
from steindreamer.pipelines.optimization.views import ViewsConfig
from steindreamer.representations import AdaptReport, Cameras, GaussiansConfig, RenderOutput, Representation

WITH_THE_NOISE = ["sds", "ssd", "sdi"]
"""Methods whose counterpart is noise: the others compare predictions, which this prior gives all alike."""


class Billboard(Representation):
    """One color, seen the same from everywhere: the smallest scene that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.color = nn.Parameter(torch.full((3,), 0.5))

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        full = torch.ones(len(cameras), 1, cameras.height, cameras.width)
        rgb = self.color[None, :, None, None] * full
        return RenderOutput(rgb, full, 3 * full, torch.cat([0 * full, 0 * full, full], 1))

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {"color": 0.02 * (1 - progress)}

    def regularizers(self) -> dict[str, Float[Tensor, ""]]:
        return {"brightness": self.color.mean()}


class OneColorPrior:
    """Believes in one color: eps_hat = (noisy - alpha * color) / sigma. `broken` makes it answer NaN."""

    schedule = NoiseSchedule.scaled_linear()
    device = torch.device("cpu")

    def __init__(self, color: tuple[float, float, float]) -> None:
        self.color = torch.tensor(color).reshape(1, 3, 1, 1) * 2 - 1
        self.broken = False

    def embed(self, prompt: str, negative_prompt: str = "") -> Any:
        return None

    def condition(self, embedding: Any, cameras: Any, background: Tensor) -> Any:
        return None

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return image * 2 - 1

    def decode(self, latent: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return latent / 2 + 0.5

    def predict_noise(self, requests: Sequence[NoiseRequest], condition: Any) -> list[Tensor]:
        return [self._predict(request.sample) for request in requests]

    def _predict(self, sample: NoisySample) -> Tensor:
        predicted = (sample.noisy - sample.alpha * self.color) / sample.sigma
        if self.broken:
            predicted = predicted * math.nan
        return predicted


def _stage(method: str = "sds", seed: int = 0, **settings: Any) -> tuple[Stage, Billboard, OneColorPrior]:
    prior, scene = OneColorPrior((0.9, 0.2, 0.4)), Billboard()
    config = StageConfig(steps=200, resolution=16, warmup_resolution=16, views=ViewsConfig(), **settings)
    distiller = METHODS[method]().build(prior, None)
    return Stage(scene, distiller, prior, None, config, torch.Generator().manual_seed(seed)), scene, prior


@pytest.mark.parametrize("method", WITH_THE_NOISE)
def test_distillation_finds_the_priors_color(method: str) -> None:
    stage, scene, _ = _stage(method)
    for _ in range(200):
        stage.step()
    torch.testing.assert_close(scene.color.detach(), torch.tensor([0.9, 0.2, 0.4]), atol=0.03, rtol=0)


def test_learning_rates_follow_the_progress() -> None:
    stage, _, _ = _stage()
    stage.step()
    assert stage.optimizer.param_groups[0]["lr"] == pytest.approx(0.02)
    for _ in range(100):
        stage.step()
    assert stage.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize("shape", ["linear", "exponential", "sqrt"])
def test_rates_follow_the_schedule_of_a_regularizer(shape: str) -> None:
    schedule = {"from": 6, "to": 0.6, "begin": 0.1, "end": 0.5, "shape": shape}
    stage, scene, _ = _stage(rates=schedule, regularizers={"brightness": schedule}, probe_every=0)
    factors = []
    for _ in range(120):
        progress = stage.progress
        (weight,) = [each.value_at(progress) for each in stage.objective.weights.values()]
        stage.step()
        (group,) = stage.optimizer.param_groups
        assert group["lr"] == scene.learning_rates(progress)["color"] * weight
        factors.append(weight)
    assert factors[0] == 6 and factors[-1] == 0.6 and 0.6 < factors[60] < 6


def test_constant_rates_are_a_schedule_that_does_not_change() -> None:
    constant, one, _ = _stage(rates=3)
    schedule, other, _ = _stage(rates={"from": 3, "to": 3})
    plain, usual, _ = _stage()
    for stage in (constant, schedule, plain):
        for _ in range(5):
            stage.step()
    assert torch.equal(one.color, other.color) and not torch.equal(one.color, usual.color)


def test_a_step_that_is_not_finite_is_skipped_and_named() -> None:
    stage, scene, prior = _stage()
    stage.step()
    before = scene.color.detach().clone()
    prior.broken = True
    info = stage.step()
    assert "distillation" in info.skipped and stage.skipped == 1
    assert torch.equal(scene.color, before)
    assert all(bool(torch.isfinite(value).all()) for value in stage.distiller.state_dict().values())
    prior.broken = False
    assert not stage.step().skipped and not torch.equal(scene.color, before)


def test_too_many_skips_in_a_row_stop_the_run() -> None:
    stage, _, prior = _stage()
    prior.broken = True
    with pytest.raises(UserError, match="not finite"):
        for _ in range(MAX_CONSECUTIVE_SKIPS):
            stage.step()


def test_an_answer_that_changes_its_shape_late_is_one_line_with_the_step() -> None:
    stage, _, prior = _stage()
    stage.step()
    honest = prior.predict_noise

    def one_only(requests: Sequence[NoiseRequest], condition: Any) -> list[Tensor]:
        return [predicted[:1] for predicted in honest(requests, condition)]

    prior.predict_noise = one_only
    with pytest.raises(UserError, match=r"step 2, in stage 'coarse': .*OneColorPrior"):
        stage.step()


class Swapping(Billboard):
    """Adapts by a new parameter (or, `resized`, in place) and forgets the optimizer."""

    resized = False

    def adapt(
        self, step: int, total_steps: int, optimizer: torch.optim.Optimizer, generator: torch.Generator
    ) -> AdaptReport:
        if self.resized:
            self.color.data = torch.full((1, 3), 0.5)
        else:
            self.color = nn.Parameter(self.color.detach().clone())
        return AdaptReport()


@pytest.mark.parametrize(("resized", "message"), [(False, "a different tensor than"), (True, r"of shape \(1, 3\)")])
def test_an_adaptation_that_loses_the_optimizer_is_told(resized: bool, message: str) -> None:
    stage, _, _ = _stage()
    scene = Swapping()
    scene.resized = resized
    stage = Stage(scene, stage.distiller, stage.prior, None, stage.config, torch.Generator().manual_seed(0))
    with pytest.raises(UserError, match=f"Swapping.adapt the parameter 'color' is {message}"):
        stage.step()


@pytest.mark.parametrize("method", WITH_THE_NOISE)
def test_state_round_trip_continues_bitwise(method: str) -> None:
    whole, scene, _ = _stage(method)
    for _ in range(12):
        whole.step()
    first, _, _ = _stage(method)
    for _ in range(5):
        first.step()
    second, resumed, _ = _stage(method, seed=99)
    second.load_tensors({name: tensor.clone() for name, tensor in first.tensors().items()})
    for _ in range(7):
        second.step()
    assert second.done == 12
    assert torch.equal(resumed.color, scene.color)


def test_a_state_of_another_configuration_is_refused() -> None:
    sds, _, _ = _stage("sds")
    ssd, _, _ = _stage("ssd")
    with pytest.raises(UserError, match="does not fit"):
        sds.load_tensors(ssd.tensors())


def test_probing_does_not_change_the_run() -> None:
    probed, one, _ = _stage("ssd", probe_every=2)
    plain, other, _ = _stage("ssd", probe_every=0)
    infos = [probed.step() for _ in range(8)]
    for _ in range(8):
        plain.step()
    assert torch.equal(one.color, other.color)
    assert "variance" in infos[1].values and "variance" not in infos[0].values


def test_the_whole_variance_is_logged_on_demand_and_does_not_change_the_run() -> None:
    probed, one, _ = _stage("ssd", probe_every=2, probe_tuples=8)
    plain, other, _ = _stage("ssd", probe_every=0)
    infos = [probed.step() for _ in range(8)]
    for _ in range(8):
        plain.step()
    assert torch.equal(one.color, other.color)
    values = infos[3].values
    assert {f"probe/{name}/{moment}" for name in ("own", "sds") for moment in ("noise", "level", "camera")} <= set(
        values
    )
    assert values["probe/sds/noise"] > 0
    with pytest.raises(ValueError, match="probe_tuples is 6; 0 and multiples of 4"):
        StageConfig(probe_tuples=6)


def test_regularizers_are_weighed_and_checked() -> None:
    stage, _, _ = _stage(regularizers={"brightness": 0.0, "transparency": 2.0})
    assert set(stage.step().values) >= {"transparency"}
    with pytest.raises(UserError, match=r"did you mean 'brightness'"):
        _stage(regularizers={"brightnes": 1.0})


def test_the_loss_is_in_the_unit_of_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half the squared weighted residual, summed over the latent, mean over views."""
    stage, scene, _ = _stage(regularizers={"brightness": 7.0})
    distill, seen = stage.objective.distill, []

    def kept(*arguments: Any) -> Distillation:
        seen.append(distill(*arguments))
        return seen[-1]

    monkeypatch.setattr(stage.objective, "distill", kept)
    info = stage.step()
    (distillation,) = seen
    weighted = distillation.observations[0].weight * distillation.residual
    assert weighted.shape == (stage.config.views.per_step, 3, 16, 16)
    assert info.loss == pytest.approx(0.5 * float(weighted.square().sum((1, 2, 3)).mean()))
    assert info.values["brightness"] == pytest.approx(0.5), "before weighting"
    assert scene.color.grad is not None
    # The prior's pixels are 2 * color - 1; the brightness is the mean of three channels.
    torch.testing.assert_close(scene.color.grad, 2 * weighted.mean(0).sum((1, 2)) + 7 / 3)


class LatentPrior(OneColorPrior):
    """Shrinks every image to 8 pixels."""

    def encode(self, image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 hl wl"]:
        return nn.functional.adaptive_avg_pool2d(image, 8) * 2 - 1


def test_weights_mean_the_same_at_every_resolution() -> None:
    losses, colors = [], []
    for resolution in (16, 48):
        prior, scene = LatentPrior((0.9, 0.2, 0.4)), Billboard()
        config = StageConfig(steps=20, resolution=resolution, warmup=0.0, regularizers={"brightness": 50.0})
        distiller = METHODS["sds"]().build(prior, None)
        stage = Stage(scene, distiller, prior, None, config, torch.Generator().manual_seed(0))
        losses.append([stage.step().loss for _ in range(10)])
        colors.append(scene.color.detach())
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    torch.testing.assert_close(*colors, rtol=1e-4, atol=1e-5)


def test_second_moment_coefficients_get_their_gram() -> None:
    prior, scene = OneColorPrior((0.9, 0.2, 0.4)), Billboard()
    distiller = SSDConfig(control_variates=ControlVariateConfig(["noise"], "second_moment")).build(prior, None)
    config = StageConfig(steps=10, resolution=16, warmup_resolution=16)
    stage = Stage(scene, distiller, prior, None, config, torch.Generator().manual_seed(0))
    before = [value.clone() for value in distiller.state_dict().values()]
    stage.step()
    assert any(not torch.equal(a, b) for a, b in zip(before, distiller.state_dict().values(), strict=True))


def test_the_gram_does_not_steer_the_densification() -> None:
    def noted(coefficients: Any) -> Tensor:
        prior = OneColorPrior((0.9, 0.2, 0.4))
        distiller = SSDConfig(control_variates=ControlVariateConfig(["noise"], coefficients)).build(prior, None)
        scene = GaussiansConfig(count=50).build(torch.Generator().manual_seed(0), torch.device("cpu"))
        config = StageConfig(steps=10, resolution=16, warmup_resolution=16)
        Stage(scene, distiller, prior, None, config, torch.Generator().manual_seed(0)).step()
        return dict(scene.named_buffers())["densifier.gradient_sum"]

    assert noted("fixed").any() and torch.equal(noted("second_moment"), noted("fixed"))
