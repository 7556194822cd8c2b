"""The live view of a run while it trains: a viser server that shows its scene and queues the commands of its users."""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import viser

from steindreamer.representations import Representation

from ..optimization.stage import Stage
from ..runs.watching import Wish
from .edited_settings import edited_settings
from .guarded_server import start_server, stop_server
from .images import Images
from .metric_charts import MetricCharts
from .plain_text import escaped
from .training_cameras import show_training_cameras

logger = logging.getLogger(__name__)

IDLE_SECONDS = 0.03
"""Time between two looks at the queue while nothing trains."""
STATUS_SECONDS = 0.25
"""Time between two updates of the status while a run trains: each is a message to every browser."""


class Page:
    """A page with images of scenes; a server on this machine.

    Example:
        >>> with Page("scan.glb") as page:  # doctest: +SKIP
        ...     page.show([scene], "a mesh")
    """

    def __init__(self, title: str, *, port: int = 8080, folder: Path | None = None) -> None:
        """Start the server.

        Args:
            title: Title of the panel.
            port: Port; if it is taken, the next free one is used.
            folder: Folder of the run, whose metrics.jsonl is drawn as charts.
        """
        self.server = start_server(port, title)
        # Beside the image, not over it: two scenes need its whole width.
        self.server.gui.configure_theme(control_width="medium", show_share_button=False)
        self.server.gui.main_panel.dock_right()
        self._status = self.server.gui.add_markdown(escaped(title))
        self.images = Images(self.server)
        self._build_controls()
        self.images.add_buttons()
        self._charts = MetricCharts(self.server.gui, folder / "metrics.jsonl") if folder is not None else None

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://127.0.0.1:{self.server.get_port()}"

    def __enter__(self) -> Self:
        port = self.server.get_port()
        logger.info(f"view: {self.url} (from another machine: ssh -L {port}:127.0.0.1:{port} THIS_MACHINE)")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        stop_server(self.server)

    def show(self, scenes: Sequence[Representation], text: str) -> None:
        """Show one scene, or two beside each other, until the thread is interrupted."""
        self.tell(text)
        self.images.offer(scenes)
        while True:
            self.images.draw(scenes, 0, is_idle=True)
            time.sleep(IDLE_SECONDS)

    def tell(self, text: str) -> None:
        """Show a line of plain text at the top of the panel."""
        self._status.content = escaped(text)

    def update_charts(self) -> None:
        """Draw the charts if the metrics have changed and a browser is there to show them."""
        if self._charts is not None and self.server.get_clients():
            self._charts.update()

    def _build_controls(self) -> None:
        """Add the controls between those of the image and the buttons."""


@dataclass
class _Control:
    """State of the run's control; only the training thread changes it."""

    paused: bool = False
    steps: int = 0
    """Steps that are still taken before the pause."""
    wish: Wish | None = None


class LiveView(Page):
    """Shows and controls a run in browsers on this machine.

    As the `watch` of `generate`, it is called between steps: it applies queued commands and draws new images, in the
    thread of the run. A run that is only watched ends in the same bits as without it.

    Example:
        >>> with LiveView("a red mug", folder=folder) as view:  # doctest: +SKIP
        ...     generate(config, folder, watch=view)
    """

    def __init__(self, title: str, *, port: int = 8080, folder: Path | None = None) -> None:
        """Start the server; see `Page`."""
        self._commands: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._control = _Control()
        self._stage: Stage | None = None
        self._next_status = 0.0
        self._frustums: list[viser.CameraFrustumHandle] = []
        super().__init__(title, port=port, folder=folder)

    def __call__(self, stage: Stage) -> Wish | None:
        """Apply the queued commands and draw; see `runs.watching.Watch`."""
        control = self._control
        self._enter(stage)
        self._read_commands(stage)
        waiting = control.paused and not control.steps and control.wish is None
        if waiting or time.perf_counter() >= self._next_status:
            self.tell(_status(stage, control.paused))
            self._next_status = time.perf_counter() + STATUS_SECONDS
        self.update_charts()
        self.images.draw([stage.representation], stage.total, is_idle=waiting)
        if waiting:
            time.sleep(IDLE_SECONDS)
            return Wish.WAIT
        control.steps = max(0, control.steps - 1)
        if control.wish is not None:
            self.tell(f"{stage.name}: stopped after step {stage.total} of the run")
        return control.wish

    def _build_controls(self) -> None:
        gui = self.server.gui
        self._pause = gui.add_button("Pause")
        names = {"Step": "step", "Stop and save": "stop", "Stop and export now": "export"}
        buttons = {command: gui.add_button(text) for text, command in names.items()}
        self._pause.on_click(lambda _: self._order("pause"))
        for command, button in buttons.items():
            button.on_click(lambda _, command=command: self._order(command))
        self._edited = edited_settings(gui, self._order)
        self._cameras = gui.add_checkbox("Training cameras", False)
        self._cameras.on_update(lambda _: self._order("cameras"))

    def _order(self, command: str, value: Any = None) -> None:
        """Queue a command of a user."""
        self._commands.put((command, value))

    def _enter(self, stage: Stage) -> None:
        """Adapt the panel to a new stage."""
        if stage is self._stage:
            return
        self._stage, self._next_status = stage, 0.0
        self.images.offer([stage.representation])
        for edited in self._edited.values():
            edited.enter(stage)
        self._show_cameras(stage)

    def _read_commands(self, stage: Stage) -> None:
        control = self._control
        while not self._commands.empty():
            command, value = self._commands.get()
            self._next_status = 0.0
            if command == "pause":
                control.paused, control.steps = not control.paused, 0
                self._pause.label = "Resume" if control.paused else "Pause"
            elif command == "step":
                control.paused, control.steps = True, 1
                self._pause.label = "Resume"
            elif command in self._edited:
                self._edited[command].set(stage, value)
            elif command == "cameras":
                self._show_cameras(stage)
            else:
                control.wish = Wish.STOP if command == "stop" else Wish.EXPORT

    def _show_cameras(self, stage: Stage) -> None:
        """Show or hide the training cameras, as the checkbox says."""
        for frustum in self._frustums:
            frustum.remove()
        self._frustums = show_training_cameras(self.server, stage) if self._cameras.value is True else []
        self.images.has_objects = bool(self._frustums)


def _status(stage: Stage, paused: bool) -> str:
    state = "paused" if paused else "training"
    return (
        f"'{stage.prompt}', {stage.name}: step {stage.done} of {stage.config.steps} ({stage.total} of the run), {state}"
    )
