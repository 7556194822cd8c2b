"""CUDA without a CUDA machine: tensors that say they are on a GPU, compute on the CPU, and refuse what a GPU refuses.

Inside `fake_cuda()`, whatever is made on or moved to "cuda" is a `FakeCudaTensor`: real numbers, real gradients, sizes
that depend on data, but any operation that brings one together with a tensor of the CPU raises `MixedDevices`, as does
`.numpy()`, or drawing with a generator of the CPU. (`torch._subclasses.FakeTensorMode` does this without numbers, so it
stops at the first `nonzero`, and its gradients abort the process where torch is built without CUDA.)

What it cannot show: kernels of CUDA packages (gsplat, nvdiffrast), numba's (they ask for `.numpy()`, which is refused),
half precision as GPUs round it, memory, speed, streams, `torch.compile`, and random numbers drawn on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

CUDA, META, CPU = torch.device("cuda:0"), torch.device("meta"), torch.device("cpu")
aten = torch.ops.aten
MOVES = (aten._to_copy.default, aten.copy_.default)
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)
"""Positions may come from the CPU."""
FROM_PYTHON = (torch.tensor, torch.as_tensor, torch.asarray)


class MixedDevices(RuntimeError):
    """What a GPU would have refused."""


class FakeCudaTensor(torch.Tensor):
    """For autograd it is on the meta device, which needs no library; for Python on CUDA."""

    kept: torch.Tensor
    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls, values: torch.Tensor) -> FakeCudaTensor:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=META,
        )

    def __init__(self, values: torch.Tensor) -> None:
        self.kept = values

    @property
    def data(self) -> torch.Tensor:
        return self.detach()

    @data.setter
    def data(self, other: torch.Tensor) -> None:
        assert isinstance(other, FakeCudaTensor), "a parameter stays where it is"
        torch.Tensor.data.__set__(self, other)  # type: ignore[attr-defined]
        self.kept = other.kept

    def numpy(self, *, force: bool = False) -> Any:
        raise MixedDevices("numpy() of a tensor on cuda")

    def tolist(self) -> Any:
        return self.kept.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    fakes = [tensor for tensor in tensors if isinstance(tensor, FakeCudaTensor)]
    if any(type(tensor) is torch.Tensor and tensor.is_meta for tensor in tensors):
        raise AssertionError(f"{func}: torch has made a tensor behind our back, which holds no numbers")
    asked = kwargs.get("device")
    on_cuda = bool(fakes) if asked is None else asked.type in ("meta", "cuda")
    if func in INDEXING:
        tensors = [tensor for tensor in (args[0], *args[2:3]) if isinstance(tensor, torch.Tensor)]
    # Numbers of the CPU may meet anything.
    others = [tensor for tensor in tensors if not isinstance(tensor, FakeCudaTensor) and tensor.dim()]
    if fakes and others and func not in MOVES:
        raise MixedDevices(
            f"{func}: {len(fakes)} tensors on cuda meet one of shape {tuple(others[0].shape)} on the CPU"
        )
    if isinstance(kwargs.get("generator"), torch.Generator) and on_cuda:
        raise MixedDevices(f"{func}: a generator of the CPU draws for cuda")

    given, kwargs_given = args, kwargs
    args, kwargs = tree_map(_values, (args, kwargs))
    if asked is not None:
        kwargs = {**kwargs, "device": CPU}
    with _disable_current_modes():
        out = func(*args, **kwargs)
    if any(each.alias_info is not None and each.alias_info.is_write for each in func._schema.returns):
        return kwargs_given["out"] if "out" in kwargs else given[0]
    return tree_map(lambda leaf: FakeCudaTensor(leaf) if on_cuda and isinstance(leaf, torch.Tensor) else leaf, out)


def _values(leaf: Any) -> Any:
    return leaf.kept if isinstance(leaf, FakeCudaTensor) else leaf


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Devices(TorchFunctionMode):
    """Asks torch for the meta device where the program says CUDA, which this torch may not know."""

    asleep = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if self.asleep:
            return func(*args, **kwargs)
        if func in FROM_PYTHON and _says_cuda(kwargs.get("device")):
            del kwargs["device"]
            return func(*args, **kwargs).to(META)
        if getattr(func, "__name__", "") == "new_tensor" and isinstance(args[0], FakeCudaTensor):
            kwargs.setdefault("dtype", args[0].dtype)
            return torch.tensor(*args[1:], **kwargs).to(META)
        if func in (torch.Tensor.__getitem__, torch.Tensor.__setitem__) and isinstance(args[0], FakeCudaTensor):
            args = (args[0], _positions(args[1]), *args[2:])
        args = tuple(META if _says_cuda(each) else each for each in args)
        if _says_cuda(kwargs.get("device")):
            kwargs["device"] = META
        return func(*args, **kwargs)


def _positions(index: Any) -> Any:
    """Lists of positions as tensors: torch would make them on the meta device, without numbers."""
    if isinstance(index, tuple):
        return tuple(torch.tensor(each) if isinstance(each, list | tuple) else each for each in index)
    return torch.tensor(index) if isinstance(index, list) else index


def _says_cuda(device: object) -> bool:
    """Or meta, which is what a device made inside has become."""
    return isinstance(device, torch.device | str) and str(device).split(":")[0] in ("cuda", "meta")


@contextmanager
def fake_cuda() -> Iterator[torch.device]:
    """The device "cuda" is there. Scenes and models made inside must not leave."""
    run = torch.autograd._engine_run_backward  # type: ignore[attr-defined]

    def backward(*args: Any, **kwargs: Any) -> Any:
        # Hooks and recomputed layers run in here, where torch has put the mode aside.
        with _Devices():
            return run(*args, **kwargs)

    with _Devices(), _Operations(), mock.patch.object(torch.autograd, "_engine_run_backward", backward):
        yield torch.device("cuda")


@contextmanager
def real_devices() -> Iterator[None]:
    """For code inside that uses torch's own meta device, such as the loaders of diffusers and transformers."""
    with _disable_current_modes():
        _Devices.asleep = True
        try:
            yield
        finally:
            _Devices.asleep = False
