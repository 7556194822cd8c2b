"""Checks of output paths, made before anything is measured."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import SettingsError


def check_output_file(path: Path, option: str) -> None:
    """Check that a file can be written at `path`. Raises SettingsError naming the option."""
    if path.exists() and not path.is_file():
        raise SettingsError(
            f"{option} {path} is {'a folder' if path.is_dir() else 'not a regular file'}; give the path of a file"
        )
    if not path.parent.is_dir():
        raise SettingsError(f"{option} {path}: the folder {path.parent} does not exist; create it first")
    if not os.access(path if path.exists() else path.parent, os.W_OK) or not os.access(path.parent, os.W_OK):
        raise SettingsError(f"{option} {path} is not writable; choose another path")


def check_output_folder(path: Path, option: str) -> None:
    """Check that `path` is a writable folder or can be created. Raises SettingsError naming the option."""
    nearest = next((place for place in (path, *path.absolute().parents) if os.path.lexists(place)), path)
    if not nearest.is_dir():
        raise SettingsError(f"{option} {path}: {nearest} is not a folder; choose another path")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise SettingsError(f"{option} {path}: {nearest} is not writable; choose another path")
