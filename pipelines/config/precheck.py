"""Checks before torch is imported: names, keys and types of settings, files and prompt words that do not exist.

Only settings that the run itself would reject are rejected here. Checks that need more than the outline of the settings
are left to the run.
"""

from __future__ import annotations

import importlib.resources
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import UnknownNameError, UserError
from ..settings.composing import active_stages, representation_of
from ..settings.schema import NAMED_FILES, Schema
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
    for key in NAMED_FILES:
        name = getattr(first.config, key, "")
        if name and not Path(name).exists():
            raise UserError(f"{first.path}.{key}: there is no file {name}")


def check_words(prior: str, settings: Any, prompt: str, negative_prompt: str = "") -> None:
    """Raises UserError for a prompt that the prior cannot read. Only the shipped priors are checked.

    Args:
        prior: name of the prior.
        settings: the prior's section.
    """
    from steindreamer.world.wording import UnknownPromptError, Wording, model_wording

    wording = None
    if prior in ("world", "mixture"):
        wording = Wording(strict=settings.strict_words)
    elif prior == "tiny" and not settings.model:
        shipped = importlib.resources.files("steindreamer.assets") / TINY
        wording = model_wording(shipped, strict=settings.strict_words)
    if wording is None:
        return  # the run reports what is wrong
    if prior == "mixture":
        negative_prompt = ""  # refused by the prior, whatever it says
    try:
        wording.read_both(prompt, negative_prompt)
    except UnknownPromptError as error:
        raise UserError(str(error)) from None
