"""The pipelines that combine representations and priors: training stages, command lines, checkpoints and export.

Importing this package is fast; torch and the other large dependencies are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .cli.main import main as main
    from .config.run_config import RunConfig as RunConfig
    from .config.run_config import load_config as load_config
    from .errors import UserError as UserError
    from .priors import PRIORS as PRIORS
    from .priors import list_priors as list_priors
    from .priors import register_prior as register_prior
    from .runs.library import retexture as retexture
    from .runs.library import text_to_3d as text_to_3d
    from .runs.result import Result as Result
    from .runs.runner import generate as generate

_HOME = {
    "PRIORS": "priors",
    "Result": "runs.result",
    "RunConfig": "config.run_config",
    "UserError": "errors",
    "generate": "runs.runner",
    "list_priors": "priors",
    "load_config": "config.run_config",
    "main": "cli.main",
    "register_prior": "priors",
    "retexture": "runs.library",
    "text_to_3d": "runs.library",
}

__all__ = [
    "PRIORS",
    "Result",
    "RunConfig",
    "UserError",
    "generate",
    "list_priors",
    "load_config",
    "main",
    "register_prior",
    "retexture",
    "text_to_3d",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOME[name]}", __name__), name)
