"""Trial calls of components without side effects: random states and the state of components are restored afterward.

A run with these calls is bit-identical to one without them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

_LARGEST = 2**22
"""Maximum number of elements of a plain tensor that is copied. Larger tensors are weights, which calls without a
gradient do not change."""


@contextmanager
def undisturbed(components: Iterable[object], device: torch.device) -> Iterator[None]:
    """Restore the global random states, and the state that calls change in `components`, when the block ends.

    The restored state is in the attributes of a component: buffers and training modes of modules, plain tensors,
    generators, numbers, and the top levels of lists and dictionaries. Objects that a component creates on its first
    call, such as a model that it loads lazily, are kept.
    """
    undo = [restore for component in components for restore in _restorers(component)]
    python, arrays = random.getstate(), np.random.get_state()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for restore in undo:
                restore()
            random.setstate(python)
            np.random.set_state(arrays)


def _restorers(component: object) -> Iterator[Callable[[], object]]:
    """Functions that restore the current state of a component."""
    if isinstance(component, nn.Module):
        yield _module(component)
    attributes = getattr(component, "__dict__", {})
    for name, value in list(attributes.items()):
        if type(value) in (int, float):
            yield lambda name=name, value=value: attributes.__setitem__(name, value)
        elif (restore := _restorer(value)) is not None:
            yield restore


def _restorer(value: Any) -> Callable[[], object] | None:
    """Function that restores a value; None for types that are not inspected."""
    if isinstance(value, nn.Module):
        return _module(value)
    if isinstance(value, Tensor) and value.numel() <= _LARGEST and not value.is_meta:
        return _tensors([value])
    if isinstance(value, torch.Generator):
        state = value.get_state()
        return lambda: value.set_state(state)
    if isinstance(value, random.Random):
        drawn = value.getstate()
        return lambda: value.setstate(drawn)
    if isinstance(value, np.random.Generator):
        bits = value.bit_generator.state
        return lambda: setattr(value.bit_generator, "state", bits)
    if isinstance(value, list):
        entries = list(value)
        return lambda: value.__setitem__(slice(None), entries)
    return None


def _module(module: nn.Module) -> Callable[[], object]:
    buffers, training = _tensors(list(module.buffers())), {each: each.training for each in module.modules()}

    def restore() -> None:
        buffers()
        for each, mode in training.items():
            each.training = mode

    return restore


def _tensors(tensors: list[Tensor]) -> Callable[[], object]:
    kept = [(tensor, tensor.detach().clone()) for tensor in tensors if not tensor.is_meta]

    @torch.no_grad()
    def restore() -> None:
        for tensor, value in kept:
            if tensor.shape == value.shape and not torch.equal(tensor, value):
                tensor.copy_(value)

    return restore
