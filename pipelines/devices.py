"""The device that a scene is on."""

from __future__ import annotations

import torch


def device_of(scene: object) -> torch.device:
    """The device of a representation's parameters; the CPU if it has none."""
    parameter = next(scene.parameters(), None) if isinstance(scene, torch.nn.Module) else None
    return torch.device("cpu") if parameter is None else parameter.device
