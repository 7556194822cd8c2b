"""The view of a run that another process computes, or that has ended: one of its saved scenes, or two of them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import viser

from steindreamer.representations import Representation

from ..errors import in_one_line
from .run_folder import NEWEST, RunFolder, SavedScene
from .view import IDLE_SECONDS, Page

LOOK_SECONDS = 1.0
"""Time between two looks at the run's folder."""
NOTHING = "nothing"


@dataclass(frozen=True)
class _Read:
    """A scene that was read, or the reason why it could not be."""

    version: tuple[Any, ...]
    scene: Representation | None
    text: str


class Follower(Page):
    """Shows the saved scenes of a run, and reads them again when they change. It only reads the folder.

    Example:
        >>> with Follower(RunFolder(folder), port=8080) as follower:  # doctest: +SKIP
        ...     follower.follow()
    """

    def __init__(self, run: RunFolder, *, port: int = 8080) -> None:
        """Start the server; see `Page`."""
        self.run = run
        self._read: dict[str, _Read] = {}
        self._looked, self._chosen = -math.inf, list[str]()
        super().__init__(run.path.resolve().name, port=port, folder=run.path)

    def follow(self) -> None:
        """Show the chosen scenes until the thread is interrupted."""
        while True:
            self.update()
            time.sleep(IDLE_SECONDS)

    def update(self) -> None:
        """Read what has changed, and draw."""
        now = time.perf_counter()
        known = self._first.options  # a browser may send any value
        chosen = [name for name in (self._first.value, self._second.value) if name in known]
        if chosen != self._chosen or now - self._looked >= LOOK_SECONDS:
            self._looked, self._chosen = now, chosen
            self._look(chosen)
        found = [self._read[name] for name in chosen if name in self._read]
        scenes = [each.scene for each in found if each.scene is not None]
        if scenes:
            self.images.offer(scenes)
            self.images.draw(scenes, tuple(each.version for each in found), is_idle=True)

    def _build_controls(self) -> None:
        gui = self.server.gui
        self._first: viser.GuiDropdownHandle[str] = gui.add_dropdown("Stage", tuple[str, ...]((NEWEST,)))
        self._second: viser.GuiDropdownHandle[str] = gui.add_dropdown("Beside it", tuple[str, ...]((NOTHING,)))

    def _look(self, chosen: list[str]) -> None:
        """Look for new files, and read the chosen scenes if they have changed."""
        saved = self.run.scenes()
        for control, options in ((self._first, (NEWEST, *saved)), (self._second, (NOTHING, *saved))):
            options = tuple(dict.fromkeys(options))
            if control.options != options:
                control.options = options
        self._read = {name: self._newest(name, saved) for name in chosen if name in saved}
        texts = [each.text for each in self._read.values()] or ["no checkpoint yet"]
        owner = self.run.owner()
        self.tell("; ".join((" | ".join(texts), f"the run goes on ({owner})" if owner else "no process works on it")))
        self.update_charts()

    def _newest(self, name: str, saved: Mapping[str, SavedScene]) -> _Read:
        """The scene of this name as it is now. If it cannot be read, the one before is shown with the reason."""
        before, now = self._read.get(name), saved[name]
        if before is not None and before.version == now.version:
            return before
        try:
            return _Read(now.version, *now.read())
        except (OSError, ValueError) as error:  # ValueError: also a file that the run removed meanwhile
            scene = before.scene if before is not None else None
            return _Read(now.version, scene, f"{name}: {in_one_line(error)}")
