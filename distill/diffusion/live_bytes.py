"""How many bytes of tensors are alive while something runs, on any device; on "meta" nothing is computed."""

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
    """Counts the tensors that operations make while it is entered; what was there before counts nothing.

    Temporary memory inside of one operation, such as a convolution's workspace, is not seen.
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
    """For code on the device "meta": count it with fused attention, which CUDA and the CPU have and "meta" has not."""
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
    """One operation that never holds the matrix of weights.

    It keeps for the backward pass what the CUDA kernels keep: inputs, output and one number per query.
    """
    del enable_gqa  # grouped queries, which no text-to-image model has
    fused = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return fused(query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale)[0]


def on_meta(holder: Holder, modules: Iterable[nn.Module]) -> Holder:
    """A deep copy of what holds the modules, in which their weights have shapes only."""
    weights: dict[int, Any] = {}
    for module in modules:
        weights |= {id(p): nn.Parameter(p.to("meta"), p.requires_grad) for p in module.parameters()}
        weights |= {id(buffer): buffer.to("meta") for buffer in module.buffers()}
    return copy.deepcopy(holder, weights)


def weight_bytes(module: nn.Module) -> int:
    """Of parameters and buffers; what is shared counts once."""
    storages = {id(t): t.numel() * t.element_size() for t in (*module.parameters(), *module.buffers())}
    return sum(storages.values())


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
