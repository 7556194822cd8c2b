"""What lets a training go on: checkpoints, the settings of a run's folder, learning rates that permit more steps."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def save_checkpoint(
    path: Path, model: nn.Module, average: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, steps_done: int
) -> None:
    """Everything needed to go on, atomically."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"average.{name}": value for name, value in average.items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    tensors["steps_done"] = torch.tensor(steps_done)
    temporary = path.with_suffix(".partial")
    save_file({name: value.contiguous() for name, value in tensors.items()}, temporary)
    os.replace(temporary, path)


def load_checkpoint(
    path: Path, model: nn.Module, average: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> int:
    """Fill the model, its average and its optimizer with what was saved; returns the number of steps done."""
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
    """Write the settings into a new run's folder. Raises ValueError if the folder holds a run of other settings."""
    text = json.dumps(described, indent=1)
    if not path.exists():
        path.write_text(text)
    elif path.read_text() != text:
        raise ValueError(f"{path} holds other settings: choose another folder, or give the same settings to go on")


def learning_rate_factor(steps_done: int, steps: int, warm_up: int, cool_down: float) -> float:
    """Rises over `warm_up` steps, falls to 0 over the last `cool_down` share of them, and is 1 between."""
    warm = min(1.0, (steps_done + 1) / warm_up)
    cool = min(1.0, (steps - steps_done) / max(cool_down * steps, 1))
    return warm * cool


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
