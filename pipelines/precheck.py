"""What is refused before the program is loaded: names, keys and kinds of settings, files and words that do not exist.

Refuses only what the run itself would refuse. What needs more than the settings' outline is left to the run.
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

from .errors import UnknownNameError, UserError
from .outline import outline
from .plugins import installed_plugins
from .schema import INITIAL_FILES, Schema

TINY = "tiny_world_prior"


@contextmanager
def refused_early(plugins: Collection[Path]) -> Iterator[Schema]:
    """Meant for checks against the outline of the settings.

    A name that a plugin may add, or a program that has loaded the registries already, is left to the run.
    """
    try:
        yield outline().schema
    except UnknownNameError:
        if not plugins and not installed_plugins() and f"{__package__}.config" not in sys.modules:
            raise


def check_named_files(config: Any) -> None:
    """Raises UserError for a file or folder of the settings that does not exist."""
    for key in INITIAL_FILES:
        name = getattr(config.representation, key, "")
        if name and not Path(name).exists():
            raise UserError(f"representation.{key}: there is no file {name}")


def check_words(prior: str, settings: Any, prompt: str, negative_prompt: str = "") -> None:
    """Raises UserError for a prompt that the prior is known not to understand.

    `prior` and `settings`: its name and its section. Only those that ship are known here.
    """
    if prior == "world":
        from ..training.world.captions import UnknownPromptError, parse_caption

        try:
            for text in filter(None, (prompt, negative_prompt)):
                parse_caption(text)
        except UnknownPromptError as error:
            raise UserError(str(error)) from None
    elif prior == "tiny" and not settings.model:
        _check_tiny(prompt, negative_prompt)


def _check_tiny(prompt: str, negative_prompt: str) -> None:
    """As the shipped model's own tokenizer and kinds have it (`distill/diffusion/families/camera_conditioned.py`)."""
    folder = importlib.resources.files("steindreamer.assets") / TINY
    try:
        tokenizer = json.loads((folder / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
        kinds = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["kinds"]
        vocabulary = tokenizer["model"]["vocab"]
    except (OSError, ValueError, KeyError, TypeError):
        return  # the run tells what is wrong with it
    knows = f"It knows {', '.join(sorted(kinds))}, and their colours; `--prior world` knows more objects"
    for text in (prompt, negative_prompt):
        unknown = [repr(word) for word in _words(text) if word not in vocabulary]
        if unknown:
            raise UserError(f"{text!r} holds words that the model was not trained on: {', '.join(unknown)}. {knows}")
    nouns = {noun for words in kinds.values() for noun in words}
    if not any(f" {noun} " in f" {' '.join(_words(prompt))} " for noun in nouns):
        raise UserError(f"{prompt!r} names no object; name one. {knows}")


def _words(text: str) -> list[str]:
    return re.findall("[a-z0-9]+", text.lower())
