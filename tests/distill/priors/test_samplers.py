"""Noise levels are those of the sampler that a model names, its own defaults included; others are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_diffusion_models import save_tiny_model

from steindreamer.distill.priors.diffusion import DiffusersPrior
from steindreamer.distill.priors.diffusion.samplers import OF_FLOWS, WITH_BETAS, noise_levels, read_sampler

diffusers: Any = pytest.importorskip("diffusers")

CPU = torch.device("cpu")


def _levels(folder: Path, index: dict[str, Any] | None = None, **given: Any) -> torch.Tensor:
    (folder / "scheduler").mkdir(exist_ok=True)
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(given))
    return noise_levels(read_sampler(folder, index or {}))


@pytest.mark.parametrize("name", [name for name in WITH_BETAS if name != "DPMSolverSDEScheduler"])
def test_what_is_left_out_has_the_defaults_of_the_class(name: str, tmp_path: Path) -> None:
    """Stated once more: betas from start to end, evenly or evenly in their roots."""
    levels = _levels(tmp_path, _class_name=name)
    wide = ("Heun", "KDPM2", "LCM", "TCD")
    if name == "UnCLIPScheduler":
        assert 0 < levels[-1] < 1e-6
        return
    start, end = (0.00085, 0.012) if name.startswith(wide) else (0.0001, 0.02)
    power = 2 if name.startswith(("LCM", "TCD")) else 1
    betas = torch.linspace(start ** (1 / power), end ** (1 / power), 1000, dtype=torch.float64) ** power
    torch.testing.assert_close(levels.double(), torch.cumprod(1 - betas, 0), rtol=1e-4, atol=1e-7)


def test_the_index_names_the_class_where_the_file_does_not(tmp_path: Path) -> None:
    levels = _levels(tmp_path, {"scheduler": ["diffusers", "HeunDiscreteScheduler"]})
    assert torch.equal(levels, _levels(tmp_path, _class_name="HeunDiscreteScheduler"))
    other = {"scheduler": ["diffusers", "DDIMScheduler"]}
    assert torch.equal(levels, _levels(tmp_path, other, _class_name="HeunDiscreteScheduler"))


@pytest.mark.parametrize("name", ["DDIMScheduler", "EulerDiscreteScheduler"])
def test_given_betas_and_zero_terminal_noise_are_heeded(name: str, tmp_path: Path) -> None:
    betas = [0.1, 0.2, 0.3]
    given = _levels(tmp_path, _class_name=name, trained_betas=betas, num_train_timesteps=3)
    torch.testing.assert_close(given, torch.tensor([0.9, 0.72, 0.504]))
    zero = _levels(tmp_path, _class_name=name, rescale_betas_zero_snr=True)
    assert 0 <= zero[-1] < 1e-7 < zero[-10]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        *(
            ({"_class_name": name}, "accepted|supported are")
            for name in ("EDMEulerScheduler", "IPNDMScheduler", *OF_FLOWS)
        ),
        *(
            ({"_class_name": name}, "supported are")
            for name in (None, ["DDIMScheduler"], {}, "os", "ScoreSdeVeScheduler")
        ),
        ({"_class_name": "CogVideoXDDIMScheduler"}, "supported are"),
        ({}, "is sampled by None"),
        ({"_class_name": "DDIMScheduler", "beta_schedule": "sine"}, "does not take .*sine"),
        ({"_class_name": "DDIMScheduler", "beta_start": "low"}, "does not take"),
        ({"_class_name": "DDIMScheduler", "beta_start": float("nan")}, "not valid noise levels"),
        ({"_class_name": "DDIMScheduler", "beta_start": 0.0, "beta_end": 0.0}, "not valid noise levels"),
        ({"_class_name": "DDIMScheduler", "beta_end": 3.0}, "not valid noise levels"),
        ({"_class_name": "DDIMScheduler", "beta_start": -0.1}, "not valid noise levels"),
        ({"_class_name": "DDIMScheduler", "trained_betas": [0.1, 0.2]}, "not valid noise levels"),
        *(
            ({"_class_name": "DDIMScheduler", "num_train_timesteps": n}, "num_train")
            for n in (10**10, 1e10, 1, "x", True)
        ),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "use_flow_sigmas=True"),
        ({"_class_name": "EulerDiscreteScheduler", "timestep_type": "continuous"}, "timestep_type='continuous'"),
    ],
)
def test_levels_that_are_not_known_are_refused(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=said) as error:
        _levels(tmp_path, **given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("pipeline", "given", "said"),
    [
        (
            "StableDiffusionPipeline",
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            "for this family samplers with",
        ),
        ("StableDiffusionPipeline", {"_class_name": "DDIMScheduler", "prediction_type": "flow"}, "predicts 'flow'"),
        ("StableDiffusionPipeline", {"_class_name": "DDIMScheduler", "prediction_type": ["v"]}, r"predicts \['v'\]"),
        ("StableDiffusion3Pipeline", {"_class_name": "DDIMScheduler"}, "is sampled by DDIMScheduler of 1000 steps"),
        (
            "StableDiffusion3Pipeline",
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 500},
            "of 500 steps",
        ),
        (
            "StableDiffusion3Pipeline",
            {"_class_name": "FlowMatchEulerDiscreteScheduler", "invert_sigmas": True},
            "invert_sigmas=True",
        ),
    ],
)
def test_a_sampler_of_another_family_is_refused(
    pipeline: str, given: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = save_tiny_model(tmp_path, pipeline)
    (folder / "scheduler/scheduler_config.json").write_text(json.dumps(given))
    with pytest.raises(ValueError, match=said) as error:
        DiffusersPrior(str(folder), CPU, image_size=64)
    assert str(folder) in str(error.value) and "\n" not in str(error.value)
