"""The dataclasses of the settings: the real ones, or their outline, which needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

SHORT_NAMES: Mapping[str, str] = {"mesh": "dmtet"}
"""Aliases of representations."""

INITIAL_FILES = ("initial_mesh", "initial_ply")
"""Settings of a representation that name a file from which the scene is initialized."""

NAMED_FILES = (*INITIAL_FILES, "mask")
"""Settings of a representation that name any file to read."""


@dataclass(frozen=True)
class Schema:
    """The dataclasses and checks that composing a configuration needs."""

    run: type
    """Dataclass of the whole configuration."""
    stage: type
    """Dataclass of an entry of `stages`."""
    choices: Mapping[str, Mapping[str, type]]
    """The dataclasses that are selected by name, by section: representation, method, prior."""
    names_a_model: Callable[[str], bool]
    """Whether a text in place of a prior's name is a model for the prior "diffusers"."""
    check_entry: Callable[[str, str, Any], None] = lambda section, name, entry: None
    """Raises UserError if the entry of a section is not a valid dataclass; plugins may register anything."""

    def full_name(self, section: str, name: str) -> str:
        """The registered name of a choice, with aliases resolved."""
        is_short = section == "representation" and name not in self.choices[section]
        return SHORT_NAMES.get(name, name) if is_short else name
