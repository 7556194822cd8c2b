"""An optimiser's state in a module's state dict: named tensors, so that checkpoints need no pickle."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def save_optimizer(
    optimizer: torch.optim.Optimizer, module: nn.Module, destination: dict[str, Any], prefix: str
) -> None:
    """Write the state of every parameter of `module`, all of which `optimizer` has, as `prefix`NAME.KEY."""
    for name, parameter in module.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            destination[f"{prefix}{name}.{key}"] = value


def load_optimizer(
    optimizer: torch.optim.Optimizer, module: nn.Module, state_dict: dict[str, Any], prefix: str
) -> None:
    """Take what `save_optimizer` wrote out of `state_dict`; parameters it does not name have no state afterwards."""
    state = {}
    for index, (name, _) in enumerate(module.named_parameters()):
        own = f"{prefix}{name}."
        values = {key.removeprefix(own): state_dict.pop(key).clone() for key in list(state_dict) if key.startswith(own)}
        if values:
            state[index] = values
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
