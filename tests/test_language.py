"""The language of the product: words of the field, docstrings that stand alone, nothing public undocumented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRODUCT = ("representations", "distill", "world", "training", "pipelines", "steindreamer")
CODE = (*PRODUCT, "benchmarks", "examples", "tests")
BANNED = {
    r"\bpictures?\b|(?<![a-z])[Pp]ictures?(?![a-z])": "image",
    r"[Cc]olour": "color",
    r"\b\w*(?:optimis|normalis|regularis|rasteris|recognis|minimis|maximis|initialis|summaris|randomis)\w*": "-iz-",
    r"\bgrey\b": "gray",
    r"\bcentres?\b|\bcentred\b": "center",
    r"\bmetres?\b": "meter",
    r"\bneighbour": "neighbor",
    r"\bbehaviour": "behavior",
    r"\bfore(?:tell|told)": "predict",
    r"\b(?:is|are|was|were|be) told\b|\btold (?:the|its|of|a|which)\b": "conditioned on, given",
    r"\bof no account\b": "no effect",
    r"\bby heart\b": "memorized",
    r"\bheed(?:s|ed|ing)?\b": "follow",
    r"\bmends?\b|\bmended\b": "fix",
    r"\blikeness\b": "PSNR",
    r"\bhand-?overs?\b": "conversion",
    r"\bopenness\b": "ambient occlusion",
    r"\btwins?\b|_twin\b": "reference implementation",
    r"\bwary\b": "a descriptive name",
    r"\blessons?\b|\bLesson\b": "training batch",
    r"\bbelieve[sd]?\b": "predicted x0",
    r"\bcan be had\b": "is available",
    r"\bcontact sheet of images\b": "preview grid",
    r"\bcontenders?\b": "candidate",
    r"\bpenalt(?:y|ies)\b": "regularizer",
    r"\bshall be\b": "target, is",
    r"\blying charts?\b": "axis-aligned chart",
    r"\bso too\b": "likewise",
    r"\bshares? of\b": "fraction of",
    r"\bone's own\b": "custom",
    r"\banswers? with\b": "return",
    r"\bdoes not mind\b": "is invariant to",
    r"\bhas it all\b": "provides all of it",
    r"(?<![\w.])\.\d+ to \.\d": "0.38 to 0.46",
    r"\blow-rank copy\b": "LoRA denoiser",
    r"\bstudents?\b(?!')|\bStudentTerm\b": "learned control variate",
}
"""Words of the left column of the glossary in CONTRIBUTING.md, as patterns, and what to write instead."""
ALLOWED = re.compile(
    r"photograph picture image|\"a picture of\"|colored coloured color colour|\"grey\": \"gray\"|small grey automobile"
    r"|Student's t|https?://\S+|\(`regularisers`\)|stages\.coarse\.regularisers"
)
"""Words that users may type, and names."""
WITH_OLD_NAMES = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "pipelines/settings/renamed_settings.py",
    "benchmarks/results/wording.md",
)
"""Files that name earlier settings, the words to avoid, or prompts as people write them."""
FRAGMENT = re.compile(
    r"(?:Of|And|The same|So|But|Or|With|By|As|What|Where|Whatever|Which|How|Than|Whose|Not|Those|That|From|To|In|On|At"
    r"|Also|Else|Otherwise|Nothing|Only|Because|Since|Without|Beside|Besides)\b(?!-)"
)
"""First words of docstrings that do not stand alone."""


def _python(folders: tuple[str, ...]) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def _texts() -> list[Path]:
    docs = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "configs").glob("*.yaml"),
        *(ROOT / "benchmarks").rglob("*.md"),
    ]
    own = {Path(__file__), *(ROOT / name for name in WITH_OLD_NAMES)}
    return [path for path in [*_python(CODE), *docs] if path not in own and path.exists()]


def _banned(text: str) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(text.splitlines(), 1):
        line = ALLOWED.sub("", line)
        for pattern, better in BANNED.items():
            if found := re.search(pattern, line):
                yield number, found.group(), better


def test_no_word_of_the_left_column() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number}: {word!r}, write {better!r}"
        for path in _texts()
        for number, word, better in _banned(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join([f"{len(found)} places", *found[:60]])


def _documented(tree: ast.Module) -> Iterator[tuple[int, str, str | None, bool]]:
    """Line, name and docstring of the module, its classes, functions and annotated fields; whether it is public."""
    yield 1, "module", ast.get_docstring(tree), True
    stack: list[tuple[ast.AST, str, bool]] = [(tree, "", True)]
    while stack:
        parent, prefix, public = stack.pop()
        body = getattr(parent, "body", [])
        for node, following in zip(body, [*body[1:], None], strict=True):
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                visible = public and not node.name.startswith("_")
                yield node.lineno, prefix + node.name, ast.get_docstring(node), visible
                if isinstance(node, ast.ClassDef):
                    stack.append((node, f"{prefix}{node.name}.", visible))
            elif isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(following, ast.Expr):
                if isinstance(following.value, ast.Constant) and isinstance(following.value.value, str):
                    yield following.lineno, prefix + ast.unparse(node)[:30], following.value.value.strip(), True


def _fragment(text: str) -> bool:
    first = text.lstrip("`*(")
    return bool(FRAGMENT.match(text)) or (text[:1].isalpha() and first[:1].islower())


def test_docstrings_stand_alone() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {name}: {text.splitlines()[0]!r}"
        for path in _python(PRODUCT)
        for line, name, text, _ in _documented(ast.parse(path.read_text(encoding="utf-8")))
        if text and _fragment(text)
    ]
    assert not found, "\n".join([f"{len(found)} places", *found[:60]])


INHERITED = ("forward", "extra_repr", "__init__")


def _overrides(tree: ast.Module) -> set[str]:
    """Methods of classes with a base class of the product keep the contract's docstring."""
    return {
        f"{node.name}.{method.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.bases
        for method in node.body
        if isinstance(method, ast.FunctionDef)
    }


def test_nothing_public_is_undocumented() -> None:
    found = []
    for path in _python(PRODUCT):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        inherited = _overrides(tree)
        for line, name, text, public in _documented(tree):
            if public and not text and name not in inherited and name.split(".")[-1] not in INHERITED:
                found.append(f"{path.relative_to(ROOT)}:{line}: {name}")
    assert not found, "\n".join([f"{len(found)} places", *found[:60]])


@pytest.mark.parametrize(
    ("text", "fragment"),
    [("Of the run.", True), ("and at its end.", True), ("The noise schedule.", False), ("`None`: no limit.", False)],
)
def test_the_fragment_test_can_fail(text: str, fragment: bool) -> None:
    assert _fragment(text) is fragment


def test_the_word_test_can_fail() -> None:
    assert [word for _, word, _ in _banned("a picture\nan image of a colour\nStudent's t")] == ["picture", "colour"]
