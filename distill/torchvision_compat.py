"""Keeps diffusers, transformers and timm importable beside a torchvision that was built for another torch.

torchvision's compiled part loads beside one build of torch only, and the wheels on PyPI are built for CUDA. Where it
does not load, `import torchvision` fails at the first operator that it describes and the compiled part would have
brought, and so does every library that looks whether torchvision is there. Declaring the operator is enough: nothing
here ever calls it. Whether anything is wrong is asked of torchvision itself, by importing it; what it has is never
declared.
"""

from __future__ import annotations

import importlib
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import torch

_KNOWN = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}
"""What torchvision describes without looking whether its compiled part was loaded."""
_NAMED = re.compile(r"torchvision::(\w+)|'torchvision' object has no attribute '(\w+)'")
_declared: list[torch.library.Library] = []  # a library's operators vanish with it


def watch_torchvision() -> None:
    """Mend torchvision when it is imported, whoever imports it. Costs nothing until then.

    What an earlier import that failed has left behind is no obstacle.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def prepare_torchvision() -> None:
    """Call before importing what would import torchvision: does so here (about a second), mended where it must be.

    One that cannot be imported all the same is hidden, with a RuntimeWarning that says why: libraries that would use it
    where it is installed then do without. Does nothing where torchvision is absent or already imported.
    """
    watch_torchvision()
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torchvision":
            return
        sys.modules["torchvision"] = None  # pyright: ignore[reportArgumentType]  # the import system's word for absent
        reason = " ".join(str(error).split())
        warnings.warn(
            f"torchvision cannot be imported beside torch {torch.__version__} and is left out "
            f"({type(error).__name__}: {reason}); install the one that belongs to this torch",
            RuntimeWarning,
            stacklevel=2,
        )


class _Finder(MetaPathFinder):
    """Finds torchvision where the others find it, and has it loaded by `_MendingLoader`."""

    # The import system's paths are no `Sequence`, whatever its type hints say.
    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        for finder in sys.meta_path:
            # Like the import system: a finder of old need not have the method.
            find = None if finder is self else getattr(finder, "find_spec", None)
            spec = find and find(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _MendingLoader(spec.loader)
                return spec
        return None


class _MendingLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        _forget_submodules()
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._loader
        while True:
            try:
                with _described_anew():
                    return self._loader.exec_module(module)
            except Exception as error:
                _forget_submodules()
                if not _declare_what_is_missing(str(error)):
                    raise


@contextmanager
def _described_anew() -> Iterator[None]:
    """What an attempt that failed has described of an operator may be described again; torch 2.11 refuses that."""
    register = torch.library.register_fake
    torch.library.register_fake = partial(register, allow_override=True)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        torch.library.register_fake = register


def _forget_submodules() -> None:
    """A package whose import failed is forgotten by Python, what it had imported of itself by then is not."""
    for name in [name for name in sys.modules if name.startswith("torchvision.")]:
        del sys.modules[name]


def _declare_what_is_missing(message: str) -> bool:
    """Whether an error is about operators that do not exist; they do afterwards, so that no error comes twice."""
    named = {name or attribute for name, attribute in _NAMED.findall(message)}
    if not _missing(named):
        return False
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in _missing(named | set(_KNOWN)):
        library.define(_KNOWN.get(name, f"{name}(...) -> ..."))
    _declared.append(library)
    return True


def _missing(operators: set[str]) -> list[str]:
    return sorted(name for name in operators if not hasattr(torch.ops.torchvision, name))
