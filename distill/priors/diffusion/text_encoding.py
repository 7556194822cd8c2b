"""Encoding of prompts as `TextRows` by diffusers' own prompt encoding, with temporary text encoders and a cache."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ...files.digests import fingerprint
from ...third_party.errors import foreign_errors
from ...third_party.quiet import quiet
from .families import Family
from .libraries import import_libraries, load_part
from .model_sources import INDEX, ModelFiles
from .text_cache import cache_key, read_cached, write_cached
from .text_embeddings import TextRows
from .tokenizer import load_tokenizer, unknown_words

_VERSION = 2
"""Version of the cached embeddings; increase it when the embedding of a prompt changes."""


def encode_prompts(
    family: Family,
    files: ModelFiles,
    prompts: list[str],
    negative: str,
    device: torch.device,
    dtype: torch.dtype,
    *,
    cached: bool = True,
) -> tuple[TextRows, TextRows]:
    """Encode the prompts and the negative prompt ("" is none), in float32 on `device`.

    Args:
        cached: whether `text_cache` is used; no text encoder is loaded if all embeddings are in it.
        dtype: precision of the text encoders that support half precision.

    Raises ValueError for a prompt that every text encoder truncates or cannot spell, and for files that are damaged or
    do not belong together.
    """
    key = _key(family, files, prompts, negative, dtype)
    tensors = read_cached(key) if cached else None
    if tensors is None:
        pipeline = _text_pipeline(family, files, device, dtype)
        # Families refuse prompts with their own ValueErrors.
        where = f"{files.folder} cannot embed the prompt"
        with foreign_errors(where, ValueError), quiet(*import_libraries()), torch.no_grad():
            _check_lengths(family, pipeline, [*prompts, negative])
            positive = family.encode_text(pipeline, prompts, device)
            row = family.encode_negative(pipeline, negative, device)
            _check_words(family, pipeline, [*prompts, negative])
        _check_rows([*positive.values(), *row.values()], files)
        tensors = {f"prompts/{name}": tensor for name, tensor in positive.items()}
        tensors |= {f"negative/{name}": tensor for name, tensor in row.items()}
        if cached:
            write_cached(key, tensors)
    rows = TextRows(tensors).to(device, torch.float32).tensors
    groups = [{k.removeprefix(g): v for k, v in rows.items() if k.startswith(g)} for g in ("prompts/", "negative/")]
    return TextRows(groups[0]), TextRows(groups[1])


def _key(family: Family, files: ModelFiles, prompts: list[str], negative: str, dtype: torch.dtype) -> str:
    """Cache key of all inputs of the embeddings, including the contents of the text encoders' files."""
    diffusers, transformers = import_libraries()
    folders = [folder for part, encoder in family.text_encoders.items() for folder in (part, encoder.tokenizer_folder)]
    read = {name: digest for name, digest in files.digests.items() if name.partition("/")[0] in (*folders, INDEX)}
    return cache_key(
        {
            "version": [_VERSION, diffusers.__version__, transformers.__version__],
            "model": [files.label, files.pipeline, str(dtype), {part: files.variants.get(part) for part in folders}],
            "files": fingerprint(read),
            "prompts": [prompts, negative],
        }
    )


def _text_pipeline(family: Family, files: ModelFiles, device: torch.device, dtype: torch.dtype) -> Any:
    """A diffusers pipeline with the text encoders as its only parts."""
    _, transformers = import_libraries()
    parts: dict[str, Any] = {}
    for folder, encoder in family.text_encoders.items():
        if folder not in files.variants:
            continue  # an optional text encoder
        model = load_part(getattr(transformers, encoder.model), files, folder, dtype if encoder.half else torch.float32)
        parts[folder] = model.to(device)
        tokenizer: Any = getattr(transformers, encoder.tokenizer)
        parts[encoder.tokenizer_folder] = load_tokenizer(tokenizer, files.folder / encoder.tokenizer_folder, model)
    pipeline = family.pipeline_class(files.pipeline)
    # Safety checker and watermark are omitted, since no images are generated.
    parts |= {"requires_safety_checker": False, "add_watermarker": False}
    arguments = inspect.signature(pipeline).parameters.values()
    absent = {each.name: None for each in arguments if each.default is inspect.Parameter.empty}
    names = [each.name for each in arguments]
    settings = {name: files.index[name] for name in names if isinstance(files.index.get(name), bool)}
    chosen = {name: value for name, value in {**absent, **settings, **parts}.items() if name in names}
    with foreign_errors(f"{files.folder} cannot be used as a {files.pipeline}"):
        return pipeline(**chosen)


def _check_lengths(family: Family, pipeline: Any, prompts: list[str]) -> None:
    """Refuse prompts that every text encoder truncates: the words about the view are last and would be lost."""
    found: list[tuple[int, int]] = []
    for folder, encoder in family.text_encoders.items():
        tokenizer = getattr(pipeline, encoder.tokenizer_folder)
        if tokenizer is None:
            continue
        longest = max(len(ids) for ids in tokenizer(prompts).input_ids)
        found.append((longest, family.reads(folder) or tokenizer.model_max_length))
    if all(longest > limit for longest, limit in found):
        longest, limit = max(found, key=lambda pair: pair[1])
        raise ValueError(
            f"the prompt has {longest} tokens including the view description, but the text encoder reads {limit}; "
            "shorten the prompt or the negative prompt"
        )


def _check_words(family: Family, pipeline: Any, prompts: list[str]) -> None:
    """Refuse words that every text encoder maps to its unknown token, which would silently change the prompt."""
    tokenizers = [getattr(pipeline, encoder.tokenizer_folder) for encoder in family.text_encoders.values()]
    unknown = [unknown_words(tokenizer, prompts) for tokenizer in tokenizers if tokenizer is not None]
    if all(unknown):
        raise ValueError(
            f"the text encoder has no tokens for {', '.join(map(repr, unknown[0][:5]))}; rephrase the prompt"
        )


def _check_rows(tensors: Iterable[Tensor], files: ModelFiles) -> None:
    """Refuse embeddings that are not finite, such as those of T5 in float16."""
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise ValueError(
            f"the text encoders of {files.folder} return values that are not finite; set prior.precision=float32 or "
            "bfloat16"
        )
