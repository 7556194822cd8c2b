"""Reading of prompts: free text becomes a caption of the world, and words that have no effect are listed.

The text is cut into segments at punctuation, prepositions and verbs. The object is the last kind in the first segment
that names one ("a robot cat on a sofa" is a cat). A color belongs to the noun that follows it in its segment, else to
the noun before it ("a mug that is red"); the color of a part that keeps its own color is not the object's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from .captions import Caption, UnknownPromptError, caption_of
from .colors import COLOR_SYNONYMS, COLORS
from .kinds import KINDS
from .synonyms import MATERIALS, NOUNS, PARTS, RELATED, SHADES, part_colors

_Role: TypeAlias = Literal["kind", "part", "color", "tone", "filler", "link", "unknown"]
_Lexicon: TypeAlias = Mapping[tuple[str, ...], tuple[_Role, str]]

_FILLERS = (
    "a an the this that some one single my your our his her their its it and with in on of is it has having for from "
    "please make create generate draw show give me i want would like photo photograph picture image render rendering "
    "rendered scene dslr 3d model object asset game ready mesh toy figurine sculpture plastic rubber style stylized "
    "cartoon cute nice beautiful lovely pretty simple shiny classic highly very detailed high low quality resolution "
    "poly lowpoly small big little large tiny huge giant colored coloured color colour pair piece".split()
)  # all objects are built to one size, so size words have no effect
_VIEWS = ("front view", "side view", "back view", "overhead view", "rear view")
_TONES = "light dark bright deep pale vivid soft warm pastel neon rich".split()
"""Words before a color that do not change which color it is."""
_SURFACES = frozenset("leather paint fabric velvet cloth glass ceramic porcelain clay silk felt lacquer enamel".split())
"""Words after a color that say what is colored and are no object of their own, as in "a boot in brown leather"."""
_LINKS = {
    "is": "is are was were that which painted dyed",
    "in": "in",
    "made of": "",
    "of": "of",
    "and": "and or plus",
    "without": "without no not lacking minus",
    "with": "with on at by from to for under over near beside next behind above below inside into onto around through "
    "across like as wearing holding carrying having has have riding whose where while when but beneath against atop "
    "shaped",
}
"""Words that start a segment, by what the segment may say: a color of the noun before it, or what goes with it."""
_ADJECTIVES = ("striped", "spotted", "dotted")
_MADE_OF = tuple(
    f"{verb} {link}" for verb in ("made", "carved", "built", "crafted") for link in ("of", "from", "out of", "in")
)
_HEADS = ("", ",", "of", "and")
"""Links after which an object stands rather than something that goes with one."""
_TOKEN = re.compile(r"[^\W_]+-(?:shaped|like|themed|inspired)\b|[^\W_]+(?:'[^\W_]+)*|[,.;:!?()/\"]")
_LONGEST_PHRASE = 4
_LONGEST_WORD = 40
_REACH = 8
"""Words after a color among which its noun is looked for."""
_MOST_HINTS = 5
_MOST_CHECKED = 50
_MOST_NAMED = 12


@dataclass(frozen=True)
class Reading:
    """A prompt as it is understood."""

    text: str
    """The prompt itself."""
    caption: Caption
    parts: Mapping[str, str | None]
    """Parts that were named and that the kind has, with their colors as far as the text says."""
    ignored: tuple[str, ...] = ()
    """Words without effect, in quotes and in the order of the text, some with the reason."""

    def line(self, what: str = "prompt") -> str:
        """Return one line for the log: the caption, and what was ignored."""
        return f"the {what} is read as {self.caption.text!r}{self._ignored()}"

    def _ignored(self) -> str:
        named, rest = self.ignored[:_MOST_NAMED], len(self.ignored) - _MOST_NAMED
        more = f" and {rest} more" if rest > 0 else ""
        return f"; ignored: {', '.join(named)}{more}" if named else ""


@dataclass(frozen=True)
class Wording:
    """Reads prompts as captions of the kinds and colors that a prior knows."""

    colors: Mapping[str, Sequence[str]] = field(
        default_factory=lambda: {name: kind.colors for name, kind in KINDS.items()}
    )
    """Colors of every kind that the prior knows."""
    strict: bool = False
    """Whether text with words that have no effect is refused."""

    def read(self, text: str, what: str = "prompt") -> Reading:
        """Read a text.

        Args:
            text: The prompt or the negative prompt.
            what: Name of the text in messages.

        Raises:
            UnknownPromptError: The text names no known object, or, if `strict`, holds words that have no effect.
        """
        tokens = [_bare(word) for word in _TOKEN.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))]
        kind = _main_kind(tokens)
        if kind is None:
            raise UnknownPromptError(self._no_object(text, what, tokens))
        if kind not in self.colors:
            near = self._nearest([kind])
            raise UnknownPromptError(
                f"the {what} {_shown(text)} names a {kind}, which this prior was not trained on"
                f"{f' (nearest: {near})' if near else ''}. {self._known()}"
            )
        reading = _interpret(text, tokens, kind, self.colors[kind])
        if self.strict and reading.ignored:
            raise UnknownPromptError(
                f"the {what} {_shown(text)} contains words that have no effect: {', '.join(reading.ignored)}; it "
                f"would be read as {reading.caption.text!r}. Leave them out, set prior.strict_words=false, or use a "
                "prior that was trained on them (docs/models.md)"
            )
        return reading

    def read_both(self, prompt: str, negative_prompt: str = "") -> tuple[Reading, Reading | None]:
        """Read a prompt and a negative prompt, which may be empty.

        Raises:
            UnknownPromptError: See `read`; or both mean the same.
        """
        own = self.read(prompt)
        if not negative_prompt:
            return own, None
        negative = self.read(negative_prompt, "negative prompt")
        if negative.caption == own.caption:
            raise UnknownPromptError(
                f"the negative prompt {_shown(negative_prompt)} means the same as the prompt, {own.caption.text!r}: "
                "name another object or color, or leave it empty"
            )
        return own, negative

    def notes(self, prompt: str, negative_prompt: str = "") -> list[str]:
        """Return one line for each text that says how it is read. Raises UnknownPromptError."""
        own, negative = self.read_both(prompt, negative_prompt)
        return [own.line(), *([negative.line("negative prompt")] if negative else [])]

    def _no_object(self, text: str, what: str, tokens: Sequence[str]) -> str:
        lexicon = _lexicon(None)
        words = dict.fromkeys(
            word for role, _, word in _classify(tokens, lexicon) if role == "unknown" or word in RELATED
        )
        said = sorted((self._hint(word) for word in list(words)[:_MOST_CHECKED]), key=lambda hint: "(" not in hint)
        unknown = f"; unknown words: {', '.join(said[:_MOST_HINTS])}" if said else ""
        return f"the {what} {_shown(text)} names no object{unknown}. {self._known()}"

    def _hint(self, word: str) -> str:
        """Return the word with what the user may have meant: a name of similar spelling, or a related kind."""
        nouns = {noun: kind for kind in self.colors for noun in _nouns(kind)}
        if related := self._nearest(_singulars(word)):
            return f"{word!r} (nearest: {related})"
        limit = 1 + (len(word) > 5)
        close = [noun for noun in nouns if abs(len(noun) - len(word)) <= limit and _edits(word, noun) <= limit]
        return f"{word!r}" + (f" (did you mean {' or '.join(close[:3])}?)" if close and len(word) > 2 else "")

    def _nearest(self, words: Sequence[str] | Iterator[str]) -> str:
        near = [kind for word in words for kind in RELATED.get(word, "").split(", ")]
        return ", ".join(dict.fromkeys(kind for kind in near if kind in self.colors))

    def _known(self) -> str:
        more = "" if self.colors.keys() >= KINDS.keys() else "`--prior world` knows more objects; "
        colors = [color for color in COLORS if any(color in known for known in self.colors.values())]
        return (
            f"Known objects: {', '.join(sorted(self.colors))}. Known colors: {', '.join(colors)}. {more}any other "
            "object needs a text-to-image model (docs/models.md)"
        )


class _Token(NamedTuple):
    """A word or phrase of the user's."""

    role: _Role
    meaning: str
    word: str


def parse_caption(text: str) -> Caption:
    """Return the caption that a text means. Raises UnknownPromptError if any of its words has no effect."""
    return Wording(strict=True).read(text).caption


def model_wording(folder: Traversable | Path, *, strict: bool = False) -> Wording | None:
    """Return the wording of a model trained on captions of the world: its kinds, in the colors that it has words for.

    None if the files in the folder do not say which kinds it knows, or if one of them is not of this world.
    """
    try:
        tokenizer = json.loads((folder / "tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
        kinds = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["kinds"]
        vocabulary = set(tokenizer["model"]["vocab"])
        if not kinds or any(kind not in KINDS for kind in kinds):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None
    captions = {kind: [caption_of(kind, color) for color in KINDS[kind].colors] for kind in kinds}
    colors = {
        kind: [caption.color for caption in known if vocabulary.issuperset(caption.text.split())]
        for kind, known in captions.items()
    }
    return Wording({kind: known for kind, known in colors.items() if known}, strict)


def _main_kind(tokens: Sequence[str]) -> str | None:
    """Return the kind that the text is about: the last one named in the first segment that can hold an object."""
    found: dict[bool, str] = {}
    for link, words in _segments(_classify(tokens, _lexicon(None))):
        kinds = [meaning for role, meaning, _ in words if role == "kind"]
        if kinds and link != "without":
            found.setdefault(link in _HEADS, kinds[-1])
    return found.get(True, found.get(False))


@dataclass
class _Noun:
    """A noun that colors may belong to."""

    role: _Role
    meaning: str
    word: str
    colors: list[tuple[str, str]] = field(default_factory=list)
    """Colors that were said of it, each with the user's word."""


def _interpret(text: str, tokens: Sequence[str], name: str, available: Sequence[str]) -> Reading:
    """Read the text as a caption of this kind."""
    kind, order = KINDS[name], {token: index for index, token in reversed(list(enumerate(tokens)))}
    main = _Noun("kind", name, name)
    parts, ignored = dict[str, _Noun](), list[tuple[str, str]]()
    nothing = _Noun("unknown", "", "")
    before = main
    """The noun that a following color may belong to."""
    for link, words in _segments(_classify(tokens, _lexicon(name))):
        if link == "without":
            ignored += [(word, f"'without {word}'") for role, _, word in words if role in ("kind", "part", "unknown")]
            continue
        pending, here = list[tuple[str, str]](), None
        strange = False
        last_kind = max((place for place, (role, _, _) in enumerate(words) if role == "kind"), default=-1)
        for place, (role, meaning, word) in enumerate(words):
            if role == "color":
                pending.append((meaning, word))
                strange = False
            elif role in ("kind", "part"):
                if role == "part":
                    here = parts.setdefault(meaning, _Noun(role, meaning, word))
                elif meaning == name:
                    here = main
                else:
                    here = _Noun(role, meaning, word)
                    ignored.append((word, repr(word)))
                follows = place < last_kind
                if follows and ((here.role == "kind" and here is not main) or word in _ADJECTIVES):
                    continue  # "a silver robot cat" and "a red striped ball": the color is that of the last noun
                here.colors += pending
                if here is not main and here.role == "kind":
                    ignored += [(said, repr(said)) for _, said in pending]
                pending = []
            elif role == "unknown":
                strange = word not in _SURFACES
                ignored.append((word, repr(word)))
        if pending:
            target = here or _owner(link, pending, strange, before, main, nothing)
            target.colors += pending
            if target is nothing or (target.role == "kind" and target is not main):
                ignored += [(said, repr(said)) for _, said in pending]
            here = target
        if here is not None:
            before = here
        elif any(role == "unknown" for role, _, _ in words):
            before = nothing if link != "," else before
    color = _caption_color(main, [noun for noun in parts.values() if noun.meaning in kind.colored], available, ignored)
    caption = caption_of(name, color)
    for noun in parts.values():
        if noun.meaning not in kind.colored:
            drawn = part_colors(name, noun.meaning, color)
            ignored += [(word, f"{word!r} ({noun.word})") for shade, word in noun.colors if shade not in drawn]
    ignored.sort(key=lambda entry: order.get(entry[0].split()[0], 0))
    said = {part: noun.colors[0][0] if noun.colors else None for part, noun in parts.items()}
    return Reading(text, caption, said, tuple(dict.fromkeys(shown for _, shown in ignored)))


def _owner(
    link: str, colors: Sequence[tuple[str, str]], strange: bool, before: _Noun, main: _Noun, nothing: _Noun
) -> _Noun:
    """Return the noun that colors belong to which stand in a segment without any noun after such a link.

    Args:
        link: What the segment starts with.
        colors: The colors, each with the user's word.
        strange: Whether an unknown word follows the last color, which then belongs to it.
        before: Noun of the segment before.
        main: The object.
        nothing: What is not known.
    """
    if strange:
        return nothing
    if link in ("", ","):
        return main
    if link in ("is", "in", "made of", "and") or (link == "of" and all(word in MATERIALS for _, word in colors)):
        return before
    return nothing


def _caption_color(
    main: _Noun, colored: Sequence[_Noun], available: Sequence[str], ignored: list[tuple[str, str]]
) -> str:
    """Choose the color of the caption; appends the colors that have no effect to `ignored`."""
    kind = KINDS[main.meaning]
    of_part = [said for noun in colored for said in noun.colors]
    of_whole = main.colors
    candidates = [said for said in of_part or of_whole if said[0] in available]
    chosen = next((c for c in candidates if c[0] not in kind.natural), candidates[0] if candidates else None)
    default = kind.default if kind.default in available else available[0]
    color = chosen[0] if chosen else default
    for shade, word in (*of_part, *of_whole):
        natural = shade in kind.natural and (shade not in [s for s, _ in of_whole] or len(of_part + of_whole) > 1)
        if shade == color or natural:
            continue
        why = "" if shade in available else f" (known for {main.meaning}: {', '.join(available)})"
        ignored.append((word, f"{word!r}{why}"))
    return color


def _segments(tokens: Sequence[_Token]) -> Iterator[tuple[str, Sequence[_Token]]]:
    """Cut at links; yields the link, "" at the start, and the words after it. Colors joined by "and" stay together."""
    link, words = "", list[_Token]()
    for index, (role, meaning, _) in enumerate(tokens):
        joins = meaning == "and" and words and words[-1][0] == "color" and _is_color(tokens[index + 1 : index + 4])
        if role == "link" and joins:
            continue
        if role == "link" or _is_verb(tokens, index):
            yield link, words
            link, words = (meaning, list[_Token]()) if role == "link" else ("with", [tokens[index]])
        else:
            words.append(tokens[index])
    yield link, words


def _is_color(tokens: Sequence[_Token]) -> bool:
    return next((role for role, _, _ in tokens if role not in ("tone", "filler")), "") == "color"


def _is_verb(tokens: Sequence[_Token], index: int) -> bool:
    """Whether a word is an unknown verb, as in "a cat sleeping on a sofa", and no adjective ("a smiling cat")."""
    role, _, word = tokens[index]
    follows = tokens[index + 1][0] if index + 1 < len(tokens) else "link"
    return role == "unknown" and word.endswith("ing") and follows in ("link", "filler")


def _classify(words: Sequence[str], lexicon: _Lexicon) -> list[_Token]:
    """Classify words, trying longer phrases first; the last word of a phrase may be plural."""
    out, position = list[_Token](), 0
    while position < len(words):
        for length in range(min(_LONGEST_PHRASE, len(words) - position), 0, -1):
            phrase = words[position : position + length]
            found = (lexicon.get((*phrase[:-1], last)) for last in _singulars(phrase[-1]))
            entry = next((entry for entry in found if entry), None)
            if entry:
                break
        else:
            entry, length = None, 1
        word = " ".join(words[position : position + length])
        out.append(_Token(*entry, word) if entry else _Token("unknown", word, word))
        position += length
    return [_in_context(out, index) for index in range(len(out))]


def _in_context(tokens: Sequence[_Token], index: int) -> _Token:
    """Settle what a word is that may be a part, a tone or a color, from what follows it."""
    role, _, word = tokens[index]
    following = tokens[index + 1 : index + 1 + _REACH]
    if role == "part" and (color := _colors().get(word)) and _precedes_noun(following):
        return _Token("color", color, word)
    if word in _TONES and role != "link":
        if _is_color(following[:3]):
            return _Token("tone", word, word)
        if role == "tone":
            return _Token("color", _colors()[word], word) if word in _colors() else _Token("filler", word, word)
    return tokens[index]


def _precedes_noun(following: Sequence[_Token]) -> bool:
    rest = (role for role, _, _ in following if role not in ("color", "tone", "unknown"))
    return next(rest, "") in ("kind", "part")


@cache
def _colors() -> dict[str, str]:
    return {color: color for color in COLORS} | SHADES | COLOR_SYNONYMS


@cache
def _nouns(kind: str) -> tuple[str, ...]:
    return (*NOUNS.get(kind, "").split(", "), kind, *KINDS[kind].synonyms)


@cache
def _lexicon(main: str | None) -> _Lexicon:
    """Return roles and meanings of phrases in a text about this kind; None: while the kind is not known."""
    out: dict[str, tuple[_Role, str]] = {word: ("filler", word) for word in (*_FILLERS, *_VIEWS)}
    out |= {mark: ("link", "is" if mark == ":" else ",") for mark in ',.;:!?()/"'}
    out |= {word: ("link", link) for link, words in _LINKS.items() for word in words.split()}
    out |= {phrase: ("link", "made of") for phrase in _MADE_OF}
    out |= {word: ("color", color) for word, color in _colors().items()}
    out |= {word: ("tone", word) for word in _TONES}
    out |= {noun: ("kind", kind) for kind in KINDS for noun in _nouns(kind)}
    if main is not None:
        kind = KINDS[main]
        own = {part for part in (*kind.colored, *kind.others) if part != "leave"}
        out |= {word: ("part", part) for word, means in PARTS.items() for part in means[::-1] if part in own}
        out |= {noun: ("part", part) for part in own if part in KINDS for noun in _nouns(part)}
        out |= {part: ("part", part) for part in own}
        out |= {noun: ("kind", main) for noun in _nouns(main)}
    return {tuple(phrase.split()): entry for phrase, entry in out.items()}


def _singulars(word: str) -> Iterator[str]:
    yield word
    for ending, singular in (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f")):
        if word.endswith(ending) and len(word) > len(ending) + 1:
            yield word.removesuffix(ending) + singular


def _edits(first: str, second: str) -> int:
    """Count the insertions, deletions, replacements and swaps of neighboring letters between two words."""
    before, last = list[int](), list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        now = [i]
        for j, other in enumerate(second, 1):
            now.append(min(last[j] + 1, now[j - 1] + 1, last[j - 1] + (letter != other)))
            if i > 1 and j > 1 and letter == second[j - 2] and first[i - 2] == other:
                now[j] = min(now[j], before[j - 2] + 1)
        before, last = last, now
    return last[-1]


def _bare(word: str) -> str:
    """Remove a possessive ending, and what is too long for any word."""
    return (word.removesuffix("'s") if len(word) > len("'s") else word)[:_LONGEST_WORD]


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:200]}...")
