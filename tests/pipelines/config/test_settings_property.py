"""Any value for any setting, and any text for a prompt: the right value that comes back, or one line with the key."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from every_setting import Setting, alternatives, bare, every_setting
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from steindreamer.pipelines.config.run_config import MAX_PROMPT_CHARACTERS, RunConfig, compose, load_config
from steindreamer.pipelines.errors import SettingsError
from steindreamer.pipelines.plain_text import why_refused
from steindreamer.pipelines.settings.composing import DERIVED
from steindreamer.pipelines.settings.yaml_text import parse_yaml, write_yaml

SETTINGS = every_setting()
BY_KIND = [[one for one in SETTINGS if bare(one.kind) is kind] for kind in (int, float, bool, str)]
# A failure is shown as it was found: making it smaller would take minutes.
BOUNDED = settings(
    max_examples=60, deadline=None, derandomize=True, database=None, phases=(Phase.explicit, Phase.generate)
)

_ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=30)
_MARKED_TEXT = st.lists(
    st.sampled_from(["???", "${", "}", "\\", "oc.env:HOME", "a", " ", ":", "#", "'", '"', "-", "[", "yes", "1", "\n"]),
    max_size=12,
).map("".join)
_NUMBERS = st.integers() | st.floats() | st.sampled_from([0, 1, 2**63, 10**30, -1, 0.5, math.nan, math.inf])
_WORDS = st.sampled_from(
    ["yes", "no", "null", "010", "0x10", "1_0", "1e3", ".nan", "[1, 2]", "{a: 1}", "auto", "", "~"]
)
_NEARLY_NUMBERS = st.from_regex(r"[-+]?[0-9]{1,3}[._:xe ][0-9]{0,3}", fullmatch=True)
_SCALARS = st.none() | st.booleans() | _NUMBERS | _ANY_TEXT | _MARKED_TEXT | _WORDS
_VALUES = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_ANY_TEXT, inner, max_size=2), max_leaves=4
)


def _is_right(setting: Setting, given: Any, value: Any) -> bool:
    """Whether the value is what was given, as its kind says; text that was written out may be any kind."""
    kinds = [bare(setting.kind), *map(bare, alternatives(bare(setting.kind)))]
    if str in kinds:
        return value == given
    if bool in kinds:
        return type(value) is bool and (given is value or str(given).strip().lower() in _SPELLED[value])
    if int in kinds or float in kinds:
        if value is None:
            return given in (None, "null", "~")
        return "_" not in str(given) and float(value) == float(given)  # Python reads 1_0 as 10
    return isinstance(value, list)


_SPELLED = {True: ("true", "yes", "on"), False: ("false", "no", "off")}


def _comes_back(config: RunConfig) -> bool:
    return compose([parse_yaml(write_yaml(config.to_plain()))]) == config


@BOUNDED
@given(st.sampled_from(SETTINGS), _VALUES)
def test_any_value_of_python_for_any_setting(setting: Setting, value: Any) -> None:
    try:
        config = compose([setting.layer(value)], dict(setting.chosen))
    except SettingsError as error:
        _check_refusal(setting, str(error))
        return
    found = setting.of(config)
    assert _is_right(setting, value, found), (setting.key, value, found)
    assert _comes_back(config)


@BOUNDED
@given(st.tuples(*map(st.sampled_from, BY_KIND)), _NEARLY_NUMBERS | _SCALARS.map(str) | _MARKED_TEXT | _WORDS)
def test_any_text_of_the_command_line_for_a_setting_of_each_kind(settings: tuple[Setting, ...], text: str) -> None:
    for setting in settings:
        try:
            names: dict[str, Any] = dict(setting.chosen)
            config = load_config(None, overrides=[f"{setting.key}={text}"], **names)
        except SettingsError as error:
            _check_refusal(setting, str(error))
            continue
        found = setting.of(config)
        assert _is_right(setting, text, found), (setting.key, text, found)
        assert bare(setting.kind) is not str or _comes_back(config)


@BOUNDED
@given(_ANY_TEXT | _MARKED_TEXT, st.booleans())
@example("???", True)
@example("${oc.env:HOME}", True)
@example(r"C:\${HOME}\x", False)
def test_any_prompt(prompt: str, typed: bool) -> None:
    accepted = not why_refused(prompt) and prompt.strip() and len(prompt) <= MAX_PROMPT_CHARACTERS
    try:
        config = load_config(None, overrides=[f"prompt={prompt}"]) if typed else compose([{"prompt": prompt}])
    except SettingsError as error:
        assert not accepted and "prompt" in str(error) and str(error).isprintable()
        return
    assert accepted and config.prompt == prompt
    assert compose([parse_yaml(write_yaml({"prompt": config.prompt}))]) == config


def _check_refusal(setting: Setting, message: str) -> None:
    """One line with the key, or with its section if settings contradict each other."""
    section = setting.key.rpartition(".")[0]
    assert setting.key in message or (section and section in message), (setting.key, message)
    assert len(message.splitlines()) == 1 and len(message) < 600
    message.encode()


def test_every_setting_is_among_them() -> None:
    keys = {setting.key for setting in SETTINGS}
    assert len(keys) > 200
    assert {field.name for field in fields(RunConfig)} - {key.partition(".")[0] for key in keys} == set(DERIVED)
