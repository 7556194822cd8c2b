"""Manifest of the files that a run has written: these may be replaced, all others belong to the user."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from steindreamer.atomic_file import is_temporary

from ..errors import UserError
from ..files import read_regular, write_atomically
from .checkpoint_record import is_checkpoint
from .lock import NAME as LOCK
from .watchdog import FILE_NAME as WATCHDOG

NAME = ".files.json"

FILES = (
    "metrics.jsonl",
    "summary.json",
    "audit.json",
    "turntable.webp",
    "report.html",
    WATCHDOG,
    NAME,
    "config.yaml",
)
"""Files written directly into the run's folder; config.yaml is last because it identifies the run."""

FOLDERS = ("checkpoints", "previews", "asset")

_USUAL = {
    "checkpoints": is_checkpoint,
    "previews": re.compile(r"([0-9]{6,}|final|(coarse|geometry|texture)(-start)?)\.png").fullmatch,
    "asset": re.compile(
        r"(particle_[0-9]+/)?(asset\.(glb|png|ply)|asset_(lods|collider|splats)\.glb|(maps|thumbnail)\.png)"
    ).fullmatch,
}
"""Patterns of file names that every run may write; other names are listed in the manifest."""

_LARGEST = 1 << 22


class Manifest:
    """Names of written files, relative to the run's folder, and the settings that the asset was made with."""

    def __init__(self, folder: Path) -> None:
        """Load the manifest of an earlier run in the folder, if there is one that can be read."""
        self.folder = folder
        self.names: set[str] = set()
        self.asset: dict[str, Any] = {}
        """Settings that the asset was made with; empty if unknown."""
        try:
            found = json.loads(read_regular(folder / NAME, _LARGEST))
            self.names = {str(name) for name in found["files"]}
            self.asset = dict(found["asset"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            pass  # the patterns of `_USUAL` apply without it

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Record every file that appears or changes in `FOLDERS` during the context, even if that raises an error."""
        before = self._states()
        try:
            yield
        finally:
            written = {name for name, state in self._states().items() if before.get(name) != state}
            if not written <= self.names:
                self.names |= written
                self._write()

    def begin_asset(self, settings: Mapping[str, Any]) -> None:
        """Record that an asset with these settings is about to be written."""
        if self.asset != settings:
            self.asset = dict(settings)
            self._write()

    def foreign(self) -> list[str]:
        """List the files in the folder that the run has not written, as sorted relative names.

        Raises:
            UserError: One of the run's own folders is not a folder.
        """
        check_kinds(self.folder)
        found = [
            path.name
            for path in self.folder.iterdir()
            if path.name not in (*FILES, *FOLDERS, LOCK) and not is_leftover(path.name)
        ]
        return sorted(found + [name for folder in FOLDERS for name in self._inside(folder) if not self._is_own(name)])

    def _is_own(self, name: str) -> bool:
        folder, _, rest = name.partition("/")
        return name in self.names or is_leftover(name) or bool(_USUAL[folder](rest))

    def _inside(self, folder: str) -> list[str]:
        """List files, links and everything else that is not a folder, at any depth."""
        paths = (self.folder / folder).rglob("*")
        return [path.relative_to(self.folder).as_posix() for path in paths if path.is_symlink() or not path.is_dir()]

    def _states(self) -> dict[str, tuple[int, int, int]]:
        states = {}
        for name in (name for folder in FOLDERS if folder != "checkpoints" for name in self._inside(folder)):
            if not is_leftover(name):
                status = (self.folder / name).lstat()
                states[name] = status.st_ino, status.st_mtime_ns, status.st_size
        return states

    def _write(self) -> None:
        content = {"files": sorted(self.names), "asset": self.asset}
        write_atomically(self.folder / NAME, json.dumps(content, indent=1).encode())


def is_leftover(name: str) -> bool:
    """Whether the file is a leftover of a process that was killed during a write; covers earlier versions too."""
    last = name.rpartition("/")[2]
    usual = re.fullmatch(r"\.(.+\.(yaml|jsonl|json|webp|html|safetensors|png|glb|ply))\.partial", last)
    if usual is not None or not last.endswith(".partial"):
        return usual is not None
    return is_temporary(last)


def check_kinds(folder: Path) -> None:
    """Check that a run would write inside its folder only: no links that lead out of it, and no named pipes.

    Raises:
        UserError: The folder holds such an entry.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give a folder with --out")
    for name in FOLDERS:
        path = folder / name
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            what = "a link" if path.is_symlink() else "not a folder"
            raise UserError(f"{path} is {what}; a run only writes into its own folders: move it away")
        for inner in path.glob("particle_*") if name == "asset" else ():
            if inner.is_symlink():
                raise UserError(f"{inner} is a link; a run only writes into its own folders: move it away")
    for name in (*FILES, LOCK):
        path = folder / name
        if path.is_symlink() or (path.exists() and not path.is_file()):
            what = "a link" if path.is_symlink() else "not a regular file"
            raise UserError(f"{path} is {what}; a run only writes its own files: move it away")
