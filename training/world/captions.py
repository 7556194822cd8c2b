"""Captions of the world: one kind of object in one colour, understood by words whatever their order and case."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np

from .colours import COLOUR_SYNONYMS, COLOURS
from .kinds import KINDS, Kind

_FILLERS = frozenset(
    "a an the this that some one single my your and with in on of its it is has having for from please make create "
    "generate draw show give me i want would like photo photograph picture image render rendering rendered scene dslr "
    "3d model object asset game ready mesh toy figurine sculpture plastic rubber style stylised stylized cartoon cute "
    "nice beautiful lovely pretty simple shiny classic highly very detailed high low quality resolution poly lowpoly "
    "small big little large tiny huge giant colored coloured color colour".split()
)  # objects are all built to one size, so words of size say nothing here
_Role: TypeAlias = Literal["kind", "colour", "part", "filler", "unknown"]


class UnknownPromptError(ValueError):
    """A prompt that names something the world does not hold, or not exactly one thing in one colour."""


@dataclass(frozen=True)
class Caption:
    kind: str
    """A key of `KINDS`."""
    colour: str
    """A key of `COLOURS`, of the kind's main part."""
    text: str
    """The canonical wording, such as "a red mug"."""


def parse_caption(text: str) -> Caption:
    """Understand a prompt; without a colour the kind's own default is taken.

    Of several colours the one said of the part that takes the colour wins ("a green cactus in a blue pot"), and colours
    that other parts of the kind have by nature are passed over. Raises UnknownPromptError, saying what is known.
    """
    words = list(_classify(re.findall(r"[a-z0-9]+", text.lower())))
    unknown = [word for role, word in words if role == "unknown"]
    if unknown:
        raise UnknownPromptError(_unknown_message(text, unknown))
    name = _the_kind(text, [word for role, word in words if role == "kind"])
    kind = KINDS[name]
    parts = {*kind.coloured, *kind.others}
    foreign = [word for role, word in words if role == "part" and word not in parts]
    if foreign:
        known = ", ".join(sorted(parts)) or "none that can be named"
        raise UnknownPromptError(f"{text!r}: a {name} has no {' or '.join(foreign)}; its parts: {known}")
    return caption_of(name, _the_colour(text, name, words) or kind.default)


def caption_of(kind: str, colour: str) -> Caption:
    """The canonical caption. Raises UnknownPromptError if the kind does not come in that colour."""
    if colour not in KINDS[kind].colours:
        raise UnknownPromptError(f"no {colour} {kind}: it comes in {', '.join(KINDS[kind].colours)}")
    text = KINDS[kind].caption.format(colour)
    return Caption(kind, colour, re.sub(r"\ba (?=[aeiou])", "an ", text))


def random_caption(rng: np.random.Generator, kind: str | None = None) -> Caption:
    """Any kind (or the given one) in any of its colours, evenly."""
    name = kind if kind is not None else tuple(KINDS)[rng.integers(len(KINDS))]
    colours = KINDS[name].colours
    return caption_of(name, colours[rng.integers(len(colours))])


def known_words() -> tuple[str, ...]:
    """Every word a prompt may hold that means something, in the singular, sorted."""
    return tuple(sorted({word for phrase in _vocabulary() for word in phrase}))


@lru_cache(maxsize=1)
def _vocabulary() -> dict[tuple[str, ...], tuple[_Role, str]]:
    """Phrases (as words) to their role and meaning: the kind's name, the colour's name, or the part's own word."""
    phrases: dict[tuple[str, ...], tuple[_Role, str]] = {}
    for kind in KINDS.values():
        phrases |= {tuple(word.split()): ("part", word) for word in (*kind.coloured, *kind.others)}
    phrases |= {(word,): ("colour", word) for word in COLOURS}
    phrases |= {(word,): ("colour", meaning) for word, meaning in COLOUR_SYNONYMS.items()}
    for name, kind in KINDS.items():
        phrases |= {tuple(phrase.split()): ("kind", name) for phrase in (name, *kind.synonyms)}
    return phrases


def _classify(words: list[str]) -> Iterator[tuple[_Role, str]]:
    """Longest phrases first; a last word may be a plural."""
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
    # A thing that is also a part of another one named ("a snowman with a hat") is that part.
    kinds = {name for name in names if not any(name in _part_words(KINDS[other]) for other in names if other != name)}
    if not kinds:
        raise UnknownPromptError(f"{text!r} names no object. {_what_is_known()}")
    if len(kinds) > 1:
        raise UnknownPromptError(f"{text!r} names {len(kinds)} objects, {' and '.join(sorted(kinds))}: name one")
    return kinds.pop()


def _part_words(kind: Kind) -> tuple[str, ...]:
    return (*kind.coloured, *kind.others)


def _the_colour(text: str, name: str, words: list[tuple[_Role, str]]) -> str | None:
    kind = KINDS[name]
    named = {word for role, word in words if role == "colour"}
    if len(named) > 1:
        meaningful = [entry for entry in words if entry[0] != "filler"]
        said_of_part = {
            colour for (role, colour), (_, noun) in pairwise(meaningful) if role == "colour" and noun in kind.coloured
        }
        named = said_of_part or (named - kind.natural) or named
    if len(named) > 1:
        raise UnknownPromptError(
            f"{text!r} names {len(named)} colours, {' and '.join(sorted(named))}: a {name} takes one, as in "
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
    return f"Known objects: {', '.join(sorted(KINDS))}. Known colours: {', '.join(COLOURS)}."
