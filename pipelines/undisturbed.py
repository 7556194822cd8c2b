"""Trying components out without leaving a trace: random streams and the states of components are put back afterwards.

A run that was rehearsed must be the same bits as one that was not.
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
"""Elements of a plain tensor that is copied: what is larger are weights, which calls without a gradient leave alone."""


@contextmanager
def undisturbed(components: Iterable[object], device: torch.device) -> Iterator[None]:
    """Put back the global random streams, and what calls change in `components`, when the block ends.

    That is, in the attributes of a component: buffers and training modes of modules, plain tensors, generators,
    numbers, and the tops of lists and dictionaries. What a component has made on its first call (a model that it loads
    when it is first asked) stays.
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
    """What puts a component back into the state that it is in now."""
    if isinstance(component, nn.Module):
        yield _module(component)
    attributes = getattr(component, "__dict__", {})
    for name, value in list(attributes.items()):
        if type(value) in (int, float):
            yield lambda name=name, value=value: attributes.__setitem__(name, value)
        elif (restore := _restorer(value)) is not None:
            yield restore


def _restorer(value: Any) -> Callable[[], object] | None:
    """None for what is not looked into."""
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
