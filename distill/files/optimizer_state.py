"""An optimizer's state in a module's state dict: named tensors, so that checkpoints need no pickle."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def save_optimizer(
    optimizer: torch.optim.Optimizer, module: nn.Module, destination: dict[str, Any], prefix: str
) -> None:
    """Write the optimizer's state of every parameter of `module` to `destination`, as `prefix`NAME.KEY.

    The optimizer must hold all parameters of `module`.
    """
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            destination[f"{prefix}{name}.{key}"] = value


def load_optimizer(
    optimizer: torch.optim.Optimizer, module: nn.Module, state_dict: dict[str, Any], prefix: str
) -> None:
    """Restore the state written by `save_optimizer` and remove it from `state_dict`.

    Parameters that are not in it have no state afterward.
    """
    state = {}
    for index, (name, _) in enumerate(module.named_parameters()):
        own = f"{prefix}{name}."
        values = {key.removeprefix(own): state_dict.pop(key).clone() for key in list(state_dict) if key.startswith(own)}
        if values:
            state[index] = values
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
