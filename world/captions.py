"""Captions of the world: one kind of object in one color, parsed regardless of word order and case."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np

from .colors import COLOR_SYNONYMS, COLORS
from .kinds import KINDS, Kind

_FILLERS = frozenset(
    "a an the this that some one single my your and with in on of its it is has having for from please make create "
    "generate draw show give me i want would like photo photograph picture image render rendering rendered scene dslr "
    "3d model object asset game ready mesh toy figurine sculpture plastic rubber style stylized stylized cartoon cute "
    "nice beautiful lovely pretty simple shiny classic highly very detailed high low quality resolution poly lowpoly "
    "small big little large tiny huge giant colored coloured color colour".split()
)  # all objects are built to one size, so size words are ignored
_Role: TypeAlias = Literal["kind", "color", "part", "filler", "unknown"]


class UnknownPromptError(ValueError):
    """The prompt names something that the world does not contain, or not exactly one object in one color."""


@dataclass(frozen=True)
class Caption:
    """A kind of object and its color."""

    kind: str
    """Key of `KINDS`."""
    color: str
    """Key of `COLORS`: the color of the kind's main part."""
    text: str
    """Canonical wording, such as "a red mug"."""


def parse_caption(text: str) -> Caption:
    """Parse a prompt; without a color, the default color of the kind is used.

    If there are several colors, the one of the part that takes the color is used ("a green cactus in a blue pot").
    Natural colors of other parts are ignored.

    Raises:
        UnknownPromptError: The prompt is not a caption of the world; the message lists what is known.
    """
    words = list(_classify(re.findall(r"[a-z0-9]+", text.lower())))
    unknown = [word for role, word in words if role == "unknown"]
    if unknown:
        raise UnknownPromptError(_unknown_message(text, unknown))
    name = _the_kind(text, [word for role, word in words if role == "kind"])
    kind = KINDS[name]
    parts = {*kind.colored, *kind.others}
    foreign = [word for role, word in words if role == "part" and word not in parts]
    if foreign:
        known = ", ".join(sorted(parts)) or "none that can be named"
        raise UnknownPromptError(f"{text!r}: a {name} has no {' or '.join(foreign)}; its parts: {known}")
    return caption_of(name, _the_color(text, name, words) or kind.default)


def caption_of(kind: str, color: str) -> Caption:
    """Return the canonical caption. Raises UnknownPromptError if the kind does not come in that color."""
    if color not in KINDS[kind].colors:
        raise UnknownPromptError(f"no {color} {kind}: it comes in {', '.join(KINDS[kind].colors)}")
    text = KINDS[kind].caption.format(color)
    return Caption(kind, color, re.sub(r"\ba (?=[aeiou])", "an ", text))


def random_caption(rng: np.random.Generator, kind: str | None = None) -> Caption:
    """Draw a caption uniformly: any kind, or the given one, in any of its colors."""
    name = kind if kind is not None else tuple(KINDS)[rng.integers(len(KINDS))]
    colors = KINDS[name].colors
    return caption_of(name, colors[rng.integers(len(colors))])


def known_words() -> tuple[str, ...]:
    """Return every meaningful word of prompts, in the singular, sorted."""
    return tuple(sorted({word for phrase in _vocabulary() for word in phrase}))


@lru_cache(maxsize=1)
def _vocabulary() -> dict[tuple[str, ...], tuple[_Role, str]]:
    """Map phrases, as tuples of words, to their role and meaning: the kind, the color, or the part."""
    phrases: dict[tuple[str, ...], tuple[_Role, str]] = {}
    for kind in KINDS.values():
        phrases |= {tuple(word.split()): ("part", word) for word in (*kind.colored, *kind.others)}
    phrases |= {(word,): ("color", word) for word in COLORS}
    phrases |= {(word,): ("color", meaning) for word, meaning in COLOR_SYNONYMS.items()}
    for name, kind in KINDS.items():
        phrases |= {tuple(phrase.split()): ("kind", name) for phrase in (name, *kind.synonyms)}
    return phrases


def _classify(words: list[str]) -> Iterator[tuple[_Role, str]]:
    """Classify words, trying longer phrases first; the last word of a phrase may be plural."""
    position = 0
    while position < len(words):
        for length in (3, 2, 1):
            phrase = words[position : position + length]
            found = (_vocabulary().get((*phrase[:-1], last)) for last in _singulars(phrase[-1]))
            entry = next((entry for entry in found if entry), None)
            if entry and len(phrase) == length:
                yield entry
                position += length
                break
        else:
            yield ("filler" if words[position] in _FILLERS else "unknown"), words[position]
            position += 1


def _singulars(word: str) -> Iterator[str]:
    yield word
    for ending, singular in (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f")):
        if word.endswith(ending):
            yield word.removesuffix(ending) + singular


def _the_kind(text: str, names: list[str]) -> str:
    # A kind that is also a part of another named kind is parsed as that part ("a snowman with a hat").
    kinds = {name for name in names if not any(name in _part_words(KINDS[other]) for other in names if other != name)}
    if not kinds:
        raise UnknownPromptError(f"{text!r} names no object. {_what_is_known()}")
    if len(kinds) > 1:
        raise UnknownPromptError(f"{text!r} names {len(kinds)} objects, {' and '.join(sorted(kinds))}: name one")
    return kinds.pop()


def _part_words(kind: Kind) -> tuple[str, ...]:
    return (*kind.colored, *kind.others)


def _the_color(text: str, name: str, words: list[tuple[_Role, str]]) -> str | None:
    kind = KINDS[name]
    named = {word for role, word in words if role == "color"}
    if len(named) > 1:
        meaningful = [entry for entry in words if entry[0] != "filler"]
        said_of_part = {
            color for (role, color), (_, noun) in pairwise(meaningful) if role == "color" and noun in kind.colored
        }
        named = said_of_part or (named - kind.natural) or named
    if len(named) > 1:
        raise UnknownPromptError(
            f"{text!r} names {len(named)} colors, {' and '.join(sorted(named))}: a {name} takes one, as in "
            f"{caption_of(name, kind.default).text!r}"
        )
    return named.pop() if named else None


def _unknown_message(text: str, unknown: list[str]) -> str:
    said = []
    for word in unknown:
        near = difflib.get_close_matches(word, known_words(), n=3)
        said.append(f"{word!r}" + (f" (did you mean {' or '.join(near)}?)" if near else ""))
    return f"{text!r} holds unknown words: {', '.join(said)}. {_what_is_known()}"


def _what_is_known() -> str:
    return f"Known objects: {', '.join(sorted(KINDS))}. Known colors: {', '.join(COLORS)}."
