"""Checks before torch is imported: names, keys and types of settings, files and prompt words that do not exist.

Only settings that the run itself would reject are rejected here. Checks that need more than the outline of the settings
are left to the run.
"""

from __future__ import annotations

import importlib.resources
import json
import re
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UnknownNameError, UserError
from ..settings.composing import active_stages, representation_of
from ..settings.schema import INITIAL_FILES, Schema
from .outline import outline
from .plugins import installed_plugins

TINY = "tiny_world_prior"


@contextmanager
def refused_early(plugins: Collection[Path]) -> Iterator[Schema]:
    """Context for checks against the outline of the settings.

    Names that a plugin may register are left to the run, and so is everything if the registries are loaded already.
    """
    try:
        yield outline().schema
    except UnknownNameError:
        if not plugins and not installed_plugins() and f"{__package__}.run_config" not in sys.modules:
            raise


def check_named_files(config: Any) -> None:
    """Raises UserError for a file or folder in the settings that does not exist."""
    first = representation_of(config, next(iter(active_stages(config))))
    for key in INITIAL_FILES:
        name = getattr(first.config, key, "")
        if name and not Path(name).exists():
            raise UserError(f"{first.path}.{key}: there is no file {name}")


def check_words(prior: str, settings: Any, prompt: str, negative_prompt: str = "") -> None:
    """Raises UserError for a prompt with words that the prior does not know. Only the shipped priors are checked.

    Args:
        prior: name of the prior.
        settings: the prior's section.
    """
    if prior == "world":
        from steindreamer.world.captions import UnknownPromptError, parse_caption

        try:
            for text in filter(None, (prompt, negative_prompt)):
                parse_caption(text)
        except UnknownPromptError as error:
            raise UserError(str(error)) from None
    elif prior == "tiny" and not settings.model:
        _check_tiny(prompt, negative_prompt)


def _check_tiny(prompt: str, negative_prompt: str) -> None:
    """Check the prompt with the tokenizer and the object kinds of the shipped model, as the camera-conditioned family
    does.
    """
    folder = importlib.resources.files("steindreamer.assets") / TINY
    try:
        tokenizer = json.loads((folder / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
        kinds = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["kinds"]
        vocabulary = tokenizer["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # the run reports the error
    knows = f"It knows {', '.join(sorted(kinds))}, and their colors; `--prior world` knows more objects"
    for text in (prompt, negative_prompt):
        unknown = [repr(word) for word in _words(text) if word not in vocabulary]
        if unknown:
            raise UserError(f"{text!r} holds words that the model was not trained on: {', '.join(unknown)}. {knows}")
    nouns = {noun for words in kinds.values() for noun in words}
    if not any(f" {noun} " in f" {' '.join(_words(prompt))} " for noun in nouns):
        raise UserError(f"{prompt!r} names no object; name one. {knows}")


def _words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())
