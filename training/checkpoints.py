"""Checkpoints, settings and learning-rate schedules of trainings that can be resumed and extended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from steindreamer.atomic_file import write_atomically


def save_checkpoint(
    path: Path, model: nn.Module, average: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, steps_done: int
) -> None:
    """Save everything needed to resume, atomically."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    tensors["steps_done"] = torch.tensor(steps_done)
    write_atomically(path, save({name: value.contiguous() for name, value in tensors.items()}))


def load_checkpoint(
    path: Path, model: nn.Module, average: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> int:
    """Restore the model, its moving average and its optimizer; returns the number of steps done."""
    tensors = load_file(path)
    model.load_state_dict(_under("model.", tensors))
    saved = _under("average.", tensors)
    for name, value in average.items():
        value.copy_(saved[name])
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _under("optimizer.", tensors).items():
        index, key = name.split(".")
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    return int(tensors["steps_done"])


def check_settings(path: Path, described: Mapping[str, Any]) -> None:
    """Write the settings into the folder of a new run. Raises ValueError if it holds a run with other settings."""
    text = json.dumps(described, indent=1)
    if not path.exists():
        path.write_text(text)
    elif path.read_text() != text:
        raise ValueError(f"{path} holds other settings: choose another folder, or give the same settings to go on")


def learning_rate_factor(steps_done: int, steps: int, warm_up: int, cool_down: float) -> float:
    """Return the learning-rate factor of a step.

    The factor rises to 1 over `warm_up` steps and falls to 0 over the last fraction `cool_down` of all steps.
    """
    warm = min(1.0, (steps_done + 1) / warm_up)
    cool = min(1.0, (steps - steps_done) / max(cool_down * steps, 1))
    return warm * cool


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
