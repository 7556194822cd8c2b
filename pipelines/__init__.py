"""Joins representations and priors: stages, command line, checkpoints, export.

Importing this is light; the heavy parts load on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cli import main as main
    from .config import RunConfig as RunConfig
    from .config import load_config as load_config
    from .errors import UserError as UserError
    from .priors import register_prior as register_prior
    from .runner import RunResult as RunResult
    from .runner import generate as generate

_HOME = {
    "main": "cli",
    "RunConfig": "config",
    "load_config": "config",
    "UserError": "errors",
    "register_prior": "priors",
    "generate": "runner",
    "RunResult": "runner",
}

__all__ = ["RunConfig", "RunResult", "UserError", "generate", "load_config", "main", "register_prior"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)
