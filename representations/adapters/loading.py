"""Imports of packages that need not be there."""

from __future__ import annotations

import importlib
from types import ModuleType


def load(module: str, install: str) -> ModuleType:
    """Import `module`. Raises ValueError, with the reason and with how to `install` it, if that fails."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.split(".")[0]
        raise ValueError(f"this needs the {package} package ({error}). To install it: {install}") from error
