"""Captions, and texts that mean them word for word."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from steindreamer.world import (
    COLORS,
    KINDS,
    Caption,
    UnknownPromptError,
    caption_of,
    parse_caption,
    random_caption,
)
from steindreamer.world.colors import COLOR_SYNONYMS


@pytest.mark.parametrize("kind", KINDS)
def test_every_caption_is_understood_as_itself(kind: str) -> None:
    for color in KINDS[kind].colors:
        caption = caption_of(kind, color)
        assert caption.kind == kind and caption.color == color
        assert parse_caption(caption.text) == caption
        assert parse_caption(f"A photo of {caption.text.upper()}, please!") == caption


@pytest.mark.parametrize("kind", KINDS)
def test_synonyms_plurals_and_defaults(kind: str) -> None:
    default = caption_of(kind, KINDS[kind].default)
    for name in (kind, *KINDS[kind].synonyms):
        assert parse_caption(name) == default
        assert parse_caption(f"{name}s") == default
        assert parse_caption(f"the {default.color} {name}") == default


@pytest.mark.parametrize("kind", KINDS)
def test_the_register_is_consistent(kind: str) -> None:
    entry = KINDS[kind]
    assert entry.default in entry.colors and set(entry.colors) <= set(COLORS) and entry.natural <= set(COLORS)
    assert "{}" in entry.caption
    for part in entry.colored:
        assert parse_caption(f"{kind} with {entry.default} {part}").color == entry.default


def test_names_are_unambiguous() -> None:
    names = [name for key, kind in KINDS.items() for name in (key, *kind.synonyms)]
    assert len(names) == len(set(names))
    assert not set(names) & {*COLORS, *COLOR_SYNONYMS}
    assert set(COLOR_SYNONYMS.values()) <= set(COLORS)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("red mug", "a red mug"),
        ("MUG: crimson", "a red mug"),
        ("a 3D model of two... a purple Cup".replace("two... ", ""), "a purple mug"),
        ("orange mugs", "an orange mug"),
        ("a small grey automobile", "a gray car"),
        ("wooden chair", "a brown chair"),
        ("ice-cream", "a pink ice cream cone"),
        ("christmas tree", "a green pine tree"),
        ("a castle with red roofs", "a castle with red roofs"),
        ("a gray castle with blue roofs", "a castle with blue roofs"),
        ("a green cactus in a blue pot", "a cactus in a blue pot"),
        ("a white snowman with a green scarf and a black hat", "a snowman with a green scarf"),
        ("a yellow duck with an orange beak", "a yellow duck"),
        ("a red mushroom with white spots", "a mushroom with a red cap"),
    ],
)
def test_prompts(prompt: str, text: str) -> None:
    assert parse_caption(prompt).text == text


def test_the_order_of_words_does_not_matter() -> None:
    for words in itertools.permutations(["a", "blue", "rocket", "toy", "please"]):
        assert parse_caption(" ".join(words)) == Caption("rocket", "blue", "a blue rocket")


def test_the_error_is_a_value_error() -> None:
    assert issubclass(UnknownPromptError, ValueError)


def test_random_captions_cover_every_kind_and_repeat_with_the_seed() -> None:
    drawn = [random_caption(np.random.default_rng(seed)) for seed in range(40 * len(KINDS))]
    assert {caption.kind for caption in drawn} == set(KINDS)
    assert drawn[7] == random_caption(np.random.default_rng(7))
    assert all(parse_caption(caption.text) == caption for caption in drawn)
    tulips = {random_caption(np.random.default_rng(seed), "tulip").color for seed in range(200)}
    assert tulips == set(KINDS["tulip"].colors)
