"""Importing diffusers and transformers only when they are needed, and loading frozen parts with them."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from ..torchvision_compat import prepare_torchvision
from .model_sources import ModelFiles


def import_libraries() -> tuple[Any, Any]:
    """diffusers and transformers. Raises ImportError saying how to install them."""
    prepare_torchvision()
    try:
        import diffusers
        import transformers
    except ModuleNotFoundError as error:
        raise ImportError(
            f"text-to-image models need the package {error.name!r}: pip install 'steindreamer[diffusion]'"
        ) from None
    return diffusers, transformers


def load_part(model: Any, files: ModelFiles, part: str, dtype: torch.dtype = torch.float32) -> Any:
    """A frozen part of the model, from the files that were chosen and no others."""
    loaded: nn.Module = model.from_pretrained(
        files.folder,
        subfolder=part,
        variant=files.variants[part],
        use_safetensors=True,
        local_files_only=True,
        dtype=dtype,
    )
    return loaded.eval().requires_grad_(False)


def load_config(model: Any, files: ModelFiles, part: str) -> Any:
    """The configuration of a part of diffusers without its weights; what it leaves out has the class's defaults."""
    from diffusers.configuration_utils import FrozenDict

    parameters = inspect.signature(model.__init__).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    return FrozenDict({**defaults, **model.load_config(files.folder / part)})
