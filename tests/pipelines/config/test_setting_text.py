"""Text that is given for a setting is that text, wherever it is given; characters that look alike are refused."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from steindreamer.pipelines.cli.run import main
from steindreamer.pipelines.config.run_config import SCHEMA, compose, load_config, read_config
from steindreamer.pipelines.errors import SettingsError, UserError
from steindreamer.pipelines.plain_text import MAX_CHARACTERS, on_one_line, why_refused
from steindreamer.pipelines.runs.folder import create_folder
from steindreamer.pipelines.runs.resuming import resumed_config
from steindreamer.pipelines.settings.validation import as_plain, read_settings
from steindreamer.pipelines.settings.yaml_text import Given, Plain, parse_yaml, write_yaml

MARKERS = [
    "???", "a ??? mug", "${oc.env:HOME}", "${seed}", r"a mug C:\${HOME}\x", r"\${x}", r"\\${x}", r"\\\${", "${", "$",
    "${${a}}", "a: b", "- a", "[x]", "{a: 1}", "# a", "a # b", "*a", "&a b", "!!str a", "!a", "| a", "> a", "%a", "@a",
    "`a`", "'a'", '"a"', "yes", "no", "on", "null", "~", "true", "010", "0x10", "0o10", "1_000", "1e3", "1.", ".5",
    "1:30", ".inf", ".nan", "2024-01-01", "<<", "=", "---", "...", "a,b", "a  b", " a ", "x" * 500, "ein Krug: ä",
    "日本の茶碗", "a 🦆 mug", "می\u200cخواهم", "e\u0301", "\U0001f469\u200d\U0001f680",
    "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
]  # fmt: skip
KEYS = (
    "prompt", "negative_prompt", "prior.model", "representation.initial_ply", "estimator.model", "method.source",
    "stages.coarse.method.target",
)  # fmt: skip
"""Of every depth; the last is inside of what is a dict to its dataclass."""


def _nested(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


@pytest.mark.parametrize("shift", range(2))
@pytest.mark.parametrize("how", ["override", "python", "file"])
def test_text_is_taken_to_the_letter(how: str, shift: int) -> None:
    chosen: dict[str, Any] = {"prior": "diffusers", "method": "bridge"}
    for start in range(-shift, len(MARKERS), len(KEYS)):
        texts = [MARKERS[(start + index) % len(MARKERS)] for index in range(len(KEYS))]
        given = dict(zip(KEYS[shift:] + KEYS[:shift], texts, strict=True))
        if how == "override":
            config = load_config(None, overrides=[f"{key}={text}" for key, text in given.items()], **chosen)
        else:
            layers = [_nested(key, text) for key, text in given.items()]
            config = compose(layers if how == "python" else [parse_yaml(write_yaml(layer)) for layer in layers], chosen)
        plain = config.to_plain()
        assert {key: _at(plain, key) for key in given} == given
        if how == "file":
            assert compose([parse_yaml(write_yaml(plain))]) == config


def test_a_resumed_run_has_the_same_text(tmp_path: Path) -> None:
    for index, text in enumerate(("???", r"yes: a mug in C:\${HOME}\x # ${oc.env:HOME}")):
        folder = tmp_path / str(index)
        given = [f"stages.coarse.method={{name: bridge, target: '{text}'}}", f"negative_prompt={text}"]
        config = load_config(None, prompt=text, overrides=given)
        assert config.methods["coarse"].texts(text, text) == (text + text, text)
        create_folder(folder, config, overwrite=False)
        assert read_config(folder / "config.yaml") == config
        assert resumed_config(folder, [], {}, SCHEMA) == config
        with pytest.raises(UserError, match="different settings"):
            resumed_config(folder, [{"prompt": f"{text} "}], {}, SCHEMA)


@pytest.mark.parametrize(("text", "value"), [("yes", "yes"), ("010", "010"), ("1e3", "1e3"), ("2024-01-01", None)])
def test_a_word_without_quotes_in_a_file_is_text_where_text_is_wanted(text: str, value: str | None) -> None:
    tree = parse_yaml(f"prompt: {text}\nmethod: {{control_variates: {{terms: [{text}]}}}}")
    assert compose([{"prompt": tree["prompt"]}]).prompt == (value or text)
    with pytest.raises(SettingsError, match=f"got \\['{text}'\\]"):
        compose([tree])


@pytest.mark.parametrize("text", ["null", "~", ""])
def test_nothing_in_a_file_is_no_text(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"prompt: {text}\n")
    with pytest.raises(SettingsError, match=r"prompt is .*, which is not text in YAML; put it in quotes"):
        load_config(tmp_path / "mine.yaml")
    assert load_config(None, overrides=[f"negative_prompt={text}"]).negative_prompt == text


REFUSED = {
    "newline": "a\nb", "tab": "a\tb", "return": "a\rb", "bell": "\x07", "escape": "a\x1b[31m", "null": "a\0b",
    "delete": "a\x7f", "c1": "a\x80", "next line": "a\x85b", "last c1": "a\x9f", "no utf-8": "a red mug \udcff",
    "surrogate": "\ud800", "bidi override": "a\u202eb", "bidi isolate": "\u2066a", "left-to-right": "a\u200e",
    "zero width space": "a\u200bb", "byte order mark": "\ufeffa", "word joiner": "a\u2060b", "soft hyphen": "a\xadb",
    "line separator": "a\u2028b", "paragraph": "a\u2029b", "noncharacter": "a\ufffe", "another": "\U0010ffff",
    "tag alone": "a\U000e0041", "interlinear": "\ufff9", "long": "x" * (MAX_CHARACTERS + 1),
}  # fmt: skip


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_nobody_sees_is_refused_in_one_line(name: str) -> None:
    text = REFUSED[name]
    assert why_refused(text)
    for key in ("prompt", "negative_prompt", "representation.initial_ply", "stages.coarse.method.target"):
        with pytest.raises(SettingsError) as caught:
            load_config(None, method="bridge", overrides=[f"{key}={text}"])
        message = str(caught.value)
        assert message.startswith(f"{key} is ") and len(message) < 300
        assert message.isprintable() and message.encode()


@pytest.mark.parametrize("text", MARKERS)
def test_ordinary_text_is_not_refused(text: str) -> None:
    assert not why_refused(text)


@pytest.mark.parametrize(
    "arguments", [["--prompt", "a red mug \udcff"], ["prompt=a\x9bmug"], ["--prior", "~nobody-\n"]]
)
def test_nothing_is_written_for_text_that_is_refused(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--prior", "world", *arguments]) != 0
    out = capsys.readouterr()
    assert not out.out and len(out.err.splitlines()) == 1 and out.err.startswith("error: ")
    assert not list(tmp_path.iterdir())


def test_every_error_is_one_line_of_visible_text() -> None:
    assert str(UserError("a\nb\x1b[31m \udcff\u202e ä 日本")) == "a b\\x1b[31m \\udcff\\u202e ä 日本"
    assert on_one_line("plain") == "plain"
    refused: list[dict[str, Any]] = [
        {"prior": "~nobody"},
        {"prior": "x" * 5000},
        {"method": "a\nb"},
        {"preset": "x" * 5000 + ".yaml"},
    ]
    for arguments in refused:
        with pytest.raises(SettingsError) as caught:
            load_config(**arguments)
        assert len(str(caught.value)) < 500 and str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("stages.coarse.steps=010", 10),
        ("stages.coarse.steps=+7", 7),
        ("stages.coarse.steps= 7 ", 7),
        ("method.guidance_scale=1e2", 100.0),
        ("method.guidance_scale=010", 10.0),
        ("method.guidance_scale=.5", 0.5),
        ("method.guidance_scale=5.", 5.0),
        ("method.guidance_scale=3", 3.0),
        ("export.height_meters=null", None),
        ("export.height_meters=~", None),
        ("export.height_meters=0.3", 0.3),
        ("refine=no", False),
        ("refine=off", False),
        ("refine=False", False),
        ("refine=yes", True),
        ("refine=on", True),
        ("method.control_variates.terms=[noise, 'spectral']", ["noise", "spectral"]),
        ("method.control_variates.terms=[]", None),
        ("stages.coarse.views.elevation=[-5, 1e1]", [-5.0, 10.0]),
        ("stages.coarse.regularizers.sparsity=1e-3", 0.001),
        ("stages.coarse.regularizers.sparsity=010", 10),
        ("stages.coarse.regularizers.sparsity={from: 0, to: 1e-3}", {"from": 0, "to": 0.001}),
    ],
)
def test_the_setting_decides_what_text_means(override: str, value: Any, tmp_path: Path) -> None:
    key = override.partition("=")[0].split(".")
    if override == "method.control_variates.terms=[]":
        with pytest.raises(SettingsError, match=r"method\.control_variates\.terms must list some of"):
            load_config(None, overrides=[override])
        return
    config = load_config(None, overrides=[override])
    found = _at(config.to_plain(), override.partition("=")[0])
    assert found == value and type(found) is type(value)
    path = tmp_path / "mine.yaml"
    nested = override.partition("=")[2]
    for part in reversed(key):
        nested = f"{{{part}: {nested}}}"
    path.write_text(nested)
    assert load_config(path) == config


@pytest.mark.parametrize(
    "override",
    [
        *(
            f"stages.coarse.steps={text}"
            for text in ("0x10", "0o10", "1_000", "1e3", "1:30", "10.0", "true", "null", "")
        ),
        *(f"stages.coarse.steps={text}" for text in ("[1]", "{a: 1}", "１２", "1 2", "9" * 5000, "[" * 5000, "5 # a")),
        *(
            f"method.guidance_scale={text}"
            for text in ("1_0", "0x10", "1:30", "nan", ".nan", ".inf", "-inf", "infinity")
        ),
        *(f"method.guidance_scale={text}" for text in ("true", "null", "", "1,5", "1e999", "７")),
        *(f"refine={text}" for text in ("1", "0", "2", "y", "null", "", "[true]", "wahr")),
        *(f"export.height_meters={text}" for text in ("", "none", "nan", "tall", "[1]")),
        *(
            f"method.control_variates.terms={text}"
            for text in ("spectral", "", "null", "{a: b}", "[[noise]]", "[noise", "[null]")
        ),
        *(f"stages.coarse.views.elevation={text}" for text in ("5", "[1, nan]", "[1, yes]", "[1, [2]]", "[1, 0x2]")),
        *(f"stages.coarse.regularizers.sparsity={text}" for text in ("yes", "0x10", "1_0", "nan", "", "null", "[1]")),
        *(
            f"stages.coarse={text}"
            for text in ("3", "", "null", "[1]", "{steps: 1_0}", "{steps", "{steps: 1, steps: 2}")
        ),
    ],
)
def test_text_that_is_no_value_of_the_setting_is_refused_by_name(override: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(SettingsError) as caught:
        load_config(None, overrides=[override])
    message = str(caught.value)
    assert key in message and len(message) < 600 and "\n" not in message


class _Side(enum.Enum):
    LEFT = 1
    RIGHT = 2


@dataclass
class _Part:
    name: str = "?"
    size: int = 1


@dataclass
class _Section:
    required: str
    path: Path = Path("a")
    side: _Side = _Side.LEFT
    word: Literal["one", "two", 3] = "one"
    either: int | str | None = None
    pair: tuple[int, float] = (1, 2.0)
    parts: list[_Part] = field(default_factory=list)
    maybe: _Part | None = None
    weights: dict[str, float] = field(default_factory=dict)
    free: Any = None


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("path", "${x}/???", Path("${x}/???")),
        ("side", "RIGHT", _Side.RIGHT),
        ("word", "two", "two"),
        ("word", "3", 3),
        ("either", "012", 12),
        ("either", "yes", "yes"),
        ("either", "null", None),
        ("pair", "[1, 1e1]", (1, 10.0)),
        ("parts", "[{name: '${a}', size: 3}]", [_Part("${a}", 3)]),
        ("maybe", "{name: no}", _Part("no", 1)),
        ("weights", "{a: 1, 2: .5}", {"a": 1.0, "2": 0.5}),
        ("free", "[1, yes, null, 010, 1e1, '010', {a: true}]", [1, "yes", None, 10, 10.0, "010", {"a": True}]),
        ("free", "a: b: c", "a: b: c"),
    ],
)
def test_a_component_of_ones_own_may_have_settings_of_any_kind(key: str, text: str, value: Any) -> None:
    section = read_settings(_Section, {"required": "???", key: Given(text)}, "x")
    assert getattr(section, key) == value and section.required == "???"
    assert read_settings(_Section, parse_yaml(write_yaml(as_plain(section))), "x") == section


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "x.required is missing and has no default"),
        ({"required": None}, "x.required is None; text is accepted"),
        ({"required": 3}, "x.required is 3; text is accepted"),
        ({"required": "a", "side": "UP"}, "x.side is 'UP'; accepted: LEFT, RIGHT"),
        ({"required": "a", "word": "four"}, "x.word is 'four'; accepted: one, two, 3"),
        ({"required": "a", "pair": [1]}, "x.pair is [1]; a list of 2 is accepted"),
        ({"required": "a", "parts": [{"nam": "b"}]}, "unknown key 'x.parts[0].nam' (did you mean 'name'?)"),
        ({"required": "a", "weights": {"a": "b"}}, "x.weights.a is 'b'; a finite number is accepted"),
        ({"required": "a", "weights": {3: 1.0}}, "a key of x.weights is 3; text is accepted"),
        ({"required": "a", "free": object}, "x.free is <class 'object'>; text, numbers"),
        ({"required": "a", "free": Plain(".nan")}, None),
        ({"required": "a", "free": [float("nan")]}, "x.free[0] is nan; a finite number is accepted"),
        (
            {"required": "a", "free": [0] * 2000},
            "x.free is [0, 0, 0, 0, 0, 0, ...], which has 2000 values; at most 1000 are accepted",
        ),
    ],
)
def test_the_error_of_a_component_of_ones_own_names_the_setting(given: Any, message: str | None) -> None:
    if message is None:
        assert read_settings(_Section, given, "x").free == ".nan"
        return
    with pytest.raises(SettingsError) as caught:
        read_settings(_Section, given, "x")
    assert str(caught.value).startswith(message)


def test_a_value_that_contains_itself_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)
    mapping: dict[str, Any] = {}
    mapping["a"] = mapping
    for value in (loop, mapping):
        for key in ("prompt", "seed", "refine"):
            with pytest.raises(SettingsError, match=f"^{key} is "):
                compose([{key: value}])
        with pytest.raises(SettingsError, match=r"nested more than 32 levels deep|unknown key|finite number"):
            compose([{"stages": {"coarse": {"regularizers": {"sparsity": value}}}}])
