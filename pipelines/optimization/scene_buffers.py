"""Saving and restoring the buffers of a scene, which renderers change."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn


def snapshot_buffers(module: nn.Module) -> Callable[[], None]:
    """Save the values of a module's buffers; the returned function restores them. Their shapes must not change in
    between.
    """
    kept = {name: buffer.clone() for name, buffer in module.named_buffers()}

    def restore() -> None:
        for name, buffer in module.named_buffers():
            buffer.copy_(kept[name])

    return restore
