"""A procedural world of captioned objects: what the embedded prior learns from.

What is said of the objects is known without torch, which only building them needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .captions import Caption, UnknownPromptError, caption_of, known_words, parse_caption, random_caption
from .colours import COLOURS
from .kinds import KINDS, Kind

if TYPE_CHECKING:
    from .sampling import sample_object

__all__ = [
    "COLOURS",
    "KINDS",
    "Caption",
    "Kind",
    "UnknownPromptError",
    "caption_of",
    "known_words",
    "parse_caption",
    "random_caption",
    "sample_object",
]


def __getattr__(name: str) -> Any:
    if name != "sample_object":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .sampling import sample_object

    return sample_object
