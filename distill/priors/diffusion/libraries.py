"""Lazy import of diffusers and transformers, and loading of frozen parts with them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from steindreamer.optional import needed

from ...files.json_files import read_json_object
from ...files.weights import check_finite, check_report, check_shard_index, tensor_files
from ...third_party.errors import foreign_errors
from ...third_party.quiet import quiet
from ...third_party.torchvision_compat import prepare_torchvision
from .model_sources import ModelFiles


def import_libraries() -> tuple[Any, Any]:
    """Import diffusers and transformers. Raises ImportError with the command that installs them."""
    prepare_torchvision()
    user = "a text-to-image model"
    return needed("diffusers", user, "diffusion"), needed("transformers", user, "diffusion")


def load_part(model: Any, files: ModelFiles, part: str, dtype: torch.dtype = torch.float32) -> Any:
    """Load a frozen part of the model from the chosen files only.

    Raises ValueError naming the file, and the tensor if one is concerned, unless the files hold exactly the weights
    that the part's config.json requires, as finite floating-point numbers.
    """
    paths, index = files.weights(part)
    if index is not None:
        check_shard_index(index, [path.name for path in paths])
    return load_frozen(model, files.folder, paths, dtype, subfolder=part, variant=files.variants[part])


def load_frozen(model: Any, folder: Path, paths: Sequence[Path], dtype: torch.dtype, **place: Any) -> Any:
    """Load a frozen network of its own.

    Args:
        paths: the files with its weights.
        place: the folder from which `from_pretrained` loads them.

    Raises ValueError like `load_part`.
    """
    found = tensor_files(paths)
    where = paths[0] if len(paths) == 1 else paths[0].parent
    read_json_object(folder / place.get("subfolder", "") / "config.json")  # else requested from the hub
    options: dict[str, Any] = {} if hasattr(model, "load_config") else {"ignore_mismatched_sizes": True}
    with foreign_errors(f"{where} cannot be loaded as {model.__name__}"), quiet(*import_libraries()):
        loaded, report = model.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            dtype=dtype,
            output_loading_info=True,
            **options,  # transformers then reports mismatched shapes; diffusers raises
            **place,
        )
    network: nn.Module = loaded
    check_report(where, report, _LEFT_OVER if options else ())
    check_finite(network.state_dict().items(), found)
    return network.eval().requires_grad_(False)


_LEFT_OVER = ("text_model.embeddings.position_ids", "vision_model.", "visual_projection.", "text_projection.")
_LEFT_OVER += ("logit_scale", "decoder.", "lm_head.")
"""Beginnings of names in files of whole CLIP and T5 models, of which text encoders are a part."""


def load_config(model: Any, files: ModelFiles, part: str) -> Any:
    """Load the configuration of a diffusers part without its weights; omitted settings have the class's defaults.

    Raises ValueError for a file without settings.
    """
    from diffusers.configuration_utils import FrozenDict

    parameters = inspect.signature(model.__init__).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}
    return FrozenDict({**defaults, **read_json_object(files.folder / part / "config.json")})
