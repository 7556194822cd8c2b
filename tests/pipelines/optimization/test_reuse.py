"""Several optimizer steps per step: the first is the method's own, the others need no prediction."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from test_stage import Billboard, OneColorPrior
from torch import Tensor, nn

from steindreamer.distill import METHODS
from steindreamer.distill.variance.probe import count_predictions
from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.errors import SettingsError
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.optimization.stage_config import StageConfig
from steindreamer.pipelines.optimization.views import ViewsConfig
from steindreamer.pipelines.runs.pipeline import Pipeline

SMALL = {
    "gaussians": ["representation.count=200", "representation.densify={interval: 2, start: 0, minimum_count: 0}"],
    "nerf": ["representation.samples=16", "representation.radiance.hash_grid={levels: 2, log2_size: 8}"],
    "mesh": ["representation.resolution=12", "representation.color.grid={levels: 2, log2_size: 8}"],
}
"""The smallest scenes; the Gaussians densify in every second step."""


def _stage_of(representation: str, *settings: str) -> Stage:
    """The first stage of a run on the exact prior, with everything that a step may hold."""
    everything = [
        "prior.name=world", "prior.objects=1", "export.enabled=false", "refine=false", *SMALL[representation],
        *(f"stages.coarse.{setting}" for setting in (
            "steps=20", "resolution=16", "warmup=0", "probe_every=0", "environment=true",
            "shading={enabled: true, begin: 0, shaded: 1}", "modalities={color: 1, normal: 1}",
            "regularizers={transparency: 1}",
        )),
    ]  # fmt: skip
    return Pipeline(
        load_config(None, representation=representation, prompt="a red mug", overrides=[*everything, *settings])
    ).first()


def _billboard(prior: OneColorPrior | None = None, method: str = "sds", **settings: Any) -> tuple[Stage, Billboard]:
    prior, scene = prior or OneColorPrior((0.9, 0.2, 0.4)), Billboard()
    config = StageConfig(steps=20, resolution=16, warmup=0, views=ViewsConfig(), probe_every=0, **settings)
    distiller = METHODS[method]().build(prior, None)
    return Stage(scene, distiller, prior, None, config, torch.Generator().manual_seed(0)), scene


def _parameters(stage: Stage) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in stage.representation.named_parameters()}


def _after_each_optimizer_step(stage: Stage) -> list[dict[str, Tensor]]:
    """The list that the parameters are added to."""
    found: list[dict[str, Tensor]] = []
    stage.optimizer.register_step_post_hook(lambda *_: found.append(_parameters(stage)))
    return found


def _equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("representation", SMALL)
def test_the_first_optimizer_step_is_that_of_a_plain_step_to_the_bit(representation: str) -> None:
    plain, reusing = _stage_of(representation), _stage_of(representation, "stages.coarse.reuse=3")
    own, several = _after_each_optimizer_step(plain), _after_each_optimizer_step(reusing)
    infos = [stage.step() for stage in (plain, reusing)]
    assert len(own) == 1 and len(several) == 3
    assert _equal(own[0], several[0])
    assert not _equal(several[0], several[1]) and not _equal(several[1], several[2])
    assert infos[0].loss == infos[1].loss and infos[0].values == infos[1].values
    one, other = plain.tensors(), reusing.tensors()
    learned = [name for name in one if name.startswith(("distiller.", "counters", "generator"))]
    assert learned and all(torch.equal(one[name], other[name]) for name in learned), "it draws and learns once"


@pytest.mark.parametrize("representation", SMALL)
def test_a_saved_state_continues_bitwise(representation: str) -> None:
    whole, first, second = (_stage_of(representation, "stages.coarse.reuse=2", f"seed={seed}") for seed in (0, 0, 5))
    for _ in range(4):
        whole.step()
    for _ in range(2):
        first.step()
    second.load_tensors({name: tensor.detach().clone() for name, tensor in first.tensors().items()})
    for _ in range(2):
        second.step()
    assert _equal(whole.tensors(), second.tensors())


def test_further_optimizer_steps_request_no_prediction() -> None:
    counts = []
    for reuse in (1, 4):
        stage, _ = _billboard(method="ssd", reuse=reuse)
        with count_predictions(stage.distiller) as counter:
            stage.step()
        counts.append(counter.predictions)
    assert counts[0] == counts[1] > 0


def test_they_go_on_to_the_predicted_image() -> None:
    """The prior predicts one color from any sample, so that one request to it is enough."""
    stage, scene = _billboard(reuse=80)
    stage.step()
    torch.testing.assert_close(scene.color.detach(), torch.tensor([0.9, 0.2, 0.4]), atol=0.02, rtol=0)
    stage, scene = _billboard()
    stage.step()
    assert float((scene.color.detach() - 0.5).abs().max()) < 0.03


def test_regularizers_act_in_every_optimizer_step() -> None:
    """Far stronger than the prior, a regularizer on the color lowers it in each of them by the learning rate."""
    stage, _ = _billboard(reuse=3, regularizers={"brightness": 1e6})
    colors = _after_each_optimizer_step(stage)
    stage.step()
    assert [float(each["color"].mean()) for each in colors] == pytest.approx([0.48, 0.46, 0.44], abs=1e-3)


def test_a_view_stays_with_its_particle() -> None:
    stage = _stage_of("mesh", "particles=2", "stages.coarse.views.per_step=1", "stages.coarse.reuse=3")
    before = _parameters(stage)
    stage.step()
    changed = {name.split(".")[1] for name, value in _parameters(stage).items() if not torch.equal(value, before[name])}
    assert changed == {"0"}


class BreaksLater(OneColorPrior):
    """Encodes to NaN from its second call on."""

    calls = 0

    def encode(self, image: Tensor) -> Tensor:
        self.calls += 1
        return super().encode(image) * (math.nan if self.calls > 1 else 1)


def test_an_optimizer_step_that_is_not_finite_ends_the_reuse_with_a_line() -> None:
    stage, scene = _billboard(BreaksLater((0.9, 0.2, 0.4)), reuse=3)
    plain, other = _billboard()
    info, _ = stage.step(), plain.step()
    assert torch.equal(scene.color, other.color)
    assert info.notes == ("optimizer steps 2 to 3 left out, the loss 'total' is not finite",) and not info.skipped


def test_a_method_with_a_trained_counterpart_is_refused() -> None:
    stage, scene = _billboard()
    stage.distiller.learned_score = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    config = StageConfig(reuse=2)
    with pytest.raises(SettingsError, match=r"stages\.coarse\.reuse is 2, but .* set stages\.coarse\.reuse=1"):
        Stage(scene, stage.distiller, stage.prior, None, config, torch.Generator())
