"""How captions are worded in training, and the words a prior trained on them knows."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..world import COLOURS, KINDS, Caption, caption_of
from ..world.colours import COLOUR_SYNONYMS

OPENINGS = (
    "a photo of", "a picture of", "an image of", "a rendering of", "a 3d model of", "a dslr photo of", "a sculpture of",
    "a high quality photo of", "a highly detailed 3d model of",
)  # fmt: skip
ADJECTIVES = ("cute", "small", "big", "shiny", "simple", "beautiful", "nice", "little", "toy", "plastic", "cartoon")
PAD, BEGIN, END, UNKNOWN = SPECIAL_TOKENS = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")
MAX_TOKENS = 16
"""Of a prompt, the two marks at its ends included."""


def reworded(caption: Caption, rng: np.random.Generator) -> str:
    """Often the canonical text; else other words, or more of them, that `parse_caption` understands as the same."""
    kind = KINDS[caption.kind]
    noun = _sometimes(0.3, kind.synonyms, caption.kind, rng)
    synonyms = [word for word, meaning in COLOUR_SYNONYMS.items() if meaning == caption.colour]
    colour = _sometimes(0.2, synonyms, caption.colour, rng)
    if caption.colour == kind.default and rng.random() < 0.1:
        colour = ""
    template, direct = kind.caption.replace(caption.kind, noun), f"a {{}} {noun}"
    if rng.random() < 0.3 or (noun != caption.kind and kind.caption.startswith("a {}")):
        template = direct
    text = template.format(colour)
    text = re.sub("^a ", f"a {_sometimes(0.15, ADJECTIVES, '', rng)} ", text)
    return _spelled(f"{_sometimes(0.15, OPENINGS, '', rng)} {text}")


def vocabulary(kinds: Sequence[str]) -> list[str]:
    """Every word of the wordings of these kinds, sorted."""
    captions = [caption_of(name, colour).text for name in kinds for colour in KINDS[name].colours]
    synonyms = [word for name in kinds for word in (name, *KINDS[name].synonyms)]
    phrases = itertools.chain(captions, synonyms, COLOURS, COLOUR_SYNONYMS, OPENINGS, ADJECTIVES, ("a an",))
    return sorted({word for phrase in phrases for word in phrase.split()})


def build_tokenizer(words: Sequence[str]) -> Any:
    """A `PreTrainedTokenizerFast`: one token per word, whatever its case and the punctuation around it."""
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


def _sometimes(probability: float, choices: Sequence[str], otherwise: str, rng: np.random.Generator) -> str:
    if not choices or rng.random() >= probability:
        return otherwise
    return choices[int(rng.integers(len(choices)))]


def _spelled(text: str) -> str:
    return re.sub(r"\ba (?=[aeiou])", "an ", " ".join(text.split()))
