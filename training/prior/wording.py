"""Wordings of captions in training, and the vocabulary of a prior trained on them."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from steindreamer.world import COLORS, KINDS, Caption, caption_of
from steindreamer.world.colors import COLOR_SYNONYMS

OPENINGS = (
    "a photo of", "a picture of", "an image of", "a rendering of", "a 3d model of", "a dslr photo of", "a sculpture of",
    "a high quality photo of", "a highly detailed 3d model of", "a photograph of", "a render of", "a 3d render of",
    "a 3d asset of", "a game ready 3d model of", "a low poly 3d model of", "a high resolution image of",
    "a figurine of", "a scene with", "please make", "create", "generate", "draw", "show me", "give me", "i want",
    "i would like",
)  # fmt: skip
ENDINGS = (
    "in cartoon style", "in a stylized style", "low poly", "highly detailed", "very detailed", "high quality",
    "3d model", "3d asset", "game asset", "3d object", "rendered in high resolution",
)  # fmt: skip
ADJECTIVES = (
    "cute", "small", "big", "shiny", "simple", "beautiful", "nice", "little", "toy", "plastic", "cartoon", "large",
    "tiny", "huge", "giant", "lovely", "pretty", "classic", "rubber", "stylized", "lowpoly", "single",
)  # fmt: skip
ARTICLES = ("the", "one", "this", "my", "some", "")
PAD, BEGIN, END, UNKNOWN = SPECIAL_TOKENS = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")
MAX_TOKENS = 20
"""Maximum number of tokens of a prompt, including the start and end tokens."""


def reworded(caption: Caption, rng: np.random.Generator) -> str:
    """Return the canonical text or a different wording that `parse_caption` parses to the same caption."""
    kind = KINDS[caption.kind]
    noun = _sometimes(0.3, kind.synonyms, caption.kind, rng)
    # Without words that would merge with the noun: a gold fish.
    synonyms = [
        word
        for word, meaning in COLOR_SYNONYMS.items()
        if meaning == caption.color and f"{word} {noun}" not in kind.synonyms
    ]
    color = _sometimes(0.2, synonyms, caption.color, rng)
    colorless = caption.color == kind.default and rng.random() < 0.1
    whole = kind.caption.startswith("a {}")
    template = kind.caption.replace(caption.kind, noun)
    if rng.random() < 0.3 or (noun != caption.kind and whole):
        template = _sometimes(0.3, _orders(noun, colorless), f"a {{}} {noun}", rng)
    elif not whole and not colorless:
        # Natural colors of other parts may be mentioned: a green cactus in a blue pot.
        others = sorted(kind.natural - {caption.color})
        template = template.replace(f"a {noun}", f"a {_sometimes(0.1, others, '', rng)} {noun}", 1)
    if template == f"a {{}} {noun}" and rng.random() < 0.06:
        template = f"{{}} {plural(noun)}"
    parts = named_parts(caption.kind)
    if rng.random() < 0.12 and parts:
        joint = "and" if " with " in template else "with"
        part = parts[int(rng.integers(len(parts)))]
        template += f" {joint} {plural(part) if rng.random() < 0.3 else 'a ' + part}"
    text = template.format("" if colorless else color)
    text = re.sub("^a ", f"{_sometimes(0.12, ARTICLES, 'a', rng)} {_sometimes(0.15, ADJECTIVES, '', rng)} ", text)
    return _spelled(f"{_sometimes(0.15, OPENINGS, '', rng)} {text} {_sometimes(0.06, ENDINGS, '', rng)}")


def plural(noun: str) -> str:
    """Form the plural of a noun, or of a phrase that ends in one, by spelling rules."""
    if re.search("[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    if re.search("(s|x|ch|sh)$", noun):
        return noun + "es"
    return noun + "s"


def nouns(kind: str) -> tuple[str, ...]:
    """Return every word or phrase for the kind, singular and plural."""
    singular = (kind, *KINDS[kind].synonyms)
    return (*singular, *(plural(noun) for noun in singular))


@cache
def named_parts(kind: str) -> tuple[str, ...]:
    """Return parts that captions may mention; words that also name a kind or a color are parsed as those."""
    known = {noun for other in KINDS for noun in nouns(other)} | {*COLORS, *COLOR_SYNONYMS}
    known |= {"leaf", "leave"}  # the parser accepts both, but not for every kind
    return tuple(part for part in KINDS[kind].others if part not in known)


def vocabulary(kinds: Sequence[str]) -> list[str]:
    """Return every word in the wordings of these kinds, sorted."""
    captions = [caption_of(name, color).text for name in kinds for color in KINDS[name].colors]
    things = [word for name in kinds for word in nouns(name)]
    parts = [word for name in kinds for part in named_parts(name) for word in (part, plural(part))]
    joints = ("a an", "and with", "that is in", "colored")
    phrases = itertools.chain(
        captions, things, parts, COLORS, COLOR_SYNONYMS, OPENINGS, ENDINGS, ADJECTIVES, ARTICLES, joints
    )
    return sorted({word for phrase in phrases for word in phrase.split()})


def build_tokenizer(words: Sequence[str]) -> Any:
    """Build a `PreTrainedTokenizerFast` with one token per word, ignoring case and punctuation."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate((*SPECIAL_TOKENS, *words))}
    tokenizer: Any = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex("[^a-z0-9]+"), " ")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", special_tokens=[(token, ids[token]) for token in (BEGIN, END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_TOKENS,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        unk_token=UNKNOWN,
    )


def _orders(noun: str, colorless: bool) -> tuple[str, ...]:
    """Return word orders with the color in other positions; only for captions with a color."""
    return () if colorless else (f"a {noun} in {{}}", f"a {noun} that is {{}}", f"a {{}} colored {noun}")


def _sometimes(probability: float, choices: Sequence[str], otherwise: str, rng: np.random.Generator) -> str:
    if not choices or rng.random() >= probability:
        return otherwise
    return choices[int(rng.integers(len(choices)))]


def _spelled(text: str) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(text.split()))
