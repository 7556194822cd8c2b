"""The sampler named by a model's `scheduler_config.json`, as a description of the noise levels it was trained on.

The sampler's steps are not used here, only its noise levels and prediction type. Settings that a file omits have the
defaults of the class it names, which differ between classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...files.json_files import read_json_object
from ...third_party.errors import foreign_errors
from ...third_party.quiet import quiet

WITH_BETAS = (
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DDIMInverseScheduler",
    "PNDMScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverSinglestepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverMultistepInverseScheduler",
    "DPMSolverSDEScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "SASolverScheduler",
    "UnCLIPScheduler",
    "LCMScheduler",
    "TCDScheduler",
)
"""Sampler classes of diffusers for variance-preserving models with an integer timestep as input."""
OF_FLOWS = ("FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "FlowMatchLCMScheduler")
"""Sampler classes of diffusers for rectified flows."""
MOST_TIMESTEPS = 100_000
_ROUNDING = 1e-7
FILE = "scheduler/scheduler_config.json"


def read_sampler(folder: Path, index: Mapping[str, Any]) -> Any:
    """Load the diffusers sampler of the model in a folder; `index` is its model_index.json.

    Raises ValueError for settings that its class does not accept, and for a class that is not listed above.
    """
    import diffusers

    given = read_json_object(folder / FILE)
    listed = index.get("scheduler")
    named = given.get("_class_name", listed[1] if isinstance(listed, list) and len(listed) == 2 else None)
    if named not in (*WITH_BETAS, *OF_FLOWS):
        raise ValueError(
            f"is sampled by {named!r} ({FILE}), whose noise levels are not supported; supported are samplers with "
            f"betas, such as {', '.join(WITH_BETAS[:8:2])}, and for flows {' and '.join(OF_FLOWS)}"
        )
    steps = given.get("num_train_timesteps", 1000)
    if not isinstance(steps, int) or isinstance(steps, bool) or not 2 <= steps <= MOST_TIMESTEPS:
        raise ValueError(
            f"has {steps!r} as num_train_timesteps ({FILE}); whole numbers in [2, {MOST_TIMESTEPS}] are accepted"
        )
    with foreign_errors(f"has settings of {named} that it does not take ({FILE})"), quiet(diffusers):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy warnings about the sampler's step spacing
            return getattr(diffusers, named).from_config(given)


def noise_levels(sampler: Any) -> torch.Tensor:
    """Noise levels alpha^2 by timestep of a variance-preserving model.

    Raises ValueError for a sampler of flows or of continuous time, and for invalid betas.
    """
    name, config = type(sampler).__name__, sampler.config
    strange = {
        "use_flow_sigmas": config.get("use_flow_sigmas", False) is not False,
        "timestep_type": config.get("timestep_type", "discrete") != "discrete",
    }
    if name not in WITH_BETAS or any(strange.values()):
        what = next((f"{key}={config[key]!r}" for key, is_strange in strange.items() if is_strange), name)
        raise ValueError(f"is sampled with {what} ({FILE}); for this family samplers with betas are accepted")
    levels, betas, steps = sampler.alphas_cumprod, sampler.betas, config.num_train_timesteps
    # Pure noise at the end is 0 or, in some samplers, slightly above the previous level. NaN fails every comparison.
    falling = levels.shape == (steps,) and bool((levels.diff() <= _ROUNDING).all())
    if not (falling and bool(((betas >= 0) & (betas <= 1)).all()) and 0 < float(levels[0]) < 1):
        raise ValueError(
            f"has betas that are not valid noise levels ({FILE}): alpha^2 must fall from below 1 to 0 or more in "
            f"{steps} steps"
        )
    return levels
