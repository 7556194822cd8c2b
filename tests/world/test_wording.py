"""How free text is read as a caption of the world."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steindreamer.training.prior.wording import build_tokenizer, vocabulary
from steindreamer.world import COLORS, KINDS, UnknownPromptError, Wording, caption_of, parse_caption
from steindreamer.world.synonyms import MATERIALS, NOUNS, PART_COLORS, PARTS, RELATED, SHADES
from steindreamer.world.wording import model_wording

WORLD = Wording()
EXAMPLES = json.loads((Path(__file__).parents[2] / "benchmarks" / "plain_prompts.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("prompt", "text", "ignored"),
    [
        ("a snow man wearing a top hat", "a snowman with a red scarf", ""),
        ("a toadstool with white dots", "a mushroom with a red cap", ""),
        ("an armchair made of oak", "a brown sofa", ""),
        ("a shiny, hyperrealistic red mug", "a red mug", "'hyperrealistic'"),
        ("a red mug, side view", "a red mug", ""),
        ("a duck with an orange beak", "a yellow duck", ""),
        ("a house of stone", "a house with a gray roof", ""),
        ("a mug of chocolate", "a white mug", "'chocolate'"),
        ("a robot cat on a sofa", "an orange cat", "'robot', 'sofa'"),
        ("a silver robot cat", "a gray cat", "'robot'"),
        ("a cat-shaped teapot in green", "a green teapot", "'cat-shaped'"),
        ("on a hill, a castle", "a castle with red roofs", "'hill'"),
        ("wearing a hat, a penguin", "a black penguin", "'hat'"),
        ("a black and white penguin", "a black penguin", ""),
        ("a dark blue car", "a blue car", ""),
        ("a dark car", "a black car", ""),
        ("a cupcake with a cherry on top", "a cupcake with pink icing", "'top'"),
        ("a cherry cupcake", "a cupcake with red icing", ""),
        ("a house without a chimney", "a house with a red roof", "'without chimney'"),
        ("a rocket with red fins", "a red rocket", "'red' (fins)"),
        ("a lorry whose cab is green", "a green truck", ""),
        ("a house; roof: blue; door: brown", "a house with a blue roof", ""),
        ("a robot in a blue jacket", "a blue robot", "'blue', 'jacket'"),
        ("an old boot in brown leather", "a brown boot", "'old', 'leather'"),
        ("white toadstool", "a mushroom with a red cap",
         "'white' (known for mushroom: red, orange, yellow, green, blue, purple, pink, brown)"),
        ("my wizard\N{RIGHT SINGLE QUOTATION MARK}s hat", "a purple wizard hat", ""),
        ("a green castle with red roofs", "a castle with red roofs", "'green'"),
        ("two ducks!", "a yellow duck", "'two'"),
    ],
)  # fmt: skip
def test_plain_words(prompt: str, text: str, ignored: str) -> None:
    reading = WORLD.read(prompt)
    assert (reading.caption.text, ", ".join(reading.ignored)) == (text, ignored)
    assert reading.text == prompt


def test_the_line_names_caption_and_ignored_words() -> None:
    assert WORLD.notes("a shiny red mug, hyperrealistic, octane", "blue mug") == [
        "the prompt is read as 'a red mug'; ignored: 'hyperrealistic', 'octane'",
        "the negative prompt is read as 'a blue mug'",
    ]
    line = WORLD.read("a red mug " + " ".join(f"word{i}" for i in range(40))).line()
    assert line.endswith("'word11' and 28 more")


@pytest.mark.parametrize("kind", KINDS)
def test_every_name_in_the_singular_and_the_plural(kind: str) -> None:
    default = caption_of(kind, KINDS[kind].default)
    for noun in (kind, *KINDS[kind].synonyms, *NOUNS.get(kind, kind).split(", ")):
        for text in (noun, f"the {noun}", f"three {noun}s", f"a DSLR photo of a {noun.upper()}, 8k"):
            assert WORLD.read(text).caption == default, text


@pytest.mark.parametrize("kind", KINDS)
def test_the_color_of_a_part_is_not_that_of_the_object(kind: str) -> None:
    entry = KINDS[kind]
    for part in entry.others:
        for color in COLORS:
            reading = WORLD.read(f"a {kind} with a {color} {part}")
            assert reading.caption.color == entry.default, (part, color)
            assert list(reading.parts.values()) == [color]
    for part in entry.colored:
        for color in entry.colors:
            for text in (f"a {kind} with a {color} {part}", f"a {kind} whose {part} is {color}"):
                assert WORLD.read(text).caption.color == color, text


def test_word_order() -> None:
    for text in ("a red apple", "apple red", "an apple in red", "an apple that is red", "red, an apple", "apple: red"):
        assert WORLD.read(text).caption.text == "a red apple", text


def test_tables_speak_of_the_world() -> None:
    assert set(NOUNS) <= set(KINDS) and set(PART_COLORS) <= set(KINDS)
    assert set(SHADES.values()) <= set(COLORS)
    assert all(MATERIALS) and all(near in KINDS for near in ", ".join(RELATED.values()).split(", "))
    parts = {part for kind in KINDS.values() for part in (*kind.colored, *kind.others)}
    assert {means for each in PARTS.values() for means in each} <= parts
    for kind, colors in PART_COLORS.items():
        assert set(colors) <= {*KINDS[kind].others}
        assert {color for each in colors.values() for color in each.split()} <= {*COLORS, "*"}
    names = [noun for kind, nouns in NOUNS.items() for noun in (*nouns.split(", "), kind, *KINDS[kind].synonyms)]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a red mgu", "'mgu' (did you mean mug?)"),
        ("a snoman in winter", "'snoman' (did you mean snowman or snow man?)"),
        ("a DSLR photo of a corgi puppy", "'corgi' (nearest: cat, teddy bear)"),
        ("a rose", "'rose' (nearest: tulip)"),
        ("something red", "names no object"),
        ("", "names no object"),
    ],
)
def test_no_known_object_is_one_line_with_the_nearest(prompt: str, message: str) -> None:
    with pytest.raises(UnknownPromptError) as caught:
        WORLD.read(prompt)
    said = str(caught.value)
    assert message in said and "\n" not in said
    assert all(name in said for name in (*KINDS, *COLORS)) and "docs/models.md" in said


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        ("a hyperrealistic red mug", "'hyperrealistic'"),
        ("a duck in a mug", "'mug'"),
        ("a red blue mug", "'blue'"),
        ("a mug with a roof", "'roof'"),
        ("a black umbrella", "'black' (known for umbrella: red"),
        ("a red rocket with blue fins", "'blue' (fins)"),
    ],
)
def test_strict_words(prompt: str, named: str) -> None:
    assert WORLD.read(prompt).ignored
    with pytest.raises(UnknownPromptError, match="strict_words=false") as caught:
        Wording(strict=True).read(prompt)
    assert named in str(caught.value)
    with pytest.raises(UnknownPromptError):
        parse_caption(prompt)


def test_negative_prompts_name_another_object_or_color() -> None:
    own, negative = WORLD.read_both("a red mug", "a blurry blue mug")
    assert negative is not None and (own.caption.color, negative.caption.color) == ("red", "blue")
    assert WORLD.read_both("a red mug")[1] is None
    for text, message in (
        ("a crimson cup", "means the same as the prompt, 'a red mug'"),
        ("blurry", "negative prompt"),
    ):
        with pytest.raises(UnknownPromptError, match=message):
            WORLD.read_both("a red mug", text)


def write_model(folder: Path, kinds: tuple[str, ...], words: list[str]) -> Path:
    (folder / "tokenizer").mkdir(parents=True)
    table = {"model": {"vocab": {word: index for index, word in enumerate(words)}}}
    (folder / "tokenizer" / "tokenizer.json").write_text(json.dumps(table))
    (folder / "model_index.json").write_text(json.dumps({"kinds": {kind: [kind] for kind in kinds}}))
    return folder


def test_a_model_knows_its_own_kinds_and_colors(tmp_path: Path) -> None:
    few = ("mug", "chair", "snowman")
    wording = model_wording(write_model(tmp_path / "few", few, [word for word in vocabulary(few) if word != "purple"]))
    assert wording is not None and set(wording.colors) == set(few)
    assert wording.read("a coffee mug on a sofa").caption.text == "a white mug"
    assert "'purple' (known for mug: red" in wording.read("a purple mug").ignored[0]
    with pytest.raises(UnknownPromptError, match=r"names a sofa, .*not trained on \(nearest: chair\).*--prior world"):
        wording.read("a couch")
    everything = model_wording(write_model(tmp_path / "all", tuple(KINDS), vocabulary(tuple(KINDS))))
    assert everything is not None and everything.colors.keys() == KINDS.keys()
    assert all(tuple(everything.colors[name]) == kind.colors for name, kind in KINDS.items())
    assert model_wording(write_model(tmp_path / "other", ("zebra",), ["zebra"])) is None
    assert model_wording(tmp_path) is None


def test_what_a_model_is_given_are_words_that_it_knows(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    tokenizer = build_tokenizer(vocabulary(tuple(KINDS)))
    for row in EXAMPLES:
        if row["kind"]:
            text = WORLD.read(row["prompt"]).caption.text
            assert tokenizer.unk_token_id not in tokenizer(text).input_ids, text


WORDS = [
    *(word for row in EXAMPLES for word in row["prompt"].split()), *KINDS, *COLORS, *SHADES, *PARTS, "with", "and",
    "is", "without", "in", "made of", ",", ":", "of", "'s", "-", "(", "\N{RIGHT SINGLE QUOTATION MARK}",
]  # fmt: skip


def check_any_text(text: str) -> None:
    try:
        reading = WORLD.read(text)
    except UnknownPromptError as error:
        assert "names no object" in str(error) and len(str(error).splitlines()) == 1
        return
    assert reading.caption == caption_of(reading.caption.kind, reading.caption.color)
    assert WORLD.read(reading.caption.text).caption == reading.caption
    assert WORLD.read(reading.caption.text).ignored == () and len(reading.line().splitlines()) == 1
    parts = {*KINDS[reading.caption.kind].colored, *KINDS[reading.caption.kind].others}
    assert set(reading.parts) <= parts


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    check_any_text(text)


def test_any_words_are_read_or_refused_in_one_line() -> None:
    dice = random.Random(0)
    for _ in range(600):
        check_any_text(" ".join(dice.choices(WORDS, k=dice.randint(1, 14))))


@pytest.mark.parametrize(
    "unit", ["mug ", "red ", "light ", "robot with ", "x", "striped ", "in red, ", "made out ", "zq "]
)
def test_long_texts_take_no_more_than_linear_time(unit: str) -> None:
    def seconds(length: int) -> float:
        text, best = (unit * length)[:length], float("inf")
        for _ in range(3):
            start = time.process_time()
            check_any_text(text)
            best = min(best, time.process_time() - start)
        return best

    seconds(2000)
    assert seconds(20000) < 30 * seconds(2000) + 0.2


def test_captions_of_the_generator_keep_their_meaning() -> None:
    rng = np.random.default_rng(1)
    from steindreamer.training.prior.wording import reworded

    for kind in KINDS:
        for color in KINDS[kind].colors:
            text = reworded(caption_of(kind, color), rng)
            assert parse_caption(text) == caption_of(kind, color), text
