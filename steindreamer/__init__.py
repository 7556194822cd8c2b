"""Text to game-ready 3D by score distillation, for any representation that can be rendered.

Importing `steindreamer` is fast: each public name imports its subpackage on first use.
"""

from __future__ import annotations

import logging
import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steindreamer.distill import CONTROL_VARIATES as CONTROL_VARIATES
    from steindreamer.distill import METHODS as METHODS
    from steindreamer.distill import list_control_variates as list_control_variates
    from steindreamer.distill import list_methods as list_methods
    from steindreamer.distill import register_control_variate as register_control_variate
    from steindreamer.distill import register_method as register_method
    from steindreamer.distill.priors.diffusion import FAMILIES as FAMILIES
    from steindreamer.distill.priors.diffusion import list_families as list_families
    from steindreamer.distill.priors.diffusion import register_family as register_family
    from steindreamer.pipelines import PRIORS as PRIORS
    from steindreamer.pipelines import Result as Result
    from steindreamer.pipelines import RunConfig as RunConfig
    from steindreamer.pipelines import UserError as UserError
    from steindreamer.pipelines import list_priors as list_priors
    from steindreamer.pipelines import load_config as load_config
    from steindreamer.pipelines import register_prior as register_prior
    from steindreamer.pipelines import retexture as retexture
    from steindreamer.pipelines import text_to_3d as text_to_3d
    from steindreamer.representations import REPRESENTATIONS as REPRESENTATIONS
    from steindreamer.representations import list_representations as list_representations
    from steindreamer.representations import register_representation as register_representation

    __version__: str

_HERE = os.path.dirname(os.path.abspath(__file__))
if not os.path.isdir(os.path.join(_HERE, "distill")):  # in a checkout, the subpackages are next to this folder
    __path__.append(os.path.dirname(_HERE))

# A library does not configure logging; applications do.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_HOME = {
    "CONTROL_VARIATES": "distill",
    "FAMILIES": "distill.priors.diffusion",
    "METHODS": "distill",
    "PRIORS": "pipelines",
    "REPRESENTATIONS": "representations",
    "Result": "pipelines",
    "RunConfig": "pipelines",
    "UserError": "pipelines",
    "list_control_variates": "distill",
    "list_families": "distill.priors.diffusion",
    "list_methods": "distill",
    "list_priors": "pipelines",
    "list_representations": "representations",
    "load_config": "pipelines",
    "register_control_variate": "distill",
    "register_family": "distill.priors.diffusion",
    "register_method": "distill",
    "register_prior": "pipelines",
    "register_representation": "representations",
    "retexture": "pipelines",
    "text_to_3d": "pipelines",
}
"""Subpackage that each public name is imported from."""

__all__ = [
    "CONTROL_VARIATES",
    "FAMILIES",
    "METHODS",
    "PRIORS",
    "REPRESENTATIONS",
    "Result",
    "RunConfig",
    "UserError",
    "__version__",
    "list_control_variates",
    "list_families",
    "list_methods",
    "list_priors",
    "list_representations",
    "load_config",
    "register_control_variate",
    "register_family",
    "register_method",
    "register_prior",
    "register_representation",
    "retexture",
    "text_to_3d",
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        return version("steindreamer")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
