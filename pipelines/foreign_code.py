"""Code from outside this package: loaded plugins, and which of their functions raised an exception."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

OURS = "steindreamer"
GROUP = "steindreamer.plugins"

LOADED: dict[str, ModuleType] = {}
"""Loaded plugin files by resolved path; a file that is named twice is loaded once."""


def installed_plugins() -> tuple[EntryPoint, ...]:
    """Entry points of the installed plugins; none of them is imported."""
    return tuple(entry_points(group=GROUP))


def culprit(error: BaseException) -> str:
    """The innermost function of a plugin or of a registered external component in the traceback of an error.

    Returns text such as "Voxels.render (/home/me/voxels.py, line 12)"; empty if no such code was involved.
    """
    folders, packages = _plugin_folders(), _foreign_packages()
    found, trace = "", error.__traceback__
    while trace is not None:
        if _is_foreign(trace.tb_frame, folders, packages):
            code = trace.tb_frame.f_code
            name = code.co_qualname.replace(".<locals>", "")
            found = f"{name} ({code.co_filename}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return found


def _is_foreign(frame: FrameType, folders: set[Path], packages: set[str]) -> bool:
    package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
    if package == OURS:
        return False
    file = Path(frame.f_code.co_filename)
    beside = any(folder in file.parents for folder in folders) and "site-packages" not in file.parts
    return package in packages or beside


def _plugin_folders() -> set[Path]:
    """Folders of the loaded plugin files; a plugin may import modules beside it."""
    return {Path(key).parent for key in LOADED if Path(key).is_absolute()}


def _foreign_packages() -> set[str]:
    """Top-level packages of the installed plugins and of the registered classes and functions."""
    packages = {point.value.partition(":")[0].partition(".")[0] for point in installed_plugins()}
    config: Any = sys.modules.get(f"{__package__}.config.run_config")  # code that is not loaded cannot have failed
    if config is not None:
        packages |= {each.__module__.partition(".")[0] for known in config.CHOICES.values() for each in known.values()}
    return packages - {OURS}
