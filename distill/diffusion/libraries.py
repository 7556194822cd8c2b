"""Importing diffusers and transformers only when they are needed, and loading frozen parts with them."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
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


def load_tokenizer(tokenizer: Any, folder: Path) -> Any:
    """Raises ImportError if only SentencePiece can read it (PixArt, DeepFloyd IF) and is not installed."""
    if (folder / "spiece.model").is_file() and not (folder / "tokenizer.json").is_file():
        # transformers would ask for another package.
        for package, module in (("sentencepiece", "sentencepiece"), ("protobuf", "google.protobuf")):
            if not _is_installed(module):
                raise ImportError(f"{folder} needs the package {package!r}: pip install 'steindreamer[diffusion]'")
    return tokenizer.from_pretrained(folder, local_files_only=True)


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package around it
        return False


def load_part(model: Any, files: ModelFiles, part: str, dtype: torch.dtype = torch.float32) -> Any:
    """A frozen part of the model, from the files that were chosen and no others."""
    with no_progress_bars():
        loaded: nn.Module = model.from_pretrained(
            files.folder,
            subfolder=part,
            variant=files.variants[part],
            use_safetensors=True,
            local_files_only=True,
            dtype=dtype,
        )
    return loaded.eval().requires_grad_(False)


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Both libraries draw them on stderr, whoever calls; a run has a log of its own."""
    import diffusers
    import transformers

    libraries = [diffusers.utils.logging, transformers.utils.logging]
    shown = [library for library in libraries if library.is_progress_bar_enabled()]
    for library in shown:
        library.disable_progress_bar()
    try:
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def load_config(model: Any, files: ModelFiles, part: str) -> Any:
    """The configuration of a part of diffusers without its weights; what it leaves out has the class's defaults."""
    from diffusers.configuration_utils import FrozenDict

    parameters = inspect.signature(model.__init__).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    return FrozenDict({**defaults, **model.load_config(files.folder / part)})
