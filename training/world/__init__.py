"""A procedural world of captioned objects: what the embedded prior learns from."""

from .captions import Caption, UnknownPromptError, caption_of, known_words, parse_caption, random_caption
from .colours import COLOURS
from .kinds import KINDS, Kind
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
