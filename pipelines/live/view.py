"""The live view: a viser server that shows renders of a scene and queues the commands of its users."""

from __future__ import annotations

import io
import logging
import math
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import viser
from PIL import Image
from viser.uplot import Scale, Series

from steindreamer.representations import Cameras, Representation, particles_of

from ..errors import in_one_line
from ..optimization.stage import Stage
from ..runs.training_log import read_records
from ..runs.watching import Wish
from .edited_settings import edited_settings
from .guarded_server import start_server, stop_server
from .looks import LOOKS, camera_of, draw
from .training_cameras import show_training_cameras

logger = logging.getLogger(__name__)

LEAST_HEIGHT, LARGEST_HEIGHT = 64, 1024
"""Heights of an image in pixels that can be chosen."""
INITIAL_POSITION = (1.5, 0.85, 2.6)
MOVING_HEIGHT = 160
"""Height of the image in pixels while a camera moves."""
LARGEST_FRACTION = 0.05
"""Largest fraction of the time of a run that is spent on images of cameras that do not move."""
SETTLED = 0.3
"""Seconds after its last movement from which a camera counts as resting."""
CHART_SECONDS = 2.0
"""Least time between two updates of the charts."""
IDLE_SECONDS = 0.03
"""Time between two looks at the queue while nothing trains."""


@dataclass
class _Shown:
    """The image that a client has."""

    camera: tuple[float, ...] = ()
    moved: float = 0.0
    """Time of the last movement of the camera."""
    drawn: tuple[Any, ...] = ()
    """All values that the last image depends on."""
    seconds: float = 0.0
    """Duration of drawing it."""
    at: float = -math.inf
    """Time at which it was drawn."""


@dataclass
class _Control:
    """State of the run's control; only the training thread changes it."""

    paused: bool = False
    steps: int = 0
    """Steps that are still taken before the pause."""
    wish: Wish | None = None


class LiveView:
    """Shows a scene in browsers on this machine.

    As the `watch` of `generate`, it is called between steps: it applies queued commands and draws new images, in the
    thread of the run. A run that is only watched ends in the same bits as without it.

    Example:
        >>> with LiveView("a red mug", folder=folder) as view:  # doctest: +SKIP
        ...     generate(config, folder, watch=view)
    """

    def __init__(self, title: str, *, port: int = 8080, folder: Path | None = None, training: bool = True) -> None:
        """Start the server.

        Args:
            title: Title of the panel.
            port: Port; if it is taken, the next free one is used.
            folder: Folder of the run, whose metrics.jsonl is drawn as charts.
            training: Whether there is a run to control.
        """
        self.server = start_server(port, title)
        self.folder = folder
        self._commands: queue.SimpleQueue[tuple[str, float]] = queue.SimpleQueue()
        self._control = _Control()
        self._shown: dict[int, _Shown] = {}
        self._charts_at, self._records, self._version = -math.inf, 0, 0
        self._charts: dict[str, Any] = {}
        self._stage: Stage | None = None
        self._frustums: list[viser.CameraFrustumHandle] = []
        self._screenshots: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._warned: set[str] = set()
        self.server.scene.set_up_direction("+y")
        self.server.initial_camera.position = INITIAL_POSITION
        self.server.initial_camera.look_at = (0.0, 0.0, 0.0)
        self._build_panel(title, training)

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

    def __call__(self, stage: Stage) -> Wish | None:
        """Apply the queued commands and draw; see `runs.watching.Watch`."""
        control = self._control
        self._enter(stage)
        self._read_commands(stage)
        self._status.content = _status(stage, control.paused)
        self._version = stage.total
        self._update_charts()
        waiting = control.paused and not control.steps and control.wish is None
        self._draw(stage.representation, is_idle=waiting)
        if waiting:
            time.sleep(IDLE_SECONDS)
            return Wish.WAIT
        control.steps = max(0, control.steps - 1)
        if control.wish is not None:
            self._status.content = f"**{stage.name}**: stopped after step {stage.total} of the run"
        return control.wish

    def show(self, scene: Representation, text: str) -> None:
        """Show a scene that does not change, until the thread is interrupted."""
        self._status.content = text
        self._offer_particles(scene)
        self._update_charts()
        while True:
            self._draw(scene, is_idle=True)
            time.sleep(IDLE_SECONDS)

    def _build_panel(self, title: str, training: bool) -> None:
        gui = self.server.gui
        gui.configure_theme(control_width="medium", show_share_button=False)
        self._status = gui.add_markdown(title)
        self._look = gui.add_dropdown("Image", tuple(LOOKS), initial_value="rgb")
        self._height = gui.add_slider("Height (px)", min=LEAST_HEIGHT, max=LARGEST_HEIGHT, step=32, initial_value=384)
        self._particle = gui.add_slider("Particle", min=1, max=2, step=1, initial_value=1, visible=False)
        if training:
            self._pause = gui.add_button("Pause")
            names = {"Step": "step", "Stop and save": "stop", "Stop and export now": "export"}
            buttons = {command: gui.add_button(text) for text, command in names.items()}
            self._pause.on_click(lambda _: self._commands.put(("pause", 0.0)))
            for command, button in buttons.items():
                button.on_click(lambda _, command=command: self._commands.put((command, 0.0)))
            self._edited = edited_settings(gui)
            for command, edited in self._edited.items():
                edited.number.on_update(
                    lambda _, command=command, edited=edited: self._commands.put((command, edited.number.value))
                )
            self._cameras = gui.add_checkbox("Training cameras", False)
            self._cameras.on_update(lambda _: self._commands.put(("cameras", float(self._cameras.value))))
        gui.add_button("Screenshot").on_click(self._order_screenshot)
        gui.add_button("Reset camera").on_click(_reset_camera)
        self._folder = gui.add_folder("Charts", visible=False)

    def _enter(self, stage: Stage) -> None:
        """Adapt the panel to a new stage."""
        if stage is self._stage:
            return
        self._stage = stage
        self._offer_particles(stage.representation)
        for edited in self._edited.values():
            edited.enter(stage)
        self._show_cameras(stage)

    def _offer_particles(self, scene: Representation) -> None:
        count = len(particles_of(scene))
        self._particle.visible = count > 1
        self._particle.max = max(2, count)

    def _read_commands(self, stage: Stage) -> None:
        control = self._control
        while not self._commands.empty():
            command, value = self._commands.get()
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

    def _order_screenshot(self, event: viser.GuiEvent[Any]) -> None:
        if event.client_id is not None:
            self._screenshots.put(event.client_id)

    def _draw(self, scene: Representation, *, is_idle: bool) -> None:
        """Send the ordered screenshots, and an image to every client whose image is out of date.

        Args:
            scene: The scene.
            is_idle: Whether no step waits for it.
        """
        clients = self.server.get_clients()
        self._shown = {number: self._shown.get(number, _Shown()) for number in clients}
        while not self._screenshots.empty():
            client = clients.get(self._screenshots.get())
            if client is not None:
                self._undisturbed(lambda client=client: self._send_screenshot(client, scene))
        for number, client in clients.items():
            shown = self._shown[number]
            self._undisturbed(lambda client=client, shown=shown: self._draw_for(client, shown, scene, is_idle))

    def _undisturbed(self, send: Callable[[], None]) -> None:
        """Send something to a browser. Whatever it sends or however it ends, the run goes on."""
        try:
            send()
        except Exception as error:
            message = f"no image for the browser: {type(error).__name__}: {in_one_line(error)}"
            if message not in self._warned:
                self._warned.add(message)
                logger.warning(message)

    def _send_screenshot(self, client: viser.ClientHandle, scene: Representation) -> None:
        """Send the client's view as a PNG file, at the largest height."""
        particles = particles_of(scene)
        camera = _camera_of(client, LARGEST_HEIGHT)
        if camera is None:
            return
        content = io.BytesIO()
        image = draw(particles[self._particle_index(len(particles))], camera, self._look.value)
        Image.fromarray(image).save(content, "PNG")
        client.send_file_download(f"{self._look.value}.png", content.getvalue(), save_immediately=True)

    def _particle_index(self, count: int) -> int:
        """Index of the chosen particle; a browser may send any value."""
        return int(min(max(self._particle.value, 1), count)) - 1

    def _draw_for(self, client: viser.ClientHandle, shown: _Shown, scene: Representation, is_idle: bool) -> None:
        source, now = client.camera, time.perf_counter()
        if not source.update_timestamp:  # the browser has not sent its camera yet
            return
        view = (*np.array(source.wxyz).tolist(), *np.array(source.position).tolist(), source.fov, source.aspect)
        if view != shown.camera:
            shown.camera, shown.moved = view, now
        is_moving = now - shown.moved < SETTLED
        particles = particles_of(scene)
        # A browser may send any value.
        height = int(min(max(self._height.value, LEAST_HEIGHT), LARGEST_HEIGHT))
        height = min(MOVING_HEIGHT, height) if is_moving else height
        particle = self._particle_index(len(particles))
        wanted = (view, height, self._look.value, particle, self._version)
        if wanted == shown.drawn:
            return
        if not is_idle and not is_moving and (now - shown.at) * LARGEST_FRACTION < shown.seconds:
            return
        camera = _camera_of(client, height)
        if camera is None:
            return
        image = draw(particles[particle], camera, self._look.value)
        client.scene.set_background_image(image, format="jpeg", jpeg_quality=85)
        client.flush()
        shown.drawn, shown.at, shown.seconds = wanted, time.perf_counter(), time.perf_counter() - now

    def _update_charts(self) -> None:
        """Draw metrics.jsonl if it has new lines."""
        now = time.perf_counter()
        if self.folder is None or now - self._charts_at < CHART_SECONDS:
            return
        self._charts_at = now
        records = read_records(self.folder / "metrics.jsonl")
        if len(records) == self._records:
            return
        self._records = len(records)
        curves = {
            "loss": [(r["step"], r["loss"]) for r in records if "loss" in r],
            "variance / SDS": [
                (r["step"], r["variance"] / r["variance_sds"])
                for r in records
                if r.get("variance_sds") and "variance" in r
            ],
            "seconds per step": [(r["step"], r["seconds_per_step"]) for r in records if "seconds_per_step" in r],
        }
        for name, points in curves.items():
            if len(points) < 2:
                continue
            data = tuple(np.array(column, dtype=np.float64) for column in zip(*points, strict=True))
            if name in self._charts:
                self._charts[name].data = data
                continue
            self._folder.visible = True
            with self._folder:
                series = (Series(label="step"), Series(label=name, stroke="#1a7f5a", width=1.5))
                self._charts[name] = self.server.gui.add_uplot(
                    data, series, title=name, scales={"x": Scale(time=False)}, aspect=2.0
                )


def _camera_of(client: viser.ClientHandle, height: int) -> Cameras | None:
    """The camera of a client for images of this height; None if it has sent no usable one."""
    source = client.camera
    if not source.update_timestamp:
        return None
    pose, position = np.array(source.wxyz), np.array(source.position)
    return camera_of(pose, position, float(source.fov), float(source.aspect), height)


def _reset_camera(event: viser.GuiEvent[Any]) -> None:
    """Move the camera of the client that asked back to where it began."""
    if event.client is not None:
        event.client.camera.position = INITIAL_POSITION
        event.client.camera.look_at = (0.0, 0.0, 0.0)
        event.client.camera.up_direction = (0.0, 1.0, 0.0)


def _status(stage: Stage, paused: bool) -> str:
    state = "paused" if paused else "training"
    return f"**{stage.name}**: step {stage.done} of {stage.config.steps} ({stage.total} of the run), {state}"
