"""Images of scenes at the browsers' cameras: when they are drawn, how large, and the controls that choose them."""

from __future__ import annotations

import io
import logging
import math
import queue
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
import viser
from PIL import Image

from steindreamer.representations import Cameras, Representation, particles_of

from ..errors import in_one_line
from .budget import Budget
from .looks import LOOKS, Drawn, Layout, beside, camera_of, drawn
from .native import is_native, show_native

logger = logging.getLogger(__name__)

LEAST_HEIGHT, LARGEST_HEIGHT = 64, 1024
"""Heights of an image in pixels that can be chosen."""
INITIAL_POSITION = (1.5, 0.85, 2.6)
MOVING_HEIGHT = 160
"""Height of the image in pixels while a camera moves."""
SETTLED = 0.3
"""Seconds after its last movement from which a camera counts as resting."""
RENDERED, NATIVE = "rendered here", "drawn by the browser"
"""Choices of who draws the scene."""


@dataclass
class _Shown:
    """The image that a client has."""

    camera: tuple[float, ...] = ()
    moved: float = 0.0
    """Time of the last movement of the camera."""
    view: tuple[Any, ...] = ()
    """All values that the last image depends on, but the state of the scenes."""
    state: tuple[Any, ...] = ()
    """The state of the scenes in it."""
    at: float = -math.inf
    """Time at which it was drawn."""


class Images:
    """Sends images of one scene, or of two beside each other, to every browser at its own camera.

    Values that come from a browser may be of any kind: none of them raises an error.
    """

    def __init__(self, server: viser.ViserServer) -> None:
        """Add the controls to the panel."""
        self.server, gui = server, server.gui
        self.has_objects = False
        """Whether the page shows objects, such as frustums; images are then sent with depth, to hide them correctly."""
        self._offered = (1, 1)
        self._shown: dict[int, _Shown] = {}
        self._native: viser.SceneNodeHandle | None = None
        self._native_state: tuple[Any, ...] = ()
        self._budget = Budget()
        self._screenshots: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._warned: set[str] = set()
        server.scene.set_up_direction("+y")
        server.initial_camera.position = INITIAL_POSITION
        server.initial_camera.look_at = (0.0, 0.0, 0.0)
        self._look = gui.add_dropdown("Image", tuple(LOOKS), initial_value="rgb")
        self._height = gui.add_slider("Height (px)", min=LEAST_HEIGHT, max=LARGEST_HEIGHT, step=32, initial_value=384)
        self._painter = gui.add_dropdown(
            "Scene", (RENDERED, NATIVE), hint="browsers draw Gaussians as splats and surfaces as meshes, but no NeRF"
        )
        self._particle = gui.add_slider("Particle", min=1, max=2, step=1, initial_value=1, visible=False)
        self._layout = gui.add_dropdown("Arrangement", get_args(Layout), visible=False)
        self._line = gui.add_slider("Split at", min=0.0, max=1.0, step=0.01, initial_value=0.5, visible=False)

    def add_buttons(self) -> None:
        """Add the buttons that concern the image, below all other controls."""
        self.server.gui.add_button("Screenshot").on_click(self.order_screenshot)
        self.server.gui.add_button("Reset camera").on_click(_reset_camera)

    def offer(self, scenes: Sequence[Representation]) -> None:
        """Show the controls that these scenes need."""
        count = max(len(particles_of(scene)) for scene in scenes)
        if (count, len(scenes)) == self._offered:
            return
        self._offered = count, len(scenes)
        self._particle.visible, self._particle.max = count > 1, max(2, count)
        self._layout.visible = self._line.visible = len(scenes) > 1

    def order_screenshot(self, event: viser.GuiEvent[Any]) -> None:
        """Queue a screenshot for the client of an event."""
        if event.client_id is not None:
            self._screenshots.put(event.client_id)

    def draw(self, scenes: Sequence[Representation], version: Any, *, is_idle: bool) -> None:
        """Send the ordered screenshots, and an image to every client whose image is out of date.

        Args:
            scenes: The scene, or the left and the right one.
            version: Changes with the scenes.
            is_idle: Whether no step of a run waits for it.
        """
        clients = self.server.get_clients()
        self._shown = {number: self._shown.get(number, _Shown()) for number in clients}
        if not clients:
            return
        particles = [self._particle_of(scene) for scene in scenes]
        while not self._screenshots.empty():
            client = clients.get(self._screenshots.get())
            if client is not None:
                self._undisturbed(lambda client=client: self._send_screenshot(client, particles))
        state = (version, *map(id, particles))
        native = self._painter.value == NATIVE and len(particles) == 1 and is_native(particles[0])
        self._paid(lambda: self._update_native(particles[0] if native else None, state, is_idle), is_idle)
        for number in sorted(clients, key=lambda number: self._shown[number].at):
            client, shown = clients[number], self._shown[number]
            if native:
                self._undisturbed(lambda client=client, shown=shown: _clear(client, shown))
            else:
                self._paid(
                    lambda client=client, shown=shown: self._draw_for(client, shown, particles, state, is_idle), is_idle
                )

    def _paid(self, send: Callable[[], None], is_idle: bool) -> None:
        """Send something, and subtract its duration from the budget if a step of the run waits for it."""
        start = time.perf_counter()
        self._undisturbed(send)
        if not is_idle:
            self._budget.spend(time.perf_counter() - start)

    def _undisturbed(self, send: Callable[[], None]) -> None:
        """Send something to a browser. Whatever it sends or however it ends, the run goes on."""
        try:
            send()
        except Exception as error:
            message = f"no image for the browser: {type(error).__name__}: {in_one_line(error)}"
            if message not in self._warned:
                self._warned.add(message)
                logger.warning(message)

    def _particle_of(self, scene: Representation) -> Representation:
        particles = particles_of(scene)
        chosen = self._particle.value
        return particles[int(min(max(chosen, 1), len(particles))) - 1 if isinstance(chosen, int | float) else 0]

    def _image(self, scenes: Sequence[Representation], camera: Cameras) -> Drawn:
        """The image for a camera; that of two scenes has no depth."""
        if len(scenes) == 1:
            return drawn(scenes[0], camera, self._look.value)
        layout = cast(Layout, self._layout.value)
        pixels = beside(scenes, camera, self._look.value, layout, float(self._line.value))
        return Drawn(pixels, None)

    def _send_screenshot(self, client: viser.ClientHandle, scenes: Sequence[Representation]) -> None:
        """Send the client's view as a PNG file, at the largest height."""
        camera = _camera_of(client, LARGEST_HEIGHT)
        if camera is None:
            return
        content = io.BytesIO()
        Image.fromarray(self._image(scenes, camera).pixels).save(content, "PNG")
        client.send_file_download(f"{self._look.value}.png", content.getvalue(), save_immediately=True)

    def _update_native(self, scene: Representation | None, state: tuple[Any, ...], is_idle: bool) -> None:
        """Show the scene as the browser's own object, or remove that object."""
        if scene is None:
            if self._native is not None:
                self._native.remove()
                self._native, self._native_state = None, ()
        elif self._native_state != state and (is_idle or self._budget.allows(is_other_view=not self._native_state)):
            self._native = show_native(self.server, scene)
            self._native_state = state

    def _draw_for(
        self,
        client: viser.ClientHandle,
        shown: _Shown,
        scenes: Sequence[Representation],
        state: tuple[Any, ...],
        is_idle: bool,
    ) -> None:
        source, now = client.camera, time.perf_counter()
        if not source.update_timestamp:  # the browser has not sent its camera yet
            return
        view = (*np.array(source.wxyz).tolist(), *np.array(source.position).tolist(), source.fov, source.aspect)
        if view != shown.camera:
            shown.camera, shown.moved = view, now
        is_moving = now - shown.moved < SETTLED
        height = int(min(max(self._height.value, LEAST_HEIGHT), LARGEST_HEIGHT))
        height = min(MOVING_HEIGHT, height) if is_moving else height
        arrangement = (self._layout.value, self._line.value) if len(scenes) > 1 else ()
        wanted = (view, height, self._look.value, *arrangement, self.has_objects)
        is_other_view = wanted != shown.view
        if not (is_other_view or state != shown.state):
            return
        if not (is_idle or self._budget.allows(is_other_view=is_other_view)):
            return
        camera = _camera_of(client, height)
        if camera is None:
            return
        image = self._image(scenes, camera)
        depth = image.depth if self.has_objects else None
        client.scene.set_background_image(image.pixels, format="jpeg", jpeg_quality=85, depth=depth)
        client.flush()
        shown.view, shown.state, shown.at = wanted, state, time.perf_counter()


def _clear(client: viser.ClientHandle, shown: _Shown) -> None:
    """Remove the image behind the browser's own objects."""
    if shown.view != (NATIVE,):
        client.scene.set_background_image(None)
        shown.view = (NATIVE,)


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
