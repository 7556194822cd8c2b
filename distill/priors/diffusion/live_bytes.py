"""Measurement of the bytes of live tensors during a computation, on any device; on "meta" no values are computed."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

Holder = TypeVar("Holder")


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors created while it is entered; tensors that existed before are not counted.

    Temporary memory within one operation, such as a convolution's workspace, is not included.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = 0
        """Bytes of what was made and is still alive."""
        self.peak = 0
        """The most that `now` has been."""
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        for tensor in _tensors((args, kwargs)):
            self._notice(tensor, made=False)
        result = func(*args, **(kwargs or {}))
        for tensor in _tensors(result):
            self._notice(tensor, made=True)
        return result

    def _notice(self, tensor: Tensor, *, made: bool) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._known:
            return
        size = storage.nbytes() if made else 0
        self._known.add(storage._cdata)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, storage._cdata, size)

    def _forget(self, storage: int, size: int) -> None:
        self._known.discard(storage)
        self.now -= size


@contextmanager
def counted() -> Iterator[LiveBytes]:
    """Count a computation on the device "meta" with fused attention, which CUDA and the CPU have and "meta" lacks."""
    with torch.library._scoped_library("aten", "IMPL") as library, LiveBytes() as counter:
        library.impl("scaled_dot_product_attention", fused_attention, "AutogradMeta")
        yield counter


def fused_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Attention as one operation that never stores the attention matrix.

    Like the CUDA kernels, it saves inputs, output and one number per query for the backward pass.
    """
    del enable_gqa  # grouped queries, which no text-to-image model has
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return fused(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]


def on_meta(holder: Holder, modules: Iterable[nn.Module]) -> Holder:
    """A deep copy of the object that holds the modules, with their weights on the device "meta"."""
    weights: dict[int, Any] = {}
    for module in modules:
        weights |= {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in module.parameters()}
        weights |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    return copy.deepcopy(holder, weights)


def weight_bytes(module: nn.Module) -> int:
    """Bytes of parameters and buffers; shared ones count once."""
    storages = {id(t): t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers())}
    return sum(storages.values())


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
