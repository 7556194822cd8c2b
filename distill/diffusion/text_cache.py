"""Text embeddings kept on disk, so that a text encoder of gigabytes is loaded once per prompt, not once per run."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor


def cache_folder() -> Path:
    """`$STEINDREAMER_CACHE/text`, or `~/.cache/steindreamer/text`."""
    chosen = os.environ.get("STEINDREAMER_CACHE")
    return (Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "steindreamer") / "text"


def cache_key(content: Any) -> str:
    """A name for what JSON can say."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_cached(key: str) -> dict[str, Tensor] | None:
    """What was written under `key`, on the CPU; None if there is nothing or it is damaged."""
    path = _path(key)
    try:
        return load_file(path) if path.is_file() else None
    except (SafetensorError, OSError):
        return None


def write_cached(key: str, tensors: Mapping[str, Tensor]) -> None:
    """Atomic: readers see all or nothing. A folder that cannot be written is a warning, no error."""
    path = _path(key)
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as part:
            part.write(content)
        os.replace(part.name, path)
    except OSError as error:
        warnings.warn(f"text embeddings are not cached: {error}; see $STEINDREAMER_CACHE", stacklevel=2)


def _path(key: str) -> Path:
    return cache_folder() / f"{key}.safetensors"
