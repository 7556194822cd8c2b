"""Which component of somebody else's an exception came from."""

from __future__ import annotations

import sys
from pathlib import Path
from types import FrameType
from typing import Any

from .plugins import LOADED, installed_plugins

OURS = "steindreamer"


def culprit(error: BaseException) -> str:
    """Where a plugin, or a registered component from outside this package, was when it raised this.

    Such as "Voxels.render (/home/me/voxels.py, line 12)": the innermost of their functions. Empty if it was none of
    theirs.
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
    """A plugin may import what lies beside it."""
    return {Path(key).parent for key in LOADED if Path(key).is_absolute()}


def _foreign_packages() -> set[str]:
    """Of installed plugins, and of the classes and functions that are registered."""
    packages = {point.value.partition(":")[0].partition(".")[0] for point in installed_plugins()}
    config: Any = sys.modules.get(f"{__package__}.config")  # what is not loaded has not failed
    if config is not None:
        packages |= {each.__module__.partition(".")[0] for known in config.CHOICES.values() for each in known.values()}
    return packages - {OURS}
