"""Procedural world of captioned objects: the training data of the shipped prior.

Descriptions of the objects do not need torch; only building them does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .captions import Caption, UnknownPromptError, caption_of, random_caption
from .colors import COLORS
from .kinds import KINDS, Kind
from .wording import Reading, Wording, parse_caption

if TYPE_CHECKING:
    from .sampling import sample_object

__all__ = [
    "COLORS",
    "KINDS",
    "Caption",
    "Kind",
    "Reading",
    "UnknownPromptError",
    "Wording",
    "caption_of",
    "parse_caption",
    "random_caption",
    "sample_object",
]


def __getattr__(name: str) -> Any:
    if name != "sample_object":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .sampling import sample_object

    return sample_object
