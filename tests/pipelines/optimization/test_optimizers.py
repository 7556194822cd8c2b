"""The optimizers of a stage: torch's own steps, and a state that is saved whole."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from steindreamer.distill import ExactPrior, GaussianMixture, MixtureCondition, NoiseSchedule, SDSConfig
from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.errors import DamagedCheckpoint, SettingsError
from steindreamer.pipelines.optimization.optimizers import OptimizerConfig
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.optimization.stage_config import StageConfig
from steindreamer.representations import GaussiansConfig
from steindreamer.representations.gaussians.densification import DensifyConfig

NAMES = ["adam", "adamw", "nadam", "radam"]
SIZE = 16


class GrayPrior(ExactPrior):
    """Knows one blurred gray image."""

    def __init__(self) -> None:
        super().__init__(NoiseSchedule.scaled_linear(), torch.device("cpu"))
        self.mixture = GaussianMixture.isotropic(torch.zeros(1, 3, SIZE, SIZE), 0.3)

    def embed(self, prompt: str, negative_prompt: str = "") -> None:
        return None

    def condition(self, embedding: Any, cameras: Any, background: Any) -> MixtureCondition:
        return MixtureCondition(self.mixture, lambda: self.mixture)


def _stage(seed: int = 0, **settings: Any) -> Stage:
    """Gaussians that grow in every second step, with a learned background."""
    prior, generator = GrayPrior(), torch.Generator().manual_seed(seed)
    densify = DensifyConfig(interval=2, start=0.0, minimum_count=0)
    scene = GaussiansConfig(count=40, densify=densify).build(generator, prior.device)
    config = StageConfig(
        steps=20, resolution=SIZE, warmup=0.0, environment=True, probe_every=0, optimizer=OptimizerConfig(**settings)
    )
    return Stage(scene, SDSConfig().build(prior, None), prior, None, config, generator)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_state_continues_bitwise(name: str) -> None:
    whole, first, second = _stage(name=name), _stage(name=name), _stage(99, name=name)
    for _ in range(9):
        whole.step()
    for _ in range(5):
        first.step()
    second.load_tensors({key: tensor.detach().clone() for key, tensor in first.tensors().items()})
    for _ in range(4):
        second.step()
    expected, found = whole.tensors(), second.tensors()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert any(key.startswith("optimizer.environment.") for key in found)


def test_the_state_of_another_optimizer_is_refused() -> None:
    nadam, adam = _stage(name="nadam"), _stage()
    nadam.step()
    with pytest.raises(
        DamagedCheckpoint, match="state of 'means' has the unexpected keys exp_avg, exp_avg_sq, mu_product, step"
    ):
        adam.load_tensors(nadam.tensors())


@pytest.mark.parametrize("name", NAMES)
def test_settings_reach_the_optimizer(name: Any) -> None:
    config = OptimizerConfig(name, [0.5, 0.75], 1e-3, 0.25)
    (group,) = config.build([{"name": "x", "params": [nn.Parameter(torch.ones(2))], "lr": 0.1}]).param_groups
    assert (group["betas"], group["eps"], group["weight_decay"], group["lr"]) == ((0.5, 0.75), 1e-3, 0.25, 0.1)


def test_weight_decay_is_decoupled_in_adamw_only() -> None:
    """The first step of Adam is the learning rate, whatever the gradient; decoupled decay comes on top."""
    moved = {}
    for name in ("adam", "adamw"):
        parameter = nn.Parameter(torch.tensor([2.0]))
        optimizer = OptimizerConfig(name, weight_decay=0.5).build([{"name": "x", "params": [parameter], "lr": 0.1}])
        parameter.grad = torch.tensor([3.0])
        optimizer.step()
        moved[name] = 2 - parameter.item()
    assert moved["adam"] == pytest.approx(0.1) and moved["adamw"] == pytest.approx(0.1 + 0.1 * 0.5 * 2)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("name=sgd", "optimizer.name is 'sgd'.*accepted: adam, adamw, nadam, radam"),
        ("betas=[0.9]", r"optimizer.betas is \[0.9\]; give two numbers"),
        ("betas=[0.9, 1]", r"optimizer.betas\[1\] is 1.*below 1"),
        ("eps=0", "optimizer.eps is 0.*above 0"),
        ("weight_decay=-1", "optimizer.weight_decay is -1"),
    ],
)
def test_bad_settings_are_refused(setting: str, message: str) -> None:
    with pytest.raises(SettingsError, match=rf"stages.coarse.{message}"):
        load_config("cpu", overrides=[f"stages.coarse.optimizer.{setting}"])


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_fused_steps_equal_plain_ones(name: Any) -> None:
    """Up to the rounding of single precision; rows without a gradient stay as they are."""
    generator, moved = torch.Generator().manual_seed(0), []
    start, gradients = torch.randn(50, 3, generator=generator), torch.randn(20, 50, 3, generator=generator)
    gradients[:, 10:] = 0
    for fused in (True, False):
        parameter = nn.Parameter(start.clone())
        optimizer = OptimizerConfig(name).build([{"name": "x", "params": [parameter], "lr": 0.01}])
        optimizer.param_groups[0] |= {"fused": fused, "foreach": False}
        for gradient in gradients:
            parameter.grad = gradient.clone()
            optimizer.step()
        moved.append(parameter.detach() - start)
    torch.testing.assert_close(*moved, rtol=1e-4, atol=1e-6)
    assert not moved[0][10:].any() and moved[0][:10].abs().max() > 0.05
