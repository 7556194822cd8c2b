"""Imports of packages that need not be there."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType


def load(module: str, install: str) -> ModuleType:
    """Import `module`. Raises ValueError if that fails, whatever the failure is.

    The error says how to `install` a package that is missing, and of one that is there what its import stumbled over.
    """
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except Exception as error:  # a compiled part that does not load ends in whatever it stumbles over
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        if isinstance(error, ModuleNotFoundError) and sys.modules.get(package) is None and _within(error.name, package):
            raise ValueError(f"this needs the {package} package ({error}). To install it: {install}") from error
        raise ValueError(f"{package} cannot be imported ({reason}). {_way_out(str(error), install)}") from error


def _within(module: str | None, package: str) -> bool:
    return module is not None and module.split(".")[0] == package


def _way_out(message: str, install: str) -> str:
    if "torchvision" in message:
        return "Install the torchvision that belongs to this torch, or `import steindreamer.distill` first: it mends it"
    return f"To install it: {install}"
