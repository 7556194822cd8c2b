"""The choice of what draws: compiled code for the CPU; on CUDA a package if it is installed, else readable torch."""

from __future__ import annotations

from collections.abc import Collection
from importlib.util import find_spec

from torch import Tensor


def check_known(kind: str, backend: str, known: Collection[str]) -> None:
    """Raises ValueError for a name that is neither `auto` nor one of the known; `kind`: what it does."""
    if backend != "auto" and backend not in known:
        raise ValueError(f"unknown {kind} backend {backend!r}; choose one of {['auto', *known]}")


def chosen(backend: str, tensor: Tensor, package: str) -> str:
    """The backend for this tensor, where `auto` on CUDA is `package` or `torch`."""
    if backend != "auto":
        return backend
    # The package can be installed, and imports, without a CUDA device: the tensors decide first.
    if not tensor.is_cuda:
        return "cpu"
    return package if find_spec(package) else "torch"
