"""The dataclasses that settings are made of: those of the program, or their outline, which needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

SCENES = ("coarse", "mesh", "texture")
"""What a stage can train, in the order in which they follow each other."""


INITIAL_FILES = ("initial_mesh", "initial_ply")
"""Settings of a representation that name a file which the scene begins from."""


@dataclass(frozen=True)
class Schema:
    """What composing a configuration has to know."""

    run: type
    """Of everything."""
    stage: type
    """Of an entry of `stages`."""
    choices: Mapping[str, Mapping[str, type]]
    """The dataclasses that are picked by name, by section: representation, method, prior."""
    names_a_model: Callable[[str], bool]
    """Whether something in the place of a prior's name is a model for the prior "diffusers"."""
    check_entry: Callable[[str, str, Any], None] = lambda section, name, entry: None
    """Raises UserError if the entry of a section is no such dataclass: plugins may register anything."""
