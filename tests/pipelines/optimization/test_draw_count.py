"""The number of draws that a stage chooses: what is measured, what is chosen, what is saved."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from jaxtyping import Float
from small_world import TwoModes
from torch import Tensor, nn

from steindreamer.distill import Distillation, SDSConfig
from steindreamer.distill.variance.draw_cost import DrawCost
from steindreamer.pipelines.errors import DamagedCheckpoint
from steindreamer.pipelines.optimization import draw_count
from steindreamer.pipelines.optimization.draw_count import (
    MEASURED_STEPS,
    DrawCount,
    MeasuredStep,
    chosen_draws,
    measured_cost,
)
from steindreamer.pipelines.optimization.render_step import TrainingView
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.optimization.stage_config import StageConfig
from steindreamer.representations import Cameras, RenderOutput, Representation

SIZE = 16


class Lamp(Representation):
    """One color, brighter from some cameras than from others."""

    def __init__(self) -> None:
        super().__init__()
        self.color = nn.Parameter(torch.tensor([0.3, 0.5, 0.6]))
        self.register_buffer("renders", torch.zeros(()))
        self.renders: Tensor

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        full = torch.ones(len(cameras), 1, cameras.height, cameras.width)
        light = 0.7 + 0.2 * cameras.camera_to_world[:, 0, 3].sign()
        rgb = (light[:, None] * self.color)[:, :, None, None] * full
        if rgb.requires_grad:
            rgb.register_hook(self._count)
        return RenderOutput(rgb, full, 3 * full, torch.cat([0 * full, 0 * full, full], 1))

    def _count(self, gradient: Tensor) -> None:
        self.renders += 1  # as a densifier counts gradients

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {"color": 0.0001}

    def regularizers(self) -> dict[str, Float[Tensor, ""]]:
        return {"brightness": self.color.mean()}


def stage(draws: int | str = "auto", **settings: Any) -> Stage:
    prior = TwoModes(SIZE)
    distiller = SDSConfig(guidance_scale=1.0, draws=draws).build(prior)  # pyright: ignore[reportArgumentType]
    config = StageConfig(resolution=SIZE, warmup_resolution=SIZE, probe_every=0, **{"steps": 200, **settings})
    return Stage(Lamp(), distiller, prior, None, config, torch.Generator().manual_seed(0))


def test_a_measured_step_compares_the_gradients_of_its_two_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the gradient of each draw through a rendering of its own; the step itself is not changed by it."""
    ours = stage(regularizers={"brightness": 3.0})
    seen: list[tuple[TrainingView, Distillation]] = []
    distill = ours.objective.distill

    def kept(view: TrainingView, *arguments: Any) -> Distillation:
        seen.append((view, distill(view, *arguments)))
        return seen[-1][1]

    monkeypatch.setattr(ours.objective, "distill", kept)
    scene = ours.representation
    assert isinstance(scene, Lamp)
    before = scene.color.detach().clone()
    info = ours.step()
    ((view, distillation),) = seen
    (step,) = ours.draw_counts["color"]._steps
    assert info.values["draws"] == 2 and scene.renders == 1, "the second backward pass is not counted"
    with torch.no_grad():
        scene.color.copy_(before)
    pulled = []
    for each in distillation.observations:
        gradient = each.weight * each.residual / 2
        loss = (ours.prior.encode(view.render_again()[1]) * gradient).sum()
        pulled.append(torch.autograd.grad(loss, scene.color)[0])
    assert step.within == pytest.approx(0.5 * float((pulled[0] - pulled[1]).square().sum()), rel=1e-4)
    torch.testing.assert_close(step.gradient[0], (pulled[0] + pulled[1]) / 2 + 1.0, rtol=1e-4, atol=1e-4)
    assert step.view_seconds > 0 and step.draw_seconds > 0


def test_measured_steps_find_the_variances_of_a_known_experiment() -> None:
    """Gradients are camera + (first draw + second draw) / 2, with standard deviations of 2 and 3 in 500 components."""
    generator = torch.Generator().manual_seed(0)

    def normal(deviation: float) -> Tensor:
        return deviation * torch.randn(500, generator=generator)

    def step(i: int) -> MeasuredStep:
        first, second = normal(3.0), normal(3.0)
        within = 0.5 * float((first - second).square().sum())
        return MeasuredStep(within, (normal(2.0) + (first + second) / 2,), 100.0 if i == 0 else 8.0, 1.0)

    cost = measured_cost([step(i) for i in range(MEASURED_STEPS)], reuse=2)
    assert 0.85 * 500 * 9 < cost.within < 500 * 9 and 500 * 4 < cost.between < 1.25 * 500 * 4
    assert (cost.view_seconds, cost.draw_seconds) == (16, 1), "renders twice, and the first step is left out"


def test_an_uncertain_or_small_gain_is_one_draw() -> None:
    assert chosen_draws(DrawCost(20.0, 1.0, 3.0, 1.0)) == 8
    assert chosen_draws(DrawCost(0.33, 1.0, 3.0, 1.0)) == 1
    assert chosen_draws(DrawCost(1.0, 0.0, 1.0, 1.0)) == draw_count.MAX_CHOSEN
    assert chosen_draws(DrawCost(1.05, 1.0, 1.9, 1.0)) == 1, "two draws would save less than 5%"
    assert chosen_draws(DrawCost(0.0, 0.0, 1.0, 1.0)) == 1
    steps = [MeasuredStep(1.0, (torch.zeros(3),), 1.0, 1.0)] * MEASURED_STEPS
    assert measured_cost(steps).between == 0, "a negative estimate"


def test_the_choice_is_used_reported_and_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draw_count, "measured_cost", lambda steps, reuse: DrawCost(20.0, 1.0, 3.0, 1.0))
    ours = stage()
    infos = [ours.step() for _ in range(MEASURED_STEPS + 2)]
    assert [info.values["draws"] for info in infos] == [2.0] * MEASURED_STEPS + [8.0] * 2
    notes = [info.notes for info in infos]
    assert notes[MEASURED_STEPS - 1][0].startswith("method.draws=auto: 8 per view") and sum(map(len, notes)) == 1
    resumed = stage()
    resumed.load_tensors({name: tensor.clone() for name, tensor in ours.tensors().items()})
    for each in (ours, resumed):
        each.step()
    first, second = ours.tensors(), resumed.tensors()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert resumed.distiller.draws == 8
    for wrong in (torch.tensor([99, 1]), torch.tensor([1.0, 1.0]), torch.tensor([2])):
        with pytest.raises(DamagedCheckpoint, match=r"method\.draws=auto"):
            resumed.load_tensors({**first, "draws.color": wrong})


def test_a_number_of_draws_is_not_measured() -> None:
    ours = stage(draws=3)
    assert ours.step().values["draws"] == 3 and not ours.draw_counts and "draws.color" not in ours.tensors()
    assert "draws" not in stage(draws=1).step().values


def test_measurements_start_with_the_stage_at_full_resolution_and_later() -> None:
    config = StageConfig(steps=100, resolution=64, warmup_resolution=32, warmup=0.305)
    distiller = SDSConfig(draws="auto").build(TwoModes())
    count = DrawCount(distiller, config)
    assert count.starts == [0, 31, 65] and math.ceil(0.305 * 100) == 31
    assert DrawCount(distiller, StageConfig(steps=100, resolution=64, warmup_resolution=64)).starts == [0, 65]
    short = StageConfig(steps=24, resolution=64, warmup_resolution=32, warmup=0.3)
    assert DrawCount(distiller, short).starts == [8], "measurements that would not end are left out"
    assert DrawCount(distiller, config, 0.5).starts == [31, 65], "it takes 32 steps"

    def add(values: int) -> str:
        return count.add(MeasuredStep(1.0, (torch.ones(values),), 1.0, 1.0))

    due = []
    for done in range(100):
        if count.is_due(done):
            due.append(done)
            add(2)
    assert due == [*range(16), *range(31, 47), *range(65, 81)]
    count.load(torch.tensor([1, 0]))
    for values in (2, 2, 2, 3):  # the scene changes its size within the second pair
        assert count.is_due(3) and not add(values)
    assert [len(step.gradient[0]) for step in count._steps] == [2, 2, 3]
    assert count.is_due(40) and not count._steps, "what did not end is left out"
