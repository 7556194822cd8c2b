"""YAML from anywhere: the right values, or one line; never a hang, a traceback or a value of another kind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.errors import SettingsError
from steindreamer.pipelines.plain_text import why_refused
from steindreamer.pipelines.settings.setting_text import anything
from steindreamer.pipelines.settings.yaml_text import MAX_BYTES, Plain, YamlError, parse_yaml, write_yaml

SETTINGS = "refine: no\nstages:\n  coarse:\n    steps: 012\n"


@pytest.mark.parametrize(
    "content",
    [
        SETTINGS.encode(),
        SETTINGS.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + SETTINGS.encode(),
        SETTINGS.encode("utf-16"),
        b"\xfe\xff" + SETTINGS.encode("utf-16-be"),
        ("---\n" + SETTINGS + "...\n").encode(),
        b"%YAML 1.1\n---\n" + SETTINGS.encode(),
        b"{refine: 'off', stages: {coarse: {steps: \"12\"}}}",
        b"refine: &no false\nstages: {coarse: &c {steps: 12}, geometry: {<<: *c, steps: 3, rates: 0.5}}",
        b"refine: !!str no\nstages: {coarse: {steps: 12, environment: &a false, shading: {enabled: *a}}}",
    ],
)
def test_settings_are_read_from_every_form(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    config = load_config(path)
    assert config.refine is False and config.stages["coarse"].steps == 12
    assert config.stages["geometry"].steps in (400, 3)


@pytest.mark.parametrize("content", [b"", b"  \n", b"# nothing\n", b"\xef\xbb\xbf"])
def test_an_empty_file_says_nothing(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    assert load_config(path) == load_config(None)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(12)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"stages:\n\tcoarse:\n\t\tsteps: 2\n", "found character '\\t' that cannot start any token (line 2, column 1)"),
        (b"prompt: a: b", "mapping values are not allowed here (line 1, column 10)"),
        (b"seed: [1", "(line 1, column 9)"),
        (b"seed: 1\nseed: 2", "the key 'seed' is given twice (line 2, column 1)"),
        (b"stages: {coarse: {steps: 1, 'steps': 2}}", "the key 'steps' is given twice"),
        (b"1: 2", "unknown key '1'"),
        (b"true: 2", "unknown key 'true'"),
        (b"? [a]\n: b", "a key is not a single value (line 1, column 3)"),
        (b"? {a: b}\n: c", "a key is not a single value"),
        (
            b"prompt: !!python/object/apply:os.getcwd []",
            "python/object/apply:os.getcwd (line 1, column 9) is not supported",
        ),
        (b"!!python/object/new:dict {}", "is not supported"),
        (b"prompt: !!binary aGk=", "is not supported"),
        (b"!!set {a}", "is not supported"),
        (b"prompt: !mine a", "the tag !mine"),
        (b"seed: *a", "*a (line 1, column 7) refers to an undefined or incomplete anchor"),
        (b"stages: &a {coarse: *a}", "*a (line 1, column 21) refers to an undefined or incomplete anchor"),
        (b"stages: &a [*a]", "*a (line 1, column 13) refers to"),
        (LAUGHS.encode(), "it contains more than 20000 values"),
        (b"[" * 20000 + b"]" * 20000, "nested more than 32 levels deep"),
        (b"[" * 20000, "nested more than 32 levels deep"),
        (b"{a: " * 20000, "nested more than 32 levels deep"),
        (b"- " * 20000, "nested more than 32 levels deep"),
        (b"<<: 3", "<< (line 1, column 1) takes mappings"),
        (b"a: 1\n---\nb: 2", "a second document starts (line 2, column 1)"),
        (b"#" * (MAX_BYTES + 1), "it has more than 200000 bytes"),
        (b"prompt: \xff", "byte 8 is not valid UTF-8"),
        (b"\xff\xfea", "byte 2 is not valid UTF-16"),
        (b"prompt: a\0b", "#x0000"),
        (SETTINGS.encode("utf-32"), "#x0000"),
        (b'prompt: "\\U00110000"', "this is not YAML"),
        (b'prompt: "\\UFFFFFFFF"', "this is not YAML"),
        (b'prompt: "\\ud800"', "prompt is '\\ud800': it contains surrogates"),
        (b"prompt: |\n  a\n  b\n", "prompt is 'a\\nb': it contains control characters (U+000A)"),
        (b"- 1\n- 2", "must contain sections and values, got ['1', '2']"),
        (b"text", "must contain sections and values, got 'text'"),
        (b"PK\x03\x04\x00\x00", "cannot read"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_config(path)
    text = str(caught.value)
    assert message in text and "\n" not in text and len(text) < 400 + len(str(path))


@pytest.mark.parametrize("text", ["[" * 5000, "[" * 20000, "{a: " * 5000, "&a [*a]", "!!python/name:os.system"])
def test_overrides_are_read_with_the_same_care(text: str) -> None:
    for key in ("stages.coarse.steps", "stages", "method.control_variates.terms", "when.nerf"):
        with pytest.raises(SettingsError) as caught:
            load_config(None, overrides=[f"{key}={text}"])
        assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)
    assert load_config(None, overrides=[f"negative_prompt={text[:900]}"]).negative_prompt == text[:900]


def test_a_paragraph_ends_before_its_line_break(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("prompt: >\n  a red\n  mug\nnegative_prompt: |\n  a blue mug\n")
    config = load_config(path)
    assert (config.prompt, config.negative_prompt) == ("a red mug", "a blue mug")


def test_what_is_no_file_is_no_preset(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    for name in ("pipe.yaml", "folder.yaml", "absent.yaml"):
        with pytest.raises(SettingsError, match="unknown preset"):
            load_config(tmp_path / name)


def test_scalars_stay_what_they_look_like() -> None:
    assert parse_yaml("[yes, 010, 1:30, 0x10, null, '1', !!str 1]") == ["yes", "010", "1:30", "0x10", "null", "1", "1"]
    kinds = [type(value) for value in parse_yaml("[yes, 'yes', \"yes\", !!str yes]")]
    assert kinds == [Plain, str, str, str]
    merged = parse_yaml("{a: &a {x: 1, y: 2}, b: &b {x: 3}, c: {<<: [*b, *a], y: 4}, '<<': {z: 5}}")
    assert merged["c"] == {"x": "3", "y": "4"} and merged["<<"] == {"z": "5"}


_PIECES = [
    "a", "b: ", "- ", "\n", "\n  ", "[", "]", "{", "}", ", ", ": ", "? ", "&a ", "*a", "!!str ", "!t ", "'", '"', "|\n",
    ">", "#", "\\", "\\u0041", "\\U00110000", "%YAML 1.2\n", "---\n", "...\n", "<<: ", "\t", "\0", "\ud800", "é", "~",
    "1e3", "\ufeff",
]  # fmt: skip


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(st.sampled_from(_PIECES), max_size=25).map("".join))
def test_any_text_is_values_or_one_line(text: str) -> None:
    try:
        values = parse_yaml(text)
    except YamlError as error:
        assert len(str(error).splitlines()) == 1
        return
    pending = [values]
    while pending:
        value = pending.pop()
        assert value is None or type(value) in (dict, list, str, Plain)
        pending += value.values() if isinstance(value, dict) else value if isinstance(value, list) else []


_TEXTS = (st.text(max_size=20) | st.text("a '\":#", max_size=200)).filter(lambda text: not why_refused(text))
_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXTS
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3), max_leaves=8
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(_VALUES)
def test_what_was_written_is_read_as_it_was(value: Any) -> None:
    read = anything(parse_yaml(write_yaml({"a": value})))["a"]
    assert read == value and repr(read) == repr(value)
