"""Plugins: the user's own files, and installed packages, that register representations, methods, baselines and priors.

A plugin is run when it is named on the command line (`--plugin FILE.py`) or installed with an entry point of the group
`steindreamer.plugins`. A plugin named in a run's folder or in a preset is not run for that reason: it has to be given
on the command line again.
"""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from ..errors import SettingsError, UserError, in_one_line
from ..foreign_code import LOADED, installed_plugins


def check_plugin_files(files: Iterable[Path]) -> None:
    """Raises SettingsError for a path that is not a Python file; nothing is run."""
    for file in files:
        if file.suffix != ".py" or not file.is_file():
            kind = "does not exist" if not file.is_file() else "is not a Python file"
            raise SettingsError(f"--plugin {file} {kind}; give the path of a .py file")


def load_plugins(files: Sequence[Path]) -> list[str]:
    """Run the installed plugins, then the given files. Returns the absolute paths of the files.

    Raises SettingsError for a path that is not a Python file, and UserError for a plugin that fails, with its file and
    line.
    """
    check_plugin_files(files)
    installed = installed_plugins()
    for point in installed:
        _load_installed(point)
    loaded = [_load_file(file.resolve()) for file in dict.fromkeys(files)]
    if installed or loaded:
        _check_entries()
    return loaded


def refuse_missing_plugins(layers: Iterable[Mapping[str, Any]], given: Iterable[Path]) -> None:
    """Raises SettingsError if the settings need a plugin that is not given; its file may have moved since.

    Args:
        layers: contents of config.yaml or of a preset.
        given: the plugin files on the command line.
    """
    present = {file.name for file in given}
    recorded = [plugins for layer in layers if isinstance(plugins := layer.get("plugins"), list)]
    named = dict.fromkeys(str(file) for plugins in recorded for file in plugins)
    missing = [file for file in named if Path(file).name not in present]
    if missing:
        again = " ".join(f"--plugin {shlex.quote(file)}" for file in missing)
        raise SettingsError(
            f"these settings need the plugin {', '.join(missing)}, which is loaded only when given explicitly: add "
            f"{again}"
        )


def _load_file(path: Path) -> str:
    key = str(path)
    if key not in LOADED:
        stem = re.sub(r"\W", "_", path.stem)  # any file name makes a module's name
        name = f"steindreamer_plugin_{len(LOADED) + 1}_{stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None, "a .py file always has a loader"
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look up their module
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:
            del sys.modules[name]
            raise UserError(f"plugin {path} failed{_place(error, path)}: {_described(error)}") from error
        LOADED[key] = module
    return key


def _load_installed(point: EntryPoint) -> None:
    if point.value in LOADED:
        return
    try:
        loaded = point.load()
    except (Exception, SystemExit) as error:
        owner = f" of {point.dist.name}" if point.dist else ""
        raise UserError(
            f"the installed plugin '{point.name}'{owner} ({point.value}) failed: {_described(error)}; "
            "fix or uninstall it"
        ) from error
    LOADED[point.value] = loaded


def _check_entries() -> None:
    """Raises UserError for a registered component whose settings cannot be read or that cannot be built."""
    from ..optimization.component_checks import check_entry
    from .run_config import CHOICES

    for section, known in CHOICES.items():
        for name, config in known.items():
            check_entry(section, name, config)
            try:
                config()
            except Exception as error:
                raise UserError(
                    f"the {section} '{name}' of a plugin ({config.__name__}) cannot be built with its default "
                    f"settings: {_described(error)}"
                ) from error


def _place(error: BaseException, path: Path) -> str:
    """The text " in line N" for the innermost line in the plugin's file; empty if it is unknown."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return f" in line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return f" in line {lines[-1]}" if lines else ""


def _described(error: BaseException) -> str:
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{type(error).__name__}: {in_one_line(text)}" if text else type(error).__name__
