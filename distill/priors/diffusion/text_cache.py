"""Text embeddings kept on disk, so that a text encoder of gigabytes is loaded once per prompt, not once per run.

A file contains the key it was written for and the SHA-256 of its tensors. A file that is damaged or was renamed is not
used.
"""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ...files.cache import cache_root, read_plain, write_whole

_LOG = logging.getLogger(__name__)


def cache_folder() -> Path:
    """The folder of the cache, `$STEINDREAMER_CACHE/text` or `~/.cache/steindreamer/text`."""
    return cache_root() / "text"


def cache_key(content: Any) -> str:
    """A file name for a JSON-serializable key."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_cached(key: str) -> dict[str, Tensor] | None:
    """Tensors that were written under `key`, on the CPU; None if there are none, or if the file is invalid, which is
    logged.
    """
    path = _path(key)
    content = read_plain(path)
    if content is None:
        return None
    try:
        tensors = load(content)
        size = int.from_bytes(content[:8], "little")
        said = json.loads(content[8 : 8 + size])["__metadata__"]
    except (SafetensorError, ValueError, KeyError, RecursionError):
        said, tensors = {}, {}
    if said != _described(key, tensors):
        _LOG.warning("%s is damaged or belongs to another prompt: embedding the prompt again", path)
        return None
    return tensors


def write_cached(key: str, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors atomically: readers see all or nothing. A folder that cannot be written causes only a warning."""
    path = _path(key)
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        write_whole(path, save(kept, _described(key, kept)))
    except OSError as error:
        warnings.warn(f"text embeddings are not cached: {error}; see $STEINDREAMER_CACHE", stacklevel=2)


def _described(key: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Metadata of a file in one entry, since several would be written in arbitrary order."""
    return {"of": f"{key} {hashlib.sha256(save(dict(tensors))).hexdigest()}"}


def _path(key: str) -> Path:
    return cache_folder() / f"{key}.safetensors"
