"""The scenes in the folder of a run that may still go on: the last state of each stage, and the asset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from steindreamer.representations import Representation

from ..config.run_config import read_config
from ..errors import UserError
from ..runs.checkpoint import read_checkpoint
from ..runs.checkpoint_record import last_steps
from ..runs.lock import owner_of
from .scenes import asset_scene, newest_scene, scene_of_checkpoint

NEWEST, ASSET = "newest", "asset"
"""Names of the newest checkpoint and of the exported mesh; the other scenes have the names of their stages."""


@dataclass(frozen=True)
class SavedScene:
    """A scene that can be read from a run's folder."""

    version: tuple[Any, ...]
    """Changes with its files."""
    read: Callable[[], tuple[Representation, str]]
    """Reads it, with a line that describes it. Raises UserError, OSError or ValueError."""


class RunFolder:
    """A run's folder, which is only read: its lock is neither taken nor tried.

    Args:
        path: The folder.

    Raises UserError if it does not hold a run, or if it holds no scene and no process works on it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[Any, ...] | None = None
        self._scenes: dict[str, SavedScene] = {}
        if not self.scenes() and not self.owner():
            newest_scene(path)

    def owner(self) -> str:
        """The process that works on the run, in words; empty if none does."""
        return owner_of(self.path)

    def scenes(self) -> dict[str, SavedScene]:
        """The scenes that can be shown now, by name. Without new files, it only lists the folder's names and times."""
        checkpoints, asset = self.path / "checkpoints", self.path / "asset" / "asset.glb"
        seen = (*sorted(map(_version, checkpoints.glob("*.json"))), _version(asset))
        if seen == self._seen:
            return self._scenes
        self._seen, self._scenes = seen, {}
        last = last_steps(checkpoints)
        if last:
            newest = max(last.values())
            self._scenes[NEWEST] = SavedScene(self._version_of(newest), lambda: newest_scene(self.path))
        for stage, step in last.items():
            self._scenes[stage] = SavedScene(self._version_of(step), lambda step=step: self._read(step))
        if asset.is_file():
            self._scenes[ASSET] = SavedScene(_version(asset), lambda: self._read_asset(asset))
        return self._scenes

    def _version_of(self, step: int) -> tuple[Any, ...]:
        return _version(self.path / "checkpoints" / f"{step:06d}.json")

    def _read(self, step: int) -> tuple[Representation, str]:
        checkpoint = read_checkpoint(self.path / "checkpoints", step)
        return scene_of_checkpoint(read_config(self.path / "config.yaml"), checkpoint)

    def _read_asset(self, path: Path) -> tuple[Representation, str]:
        config = read_config(self.path / "config.yaml")
        first = config.representation_of(next(iter(config.active_stages()))).config
        try:
            return asset_scene(path, getattr(first, "initial_yaw", 0.0))
        except ValueError as error:
            raise UserError(error) from error


def _version(path: Path) -> tuple[Any, ...]:
    """Name, time and size of a file; empty numbers if it is gone."""
    try:
        found = path.stat()
    except OSError:
        return path.name, 0, 0
    return path.name, found.st_mtime_ns, found.st_size
