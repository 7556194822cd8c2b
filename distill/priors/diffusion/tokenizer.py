"""Loading of a tokenizer, with checks that it is complete and belongs to the text encoder.

A damaged tokenizer still works: transformers fills in defaults for missing data, letters become the unknown token, and
the prompt changes silently.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...third_party.errors import foreign_errors
from ...third_party.quiet import quiet
from .libraries import import_libraries

_LEAST_SHARE = 0.95
"""Least fraction of the text encoder's rows that have a token; the remaining rows pad the table to a round number."""


def load_tokenizer(tokenizer: Any, folder: Path, encoder: Any) -> Any:
    """Load a tokenizer of a transformers class for a text encoder that is already loaded.

    Raises ValueError naming the folder for files that are damaged or another model's, ImportError if only SentencePiece
    can read them (PixArt, DeepFloyd IF) and is not installed.
    """
    if (folder / "spiece.model").is_file() and not (folder / "tokenizer.json").is_file():
        # The error of transformers would name another package.
        for package, module in (("sentencepiece", "sentencepiece"), ("protobuf", "google.protobuf")):
            if not _is_installed(module):
                raise ImportError(f"{folder} needs the package {package!r}: pip install 'steindreamer[diffusion]'")
    with foreign_errors(f"{folder} cannot be loaded as {tokenizer.__name__}"), quiet(*import_libraries()):
        loaded = tokenizer.from_pretrained(folder, local_files_only=True)
        vocabulary: Mapping[str, int] = loaded.get_vocab()
        model = json.loads(loaded.backend_tokenizer.to_str())["model"]
        added = set(loaded.get_added_vocab())
        loaded(["a"], padding="max_length", max_length=8, truncation=True)
    _check_rows(folder, vocabulary, encoder.get_input_embeddings().num_embeddings)
    _check_merges(folder, model, added)
    _check_places(folder, loaded, encoder)
    return loaded


def unknown_words(tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """The parts of the prompts that the tokenizer maps to its unknown token."""
    unknown, found = tokenizer.unk_token_id, dict[str, None]()
    if unknown is None:
        return []
    for prompt in prompts:
        encoded = tokenizer(prompt, add_special_tokens=False, return_offsets_mapping=True)
        for token, (start, end) in zip(encoded.input_ids, encoded.offset_mapping, strict=True):
            if token == unknown:
                found[prompt[start:end].strip() or prompt] = None
    return list(found)


def _check_rows(folder: Path, vocabulary: Mapping[str, int], rows: int) -> None:
    """Raises ValueError unless the tokens match the rows of the text encoder's embedding."""
    used = set(vocabulary.values())
    if not used or max(used) >= rows or len(used) < _LEAST_SHARE * rows:
        raise ValueError(
            f"{folder} has {len(used)} tokens with IDs up to {max(used, default=0)}, but its text encoder has {rows}: "
            "it is damaged or belongs to another model"
        )


def _check_places(folder: Path, tokenizer: Any, encoder: Any) -> None:
    """Check the length limit and the end token.

    Raises ValueError unless the tokenizer truncates at CLIP's limit, which has an embedding per position (T5 has none),
    and unless a CLIP that pools at the end token uses the tokenizer's one; old files state 2 for it.
    """
    config = encoder.config
    places, longest = getattr(config, "max_position_embeddings", None), tokenizer.model_max_length
    if places is None:
        return
    if not isinstance(longest, int) or isinstance(longest, bool) or not 0 < longest <= places:
        raise ValueError(
            f"{folder}/tokenizer_config.json says model_max_length={longest!r}; the text encoder reads {places} tokens"
        )
    if hasattr(encoder, "text_projection") and config.eos_token_id not in (2, tokenizer.eos_token_id):
        raise ValueError(
            f"{folder} ends a text with token {tokenizer.eos_token_id}, the text encoder's config.json says "
            f"eos_token_id={config.eos_token_id}"
        )


def _check_merges(folder: Path, model: Mapping[str, Any], added: set[str]) -> None:
    """Check the merges. Raises ValueError if tokens of several letters cannot occur, since no merge produces them."""
    if model.get("type") != "BPE":
        return
    suffix = model.get("end_of_word_suffix") or ""
    tokens = [token for token in model["vocab"] if token not in added]
    merged = sum(len(token.removesuffix(suffix) if token != suffix else token) > 1 for token in tokens)
    if merged > len(model["merges"]):
        raise ValueError(
            f"{folder} has {len(model['merges'])} merges for {merged} tokens of several letters: it is damaged"
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False
