"""Keeps diffusers, transformers and timm importable with a torchvision that was built for another torch.

torchvision's compiled extension loads with one build of torch only, and the wheels on PyPI are built for CUDA. If it
does not load, `import torchvision` fails at the first fake implementation of an operator that the extension would have
defined, and so does every library that checks for torchvision. Declaring the operator is sufficient, since nothing here
calls it. torchvision is tested by importing it; operators that exist are never declared.
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
"""Operators that torchvision registers without checking whether its compiled extension was loaded."""
_NAMED = re.compile(r"torchvision::(\w+)|'torchvision' object has no attribute '(\w+)'")
_declared: list[torch.library.Library] = []  # operators are removed with their library


def watch_torchvision() -> None:
    """Install an import hook that fixes torchvision when it is imported by any library. It costs nothing until then.

    Remains of an earlier import that failed do no harm.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def prepare_torchvision() -> None:
    """Import torchvision (about a second) and fix it if necessary; call this before importing a library that uses it.

    A torchvision that cannot be imported even so is hidden, with a RuntimeWarning that states the reason; libraries
    that use it only where it is installed then do without it. The function does nothing if torchvision is absent or
    already imported.
    """
    watch_torchvision()
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "torchvision":
            return
        sys.modules["torchvision"] = None  # pyright: ignore[reportArgumentType]  # marks the module as absent
        reason = " ".join(str(error).split())
        warnings.warn(
            f"torchvision cannot be imported with torch {torch.__version__} and is skipped ({type(error).__name__}: "
            f"{reason}); install the version that matches this torch",
            RuntimeWarning,
            stacklevel=2,
        )


class _Finder(MetaPathFinder):
    """Finds torchvision by the other finders, and has it loaded by `_MendingLoader`."""

    # The import system's paths are no `Sequence`, contrary to its type hints.
    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != "torchvision":
            return None
        for finder in sys.meta_path:
            # Legacy finders need not have the method; the import system skips them as well.
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
    """Allow fake implementations to be registered again after a failed attempt, which torch 2.11 refuses."""
    register = torch.library.register_fake
    torch.library.register_fake = partial(register, allow_override=True)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        torch.library.register_fake = register


def _forget_submodules() -> None:
    """Remove torchvision's submodules from `sys.modules`; after a failed import Python removes only the package."""
    for name in [name for name in sys.modules if name.startswith("torchvision.")]:
        del sys.modules[name]


def _declare_what_is_missing(message: str) -> bool:
    """Declare the missing operators that an error is about, so that no error occurs twice; False if there are none."""
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
