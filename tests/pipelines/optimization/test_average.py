"""The average of a stage's parameters: by hand, saved, applied at the end, refused where it is not defined."""

from __future__ import annotations

import pytest
import torch
from test_stage import Billboard, OneColorPrior
from torch import Tensor

from steindreamer.distill import SDSConfig
from steindreamer.pipelines.errors import DamagedCheckpoint, SettingsError
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.optimization.stage_config import StageConfig
from steindreamer.representations import GaussiansConfig, Representation

STEPS, DECAY = 6, 0.7


def _stage(ema: float = DECAY, seed: int = 0, scene: Representation | None = None) -> tuple[Stage, Representation]:
    prior, scene = OneColorPrior((0.9, 0.2, 0.4)), scene or Billboard()
    config = StageConfig(steps=STEPS, resolution=16, warmup=0, probe_every=0, ema=ema)
    return Stage(scene, SDSConfig().build(prior), prior, None, config, torch.Generator().manual_seed(seed)), scene


def _colors(stage: Stage) -> list[Tensor]:
    """The list that the color after every optimizer step is added to."""
    found: list[Tensor] = []
    (color,) = stage.representation.parameters()
    stage.optimizer.register_step_post_hook(lambda *_: found.append(color.detach().clone()))
    return found


def test_the_stage_ends_with_the_average_by_hand() -> None:
    stage, scene = _stage()
    colors = _colors(stage)
    (color,) = scene.parameters()
    for step in range(STEPS):
        assert step == 0 or torch.equal(color, colors[-1]), "training goes on from the last step, not the average"
        stage.step()
        weights = [DECAY ** (step - i) for i in range(step + 1)]
        total = sum((w * c.double() for w, c in zip(weights, colors, strict=True)), torch.zeros(3).double())
        expected = (total / sum(weights)).float()
        torch.testing.assert_close(stage.tensors()["average.color"], expected, rtol=1e-6, atol=1e-7)
    assert torch.equal(color, stage.tensors()["average.color"]) and not torch.equal(color, colors[-1])


def test_the_steps_are_those_without_an_average_to_the_bit() -> None:
    (averaged, _), (plain, scene) = _stage(), _stage(ema=0.0)
    found, expected = _colors(averaged), _colors(plain)
    for _ in range(STEPS):
        averaged.step()
        plain.step()
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    (color,) = scene.parameters()
    assert torch.equal(color, expected[-1])
    assert not any(name.startswith("average.") for name in plain.tensors())


def test_a_saved_state_continues_bitwise() -> None:
    (whole, _), (first, _), (second, _) = _stage(), _stage(), _stage(seed=9)
    for _ in range(STEPS):
        whole.step()
    for _ in range(3):
        first.step()
    second.load_tensors({name: tensor.detach().clone() for name, tensor in first.tensors().items()})
    for _ in range(3):
        second.step()
    expected, found = whole.tensors(), second.tensors()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_state_without_the_average_is_refused() -> None:
    (without, _), (stage, _) = _stage(ema=0.0), _stage()
    with pytest.raises(DamagedCheckpoint, match="the average is of nothing, not of color"):
        stage.load_tensors(without.tensors())
    wrong = stage.tensors() | {"average.color": torch.zeros(4)}
    with pytest.raises(DamagedCheckpoint, match=r"average of 'color' is torch\.float32 \(4,\), but the parameter is"):
        stage.load_tensors(wrong)


def test_scenes_that_change_their_size_are_refused() -> None:
    scene = GaussiansConfig(count=10).build(torch.Generator().manual_seed(0), torch.device("cpu"))
    with pytest.raises(SettingsError, match=r"stages\.coarse\.ema is 0\.7, but Gaussians .* set stages\.coarse\.ema=0"):
        _stage(scene=scene)
