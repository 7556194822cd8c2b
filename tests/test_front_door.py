"""`import steindreamer`: light, complete, and its docstrings show what works."""

from __future__ import annotations

import doctest
import inspect
import logging
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import steindreamer
from steindreamer import distill, representations
from steindreamer.pipelines.console import console
from steindreamer.registry import Registry

EXAMPLES = [
    thing
    for package in (representations, distill)
    for name in package.__all__
    if inspect.isroutine(thing := getattr(package, name)) or inspect.isclass(thing)
]
CALLED = [name for name in steindreamer.__all__ if name.islower() and not name.startswith("__")]


def _examples(thing: Any) -> list[doctest.DocTest]:
    """The examples of a docstring; they may use what its module imports."""
    names = {**vars(sys.modules[thing.__module__]), "Path": Path, "torch": torch}
    return [test for test in doctest.DocTestFinder(recurse=False).find(thing, "example", globs=names) if test.examples]


def test_everything_that_is_called_shows_an_example() -> None:
    assert {"text_to_3d", "load_config", "register_family", "list_priors"} <= {*CALLED}
    for name in CALLED:
        assert "Example:" in (inspect.getdoc(getattr(steindreamer, name)) or ""), name


def test_public_functions_show_an_example() -> None:
    lacking = [thing.__name__ for thing in EXAMPLES if inspect.isfunction(thing) and not _examples(thing)]
    assert not lacking


@pytest.mark.slow
@pytest.mark.parametrize(
    "thing",
    [
        *(Registry, Registry.register, Registry.names, steindreamer.load_config, steindreamer.text_to_3d),
        *filter(_examples, EXAMPLES),
    ],
    ids=lambda thing: thing.__qualname__,
)
def test_the_example_of_a_docstring_runs(
    thing: type | types.FunctionType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tests = _examples(thing)
    assert tests
    for test in tests:
        runner = doctest.DocTestRunner()
        runner.run(test)
        assert runner.summarize(verbose=False).failed == 0


def test_a_library_prints_nothing_that_nobody_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("steindreamer.pipelines.somewhere")
    logger.warning("a warning")
    with console():
        logger.info("progress")
        logger.warning("amiss")
    with console(None):
        logger.info("more progress")
    with console("steindreamer.pipelines"):
        logger.info("of pipelines")
        logging.getLogger("steindreamer.distill").info("of another")
    logger.warning("after it")
    assert capfd.readouterr() == ("progress\nof pipelines\n", "amiss\n")


def test_every_name_is_there_and_a_missing_one_is_told() -> None:
    assert {*steindreamer.__all__} <= {*dir(steindreamer)}
    for name in steindreamer.__all__:
        assert getattr(steindreamer, name) is not None, name
    with pytest.raises(AttributeError, match="has no attribute 'text_to_4d'"):
        steindreamer.text_to_4d  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


def test_importing_it_is_light() -> None:
    code = (
        "import sys, time; start = time.process_time(); import steindreamer; spent = time.process_time() - start\n"
        "print([name for name in ('torch', 'numpy', 'omegaconf') if name in sys.modules], spent < 0.2, spent)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] True"), done.stdout
