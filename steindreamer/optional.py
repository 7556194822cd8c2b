"""Imports of optional packages, with an error that says how to install them."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

PYTORCH3D_INSTALL = (
    "pip install --no-build-isolation 'git+https://github.com/facebookresearch/pytorch3d.git@stable' "
    "(compiles; for wheels see docs/optional_packages.md)"
)


def load(module: str, install: str) -> ModuleType:
    """Import a module of an optional package.

    Args:
        module: Name of the module, with dots.
        install: The command that installs the package, for the error message.

    Raises:
        ValueError: The import failed. The message says how to install a missing package, or why an installed one
            cannot be imported.
    """
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except Exception as error:  # a compiled extension that fails to load may raise any type
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"
        if isinstance(error, ModuleNotFoundError) and sys.modules.get(package) is None and _within(error.name, package):
            raise ValueError(f"this needs the {package} package ({error}). To install it: {install}") from error
        raise ValueError(f"{package} cannot be imported ({reason}). {_remedy(str(error), install)}") from error


def needed(module: str, user: str, extra: str) -> Any:
    """Import `module` for `user`. Raises ImportError naming the missing package and the extra to install."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(f"{user} needs the package {error.name!r}: pip install 'steindreamer[{extra}]'") from None


def _within(module: str | None, package: str) -> bool:
    return module is not None and module.split(".")[0] == package


def _remedy(message: str, install: str) -> str:
    if "torchvision" in message:
        return (
            "Install the torchvision release that matches the installed torch, or run `import steindreamer.distill` "
            "first, which works around the mismatch"
        )
    return f"To install it: {install}"
