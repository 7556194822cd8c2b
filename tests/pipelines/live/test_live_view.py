"""The live view: it draws what the scene renders, obeys its commands between steps, and changes nothing by watching."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from browser import CHROMIUM
from browser import browser as open_browser
from PIL import Image

pytest.importorskip("viser", reason="needs the extra `view`")
import viser
import websockets

from steindreamer.distill import METHODS
from steindreamer.pipelines import load_config
from steindreamer.pipelines.cli.main import main
from steindreamer.pipelines.errors import Interrupted, UserError
from steindreamer.pipelines.live import budget
from steindreamer.pipelines.live import images as live_images
from steindreamer.pipelines.live.budget import Budget
from steindreamer.pipelines.live.follower import Follower
from steindreamer.pipelines.live.guarded_server import is_local
from steindreamer.pipelines.live.images import NATIVE
from steindreamer.pipelines.live.looks import FARTHEST, LOOKS, beside, camera_of, draw
from steindreamer.pipelines.live.plain_text import escaped
from steindreamer.pipelines.live.run_folder import RunFolder
from steindreamer.pipelines.live.scenes import MeshScene, asset_scene, scene_of
from steindreamer.pipelines.live.view import LiveView
from steindreamer.pipelines.optimization.edits import edit
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.runs.checkpoint_record import checkpoint_steps
from steindreamer.pipelines.runs.lock import owned
from steindreamer.pipelines.runs.pipeline import Pipeline
from steindreamer.pipelines.runs.result import Result
from steindreamer.pipelines.runs.runner import generate
from steindreamer.pipelines.runs.watching import Wish
from steindreamer.representations import Cameras, Gaussians, GaussiansConfig, read_gaussian_ply, write_gaussian_glb

SETTINGS = [
    "stages.coarse.steps=4", "stages.coarse.resolution=16", "stages.coarse.warmup_resolution=16",
    "prior.objects=1", "output.log_every=2", "output.image_size=16", "output.turntable_frames=0",
    "output.preview_every=0", "export.resolution=16", "export.view_size=32", "export.cameras=8",
    "export.texture_size=64", "export.face_budget=400",
]  # fmt: skip
SCENES = {
    "gaussians": ["representation.count=300", "representation.opacity=0.5"],
    "nerf": ["stages.coarse.steps=2"],
    "dmtet": ["representation.resolution=16", "stages.coarse.steps=2"],
}


def config(representation: str = "gaussians", *more: str) -> Any:
    return load_config(
        "cpu",
        prompt="a red mug",
        representation=representation,
        prior="world",
        refine=False,
        overrides=[*SETTINGS, *SCENES[representation], *more],
    )


def saved(folder: Path, step: int) -> str:
    return hashlib.sha256((folder / "checkpoints" / f"{step:06d}.safetensors").read_bytes()).hexdigest()


@dataclass
class Browser:
    """Stands in for a connected browser whose camera turns at every look."""

    turns: bool = True
    fails: bool = False
    images: list[Any] = field(default_factory=list)
    depths: list[np.ndarray | None] = field(default_factory=list)
    angle: float = 0.0

    @property
    def camera(self) -> Any:
        self.angle += 10.0 if self.turns else 0.0
        pose = Cameras.orbit([self.angle], [15.0]).camera_to_world[0]
        x, y, z, w = quaternion(pose[:3, :3])
        return SimpleNamespace(
            wxyz=(w, x, y, z), position=pose[:3, 3].numpy(), fov=0.7, aspect=1.5, update_timestamp=1.0
        )

    @property
    def scene(self) -> Browser:
        return self

    def set_background_image(self, image: Any, depth: np.ndarray | None = None, **_: Any) -> None:
        if self.fails:
            raise ConnectionResetError("closed in the middle of a frame")
        self.depths.append(depth)
        self.images.append(image)

    def flush(self) -> None:
        pass


def quaternion(rotation: torch.Tensor) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(rotation.double().numpy()).as_quat()


@pytest.fixture
def view(monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveView]:
    with LiveView("a test", port=18080) as opened:
        yield opened


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return generate(config(), tmp_path_factory.mktemp("runs") / "undisturbed")


@pytest.fixture(scope="module")
def undisturbed(finished: Result) -> Path:
    return finished.folder


@pytest.mark.parametrize("representation", ["gaussians", "nerf", "dmtet"])
def test_a_watched_run_ends_in_the_same_bits(
    view: LiveView, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, representation: str
) -> None:
    quiet, steps = undisturbed, 4 if representation == "gaussians" else 2
    if representation != "gaussians":
        quiet = tmp_path / "quiet"
        generate(config(representation, "export.enabled=false"), quiet)
    browser, broken = Browser(), Browser(fails=True)
    monkeypatch.setattr(view.server, "get_clients", lambda: {0: broken, 1: browser})
    monkeypatch.setattr(live_images, "MOVING_HEIGHT", 32)
    looks = iter([*LOOKS, *LOOKS])

    def watch(stage: Stage) -> Wish | None:
        view.images._look.value = next(looks)
        return view(stage)

    generate(config(representation, "export.enabled=false"), tmp_path / "watched", watch=watch)
    assert len(browser.images) == steps + 1 and {each.shape for each in browser.images} == {(32, 48, 3)}
    assert saved(tmp_path / "watched", steps) == saved(quiet, steps)


def test_commands_take_effect_between_steps(view: LiveView, caplog: pytest.LogCaptureFixture) -> None:
    stage = Pipeline(config()).first()
    put = view._order
    assert view(stage) is None
    put("pause", 0.0)
    assert [view(stage), view(stage)] == [Wish.WAIT] * 2 and "paused" in view._status.content
    put("step", 0.0)
    assert [view(stage), view(stage)] == [None, Wish.WAIT]
    put("pause", 0.0)
    assert [view(stage), view(stage)] == [None, None]
    assert view._edited["guidance_scale"].field.value == stage.distiller.guidance_scale
    put("guidance_scale", 3.5)
    for garbage in (float("nan"), 1e9, "text", None):
        put("guidance_scale", garbage)  # pyright: ignore
    assert view(stage) is None and stage.distiller.guidance_scale == 3.5
    assert [line for line in caplog.messages if "guidance" in line] == [
        "step 0: guidance scale 1 -> 3.5 in the view; checkpoints and summary.json contain it, config.yaml does not"
    ]
    for command, wish in (("export", Wish.EXPORT), ("stop", Wish.STOP)):
        put(command)
        assert view(stage) is wish


def test_the_largest_timestep_applies_from_the_next_step_on(view: LiveView, caplog: pytest.LogCaptureFixture) -> None:
    stage = Pipeline(config()).first()
    assert view(stage) is None
    assert view._edited["largest_timestep"].field.value == stage.distiller.timesteps.maximum_at(0.0)
    for value in (0.3, float("nan"), 2.0, "text", 0.0):
        view._order("largest_timestep", value)
    assert view(stage) is None
    (times,) = stage.distiller.draw_timestep(torch.zeros(500, 1, 1, 1), 0.0, torch.Generator().manual_seed(0))
    assert 200 < int(times.timestep.max()) < 300
    assert [line.split(" in the view")[0] for line in caplog.messages if "timestep" in line] == [
        "step 0: largest timestep 0.98 -> 0.3",
        "the largest timestep stays 0.3: timesteps need 0 <= minimum < final_maximum <= maximum <= 1, got 0.02, 0.0, "
        "0.0",
    ]


def test_another_prompt_applies_from_the_next_step_on(view: LiveView, caplog: pytest.LogCaptureFixture) -> None:
    stage = Pipeline(config()).first()
    assert view(stage) is None
    before, edited = stage.embedding, view._edited["prompt"]
    assert edited.field.value == stage.prompt == "a red mug"
    for refused in ("a zorbifex", "", "two\nlines", "x" * 3000):
        view._order("prompt", refused)
        assert view(stage) is None and stage.embedding is before and stage.prompt == "a red mug" and not stage.edits
        assert edited.note.content, "the page says why"
    view._order("prompt", "a zorbifex")
    view(stage)
    assert edited.note.content.startswith(escaped("the prompt stays 'a red mug': ")) and "\n" not in edited.note.content
    view._order("prompt", "a blue mug")
    assert view(stage) is None and stage.embedding is not before and stage.prompt == "a blue mug"
    assert [str(each) for each in stage.edits] == ["after step 0: prompt 'a blue mug'"]
    assert "'a blue mug'" in view._status.content.replace("\\", "")
    assert caplog.messages[-1].startswith("step 0: prompt 'a red mug' -> 'a blue mug' in the view; checkpoints")


def test_a_resumed_run_knows_its_edits(tmp_path: Path) -> None:
    """Stopped and resumed without a view, it ends in the bits of the run that went on."""
    changed = config("gaussians", "export.enabled=false")

    def watch(stops: bool) -> Callable[[Stage], Wish | None]:
        def edited(stage: Stage) -> Wish | None:
            if stage.total == 1 and not stage.edits:
                edit(stage, "prompt", "a blue mug")
                edit(stage, "guidance_scale", 2.5)
            return Wish.STOP if stops and stage.total == 2 else None

        return edited

    generate(changed, tmp_path / "whole", watch=watch(False))
    with pytest.raises(Interrupted):
        generate(changed, tmp_path / "stopped", watch=watch(True))
    generate(changed, tmp_path / "stopped", resume=True)
    assert saved(tmp_path / "stopped", 4) == saved(tmp_path / "whole", 4)
    summary = json.loads((tmp_path / "stopped" / "summary.json").read_text())
    assert summary["edits"] == [
        {"step": 1, "name": "prompt", "value": "a blue mug"},
        {"step": 1, "name": "guidance_scale", "value": 2.5},
    ]
    assert "after step 1: prompt &#x27;a blue mug&#x27;" in (tmp_path / "stopped" / "report.html").read_text()


def test_training_cameras_are_those_of_the_stage(view: LiveView) -> None:
    stage = Pipeline(config()).first()
    before = stage.generator.get_state()
    view(stage)
    assert view._frustums == []
    view._cameras.value = True
    view._order("cameras")
    view(stage)
    positions = np.stack([frustum.position for frustum in view._frustums])
    distance = np.linalg.norm(positions, axis=1)
    elevation = np.degrees(np.arcsin(positions[:, 1] / distance))
    low, high = stage.config.views.distance
    assert (distance > low - 1e-4).all() and (distance < high + 1e-4).all()
    assert elevation.max() > 45 and elevation.min() < 0, "overhead views too"
    for frustum in view._frustums:  # the optical axis (z) points at the center
        w, x, y, z = frustum.wxyz
        axis = np.array([2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)])
        assert axis @ -frustum.position / np.linalg.norm(frustum.position) > 0.999
    assert stage.generator.get_state().equal(before)
    view._cameras.value = False
    view._order("cameras")
    view(stage)
    assert view._frustums == []


def test_a_screenshot_is_the_view_at_full_height(view: LiveView, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, browser = Pipeline(config()).first(), Browser(turns=False)
    files: dict[str, bytes] = {}
    browser.send_file_download = lambda name, content, **_: files.update({name: content})  # pyright: ignore
    monkeypatch.setattr(view.server, "get_clients", lambda: {7: browser})
    monkeypatch.setattr(live_images, "LARGEST_HEIGHT", 64)
    for client in (7, 8):  # the second has gone
        view.images.order_screenshot(SimpleNamespace(client_id=client))  # pyright: ignore
    view(stage)
    assert [*files] == ["rgb.png"]

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionResetError("closed during the download")

    browser.send_file_download = fail  # pyright: ignore
    view.images.order_screenshot(SimpleNamespace(client_id=7))  # pyright: ignore
    assert view(stage) is None, "the run goes on"
    assert Image.open(io.BytesIO(files["rgb.png"])).size == (96, 64)


@pytest.mark.parametrize("name", sorted(METHODS.keys() - {"vsd"}))  # which needs a prior with a LoRA denoiser
def test_every_method_takes_another_guidance_scale(name: str) -> None:
    from small_world import TwoModes, make_estimator

    prior: Any = TwoModes()
    given, changed = (METHODS[name](guidance_scale=scale).build(prior, make_estimator()) for scale in (5.0, 2.0))
    changed.set_guidance_scale(5.0)
    assert changed.residual == given.residual and changed.guidance_scale == 5.0


@pytest.mark.parametrize("wish", [Wish.STOP, Wish.EXPORT])
def test_a_stopped_run_resumes_to_the_same_bits(undisturbed: Path, tmp_path: Path, wish: Wish) -> None:
    folder, calls = tmp_path / "run", []
    without_export = config("gaussians", "export.enabled=false")

    def watch(stage: Stage) -> Wish | None:
        calls.append(stage.total)
        if calls.count(stage.total) < 3:
            return Wish.WAIT
        return wish if stage.total == 2 else None

    if wish is Wish.STOP:
        with pytest.raises(Interrupted, match=r"step 2 is saved"):
            generate(without_export, folder, watch=watch)
        assert not (folder / "asset" / "asset.glb").exists()
    else:
        result = generate(config(), folder, watch=watch)
        assert result.asset is not None and result.asset.is_file()
    assert calls == [0, 0, 0, 1, 1, 1, 2, 2, 2] and checkpoint_steps(folder / "checkpoints") == [2]
    generate(without_export, folder, resume=True)
    assert saved(folder, 4) == saved(undisturbed, 4)


def test_a_paused_run_ends_on_a_signal(tmp_path: Path) -> None:
    import signal

    def watch(stage: Stage) -> Wish | None:
        if stage.total == 1:
            os.kill(os.getpid(), signal.SIGTERM)
            return Wish.WAIT
        return None

    with pytest.raises(Interrupted, match="SIGTERM; step 1 is saved"):
        generate(config(), tmp_path / "run", watch=watch)


class SlowImages:
    """A clock that stands still but while an image is drawn, which takes `SECONDS`."""

    SECONDS = 0.06

    def __init__(self, view: LiveView, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, image = 0.0, view.images._image

        def slow(*arguments: Any) -> Any:
            self.now += self.SECONDS
            return image(*arguments)

        for module in (live_images, budget):
            monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now))
        monkeypatch.setattr(view.images, "_image", slow)
        view.images._budget = Budget()


def test_images_are_drawn_when_they_change_and_larger_at_rest(view: LiveView, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SlowImages(view, monkeypatch)
    browser, scene = Browser(turns=False), GaussiansConfig(count=50).build(torch.Generator().manual_seed(0))
    monkeypatch.setattr(view.server, "get_clients", lambda: {0: browser})
    view.images.draw([scene], 0, is_idle=True)
    view.images.draw([scene], 0, is_idle=True)
    assert [len(each) for each in browser.images] == [160]
    clock.now += 0.35
    view.images.draw([scene], 0, is_idle=True)
    view.images.draw([scene], 0, is_idle=True)
    assert [len(each) for each in browser.images] == [160, 384]


@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("count", [1, 3])
def test_images_take_a_small_part_of_the_time(
    view: LiveView, monkeypatch: pytest.MonkeyPatch, turns: bool, count: int
) -> None:
    """A camera that moves gets images at once until the saved seconds are used up; all browsers get some."""
    clock = SlowImages(view, monkeypatch)
    browsers = {number: Browser(turns=turns) for number in range(count)}
    scene = GaussiansConfig(count=5).build(torch.Generator().manual_seed(0))
    monkeypatch.setattr(view.server, "get_clients", lambda: browsers)
    monkeypatch.setattr(live_images, "MOVING_HEIGHT", 16)
    view.images._height.value = 64
    counts = list[int]()
    for step in range(400):
        view.images.draw([scene], step, is_idle=False)
        clock.now += 0.1
        counts.append(sum(len(browser.images) for browser in browsers.values()))
    spent, allowed = counts[-1] * clock.SECONDS, clock.now * budget.FRACTION
    assert 0.5 * allowed < spent <= allowed + (budget.SAVED if turns else 0) + 3 * count * clock.SECONDS
    first = counts[9]  # at rest: a small image and a large one
    assert first >= budget.SAVED / clock.SECONDS - 1 if turns else first == 2 * count
    assert all(len(browser.images) >= counts[-1] // count - 1 for browser in browsers.values())


@pytest.mark.parametrize(("height", "particle", "look"), [(1e9, -3, "rgb"), ("x", None, "rgb"), (384, 1, "unknown")])
def test_controls_with_any_value_do_not_disturb(
    view: LiveView, monkeypatch: pytest.MonkeyPatch, height: Any, particle: Any, look: str
) -> None:
    browser, scene = Browser(), GaussiansConfig(count=50).build(torch.Generator().manual_seed(0))
    monkeypatch.setattr(view.server, "get_clients", lambda: {0: browser})
    for name, value in (("_height", height), ("_particle", particle), ("_look", look)):
        monkeypatch.setattr(view.images, name, SimpleNamespace(value=value))
    view.images.draw([scene], 0, is_idle=True)
    assert [len(image) for image in browser.images] == ([160] if height == 1e9 else [])


def test_the_camera_of_a_browser_is_that_of_an_orbit() -> None:
    expected = Cameras.orbit([35.0], [20.0], field_of_view=50.0, height=120, width=180)
    pose = expected.camera_to_world[0]
    x, y, z, w = 1.7 * quaternion(pose[:3, :3])
    found = camera_of((w, x, y, z), pose[:3, 3].numpy(), np.radians(50.0), 1.5, 120)
    assert found is not None and (found.height, found.width) == (120, 180)
    assert torch.allclose(found.camera_to_world, expected.camera_to_world, atol=1e-6)
    assert torch.allclose(found.intrinsics, expected.intrinsics, rtol=1e-5)


@pytest.mark.parametrize(
    "given",
    [
        ((np.nan, 0, 0, 0), (0, 0, 3), 0.7, 1.0), ((0, 0, 0, 0), (0, 0, 3), 0.7, 1.0),
        ((1, 0, 0, 0), (0, 0, 1e9), 0.7, 1.0), ((1, 0, 0, 0), (0, 0, 0), 0.7, 1.0),
        ((1, 0, 0, 0), (0, 0, 3), 3.2, 1.0), ((1, 0, 0, 0), (0, 0, 3), 0.7, -1.0),
        ((1, 0, 0), (0, 0, 3), 0.7, 1.0), ((1, 0, 0, 0), (0, 0, 3), np.inf, 1.0),
    ],
)  # fmt: skip
def test_a_camera_that_is_not_usable_is_ignored(given: tuple[Any, Any, float, float]) -> None:
    pose, position, field_of_view, aspect = given
    assert camera_of(pose, position, field_of_view, aspect, 64) is None


def test_looks_show_what_they_say() -> None:
    scene = GaussiansConfig(count=500, opacity=0.9).build(torch.Generator().manual_seed(0))
    camera = Cameras.orbit([0.0], [0.0], height=48)
    images = {look: draw(scene, camera, look).astype(int) for look in LOOKS}
    assert all(image.shape == (48, 48, 3) and (image[0, 0] >= 250).all() for image in images.values())
    assert (images["normal"][24, 24] - [128, 128, 255] > -70).all(), "the front faces the camera: blue"
    assert images["opacity"][24, 24].max() < 60
    assert images["depth"][24, 24, 0] > images["depth"][24, 34, 0], "the middle of a ball is nearer"
    assert np.ptp(images["clay"][24, 24]) <= 1 and np.abs(images["lit"] - images["rgb"]).max() > 20


@pytest.mark.parametrize(
    ("host", "origin", "expected"),
    [
        ("127.0.0.1:8080", None, True), ("localhost:9000", "http://localhost:9000", True),
        ("127.0.0.1:8080", "http://evil.example", False), ("evil.example:8080", None, False),
        ("evil.example", "http://evil.example", False), ("127.0.0.1:8080", "http://127.0.0.1:3000", False),
        ("127.0.0.1:8080", "null", False), ("127.0.0.1.evil.example", None, False), (None, None, False),
        ("[::1", None, False), ("127.0.0.1:99999", "http://127.0.0.1:99999", False),
    ],
)  # fmt: skip
def test_only_pages_of_this_machine_are_local(host: str | None, origin: str | None, expected: bool) -> None:
    assert is_local(host, origin) is expected


def test_the_server_refuses_strangers_and_survives_garbage(view: LiveView) -> None:
    port = view.server.get_port()
    assert view.url == f"http://127.0.0.1:{port}"

    def status(**headers: str) -> int:
        try:
            with urllib.request.urlopen(urllib.request.Request(view.url, headers=headers), timeout=20) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code

    assert [status(), status(Host="evil.example"), status(Origin="http://evil.example")] == [200, 403, 403]

    async def connect(origin: str | None, *messages: bytes | str) -> str:
        try:
            async with websockets.connect(f"ws://127.0.0.1:{port}", origin=origin, max_size=None) as socket:  # pyright: ignore
                for message in messages:
                    await socket.send(message)
                await asyncio.wait_for(socket.recv(), 10)
                return "connected"
        except websockets.InvalidStatus as error:
            return str(error.response.status_code)
        except websockets.ConnectionClosed:
            return "closed"

    assert asyncio.run(connect("http://evil.example")) == "403"
    for message in (b"\xff\x00garbage", "text", b""):
        assert asyncio.run(connect(view.url, message)) in ("connected", "closed")
    assert status() == 200 and view(Pipeline(config()).first()) is None


def test_a_hundred_hostile_clients_do_not_disturb_a_run(undisturbed: Path, tmp_path: Path, view: LiveView) -> None:
    port, subprotocol = view.server.get_port(), websockets.Subprotocol(f"viser-v{viser.__version__}")
    payloads = (b"\xff\x00garbage", b"\x81\xa4type", b"", b"\xc1" * 100, "text", b"\x93" * 5000, bytes(4 << 20))
    ended: list[int] = []

    async def harass(number: int) -> None:
        if number % 4 == 3:  # disconnects in the middle of a frame: a header that announces 1 MB, and 10 bytes of it
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            asked = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}"
            writer.write(f"{asked}Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n".encode())
            await reader.readline()
            writer.write(b"\x82\xff" + (1 << 20).to_bytes(8, "big") + bytes(14))
            await writer.drain()
            writer.transport.abort()
        else:
            try:
                async with websockets.connect(
                    f"ws://127.0.0.1:{port}", subprotocols=[subprotocol], max_size=None
                ) as client:
                    await client.send(payloads[number % len(payloads)])
                    await asyncio.wait_for(client.recv(), 20)
                    if number % 4 == 2:
                        client.transport.abort()
            except websockets.ConnectionClosed:
                pass
        ended.append(number)

    async def harass_all() -> None:
        await asyncio.gather(*(harass(number) for number in range(100)))

    crowd = threading.Thread(target=lambda: asyncio.run(harass_all()))

    def watch(stage: Stage) -> Wish | None:
        if stage.total == 0 and not crowd.is_alive() and not ended:
            crowd.start()
        wish = view(stage)
        return Wish.WAIT if stage.total == 2 and crowd.is_alive() else wish

    generate(config("gaussians", "export.enabled=false"), tmp_path / "run", watch=watch)
    crowd.join(30)
    assert sorted(ended) == list(range(100))
    assert saved(tmp_path / "run", 4) == saved(undisturbed, 4)
    with urllib.request.urlopen(view.url, timeout=20) as answer:
        assert answer.status == 200


def test_a_taken_port_gives_another_one() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        with LiveView("a test", port=number) as view:
            assert view.server.get_port() > number and view.server.get_host() == "127.0.0.1"


def test_scenes_of_a_run_and_of_its_files(finished: Result, tmp_path: Path) -> None:
    undisturbed = finished.folder
    camera = Cameras.orbit([20.0], [15.0], height=48)
    run, text = scene_of(undisturbed)
    assert text == "'a red mug': gaussians after step 4, in stage 'coarse'"
    splats, text = scene_of(undisturbed / "asset" / "asset.ply")
    assert text.endswith("Gaussians")
    write_gaussian_glb(read_gaussian_ply(undisturbed / "asset" / "asset.ply"), tmp_path / "splats.glb")
    gltf, text = scene_of(tmp_path / "splats.glb")
    assert text.endswith("Gaussians")
    mesh, text = scene_of(undisturbed / "asset" / "asset.glb")
    assert text.endswith("triangles")
    shown = [draw(scene, camera, "rgb").astype(int) for scene in (run, splats, mesh)]
    assert np.abs(draw(gltf, camera, "rgb").astype(int) - shown[1]).max() <= 1
    assert shown[0].min() < 150 and np.abs(shown[0] - draw(finished.scene, camera, "rgb")).max() == 0
    assert all((image < 200).any() for image in shown)
    assert (draw(mesh, camera, "clay") < 250).any()


def test_a_followed_run_is_read_again_and_left_alone(undisturbed: Path, tmp_path: Path) -> None:
    """The page goes from waiting to each new state, and to the end of the run."""
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    with pytest.raises(UserError, match="no run to view"):
        RunFolder(folder)
    shutil.copy(undisturbed / "config.yaml", folder)
    with pytest.raises(UserError, match="no usable checkpoint yet"):
        RunFolder(folder)
    with owned(folder), Follower(RunFolder(folder), port=18110) as follower:

        def text() -> str:
            follower._looked = -np.inf
            follower.update()
            return follower._status.content.replace("\\", "")

        assert text() == f"no checkpoint yet; the run goes on (process {os.getpid()})"
        for suffix in ("safetensors", "json"):
            shutil.copy(undisturbed / "checkpoints" / f"000004.{suffix}", folder / "checkpoints")
        assert text().startswith("'a red mug': gaussians after step 4, in stage 'coarse'; the run goes on")
        assert follower._first.options == ("newest", "coarse")
        first = follower._read["newest"].scene
        assert text() and follower._read["newest"].scene is first, "unchanged files are not read again"
        shutil.copytree(undisturbed / "asset", folder / "asset")
        follower._second.value = "asset"
        text()
        follower._second.value = "asset"
        assert "asset.glb" in text() and follower._second.options == ("nothing", "newest", "coarse", "asset")
        (folder / "checkpoints" / "000004.safetensors").write_bytes(b"damaged")
        os.utime(folder / "checkpoints" / "000004.json")
        assert "damaged" in text() and follower._read["newest"].scene is first, "the last good state stays"
        for garbage in ([], None, "unknown", 3.0):
            follower._first.value = garbage  # pyright: ignore
            text()
        files = sorted(path.name for path in folder.iterdir())
        assert files == [".lock", "asset", "checkpoints", "config.yaml"]
    assert RunFolder(folder).owner() == ""


def test_the_asset_is_where_the_scene_is(finished: Result) -> None:
    asset, _ = asset_scene(finished.folder / "asset" / "asset.glb")
    assert isinstance(asset, MeshScene) and finished.mesh is not None
    for bound in (torch.amin, torch.amax):
        assert torch.allclose(bound(asset.mesh.vertices, 0), bound(finished.mesh.vertices, 0), atol=1e-3)


def test_two_scenes_are_beside_each_other(finished: Result) -> None:
    scene = finished.scene
    empty = GaussiansConfig(count=4, opacity=0.01).build(torch.Generator().manual_seed(0))
    camera = Cameras.orbit([20.0], [15.0], height=48, width=70)
    whole = draw(scene, camera, "rgb").astype(int)
    split = beside([scene, scene], camera, "rgb", "split", 0.4).astype(int)
    away = np.r_[:26, 30:70]  # but for the line
    assert np.abs(split - whole)[:, away].max() <= 1, "the same camera on both sides"
    assert (split[:, 27:29] == 128).all()
    half = beside([empty, scene], camera, "rgb", "split", 0.4)
    assert (half[:, :26] > 240).all() and np.abs(half.astype(int) - whole)[:, 30:].max() <= 1
    both = beside([scene, scene], camera, "rgb", "side by side", 0.4).astype(int)
    assert np.abs(both[:, 1:34] - both[:, 36:69]).max() <= 1, "both whole"
    for position in (-1.0, 0.0, 1.0, 2.0):
        assert beside([scene, empty], camera, "rgb", "split", position).shape == (48, 70, 3)


def test_images_have_depth_while_there_are_frustums(view: LiveView, monkeypatch: pytest.MonkeyPatch) -> None:
    stage, browser = Pipeline(config()).first(), Browser()
    monkeypatch.setattr(view.server, "get_clients", lambda: {0: browser})
    view(stage)
    assert browser.depths[-1] is None
    view._cameras.value = True
    view._order("cameras")
    view(stage)
    depth = browser.depths[-1]
    assert depth is not None and depth.shape == browser.images[-1].shape[:2]
    solid = depth < FARTHEST
    assert solid.any() and (2 < depth[solid]).all() and (depth[solid] < 4.5).all(), "the ball is 3.2 m away"


def test_browsers_draw_splats_and_meshes_themselves(
    view: LiveView, finished: Result, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, browser = finished.scene, Browser(turns=False)
    assert isinstance(scene, Gaussians)
    monkeypatch.setattr(view.server, "get_clients", lambda: {0: browser})
    view.images._painter.value = NATIVE
    for _ in range(2):
        view.images.draw([scene], 1, is_idle=True)
    splats = view.images._native
    assert isinstance(splats, viser.GaussianSplatHandle) and browser.images == [None], "no image behind them"
    centers = splats.buffer.view(np.float32)[:, :3]
    assert np.allclose(centers, scene.means.detach().numpy())
    half = np.ascontiguousarray(splats.buffer[:, 4:7]).view(np.float16).astype(float)
    variance = half[:, [0, 3, 5]].sum(1)
    assert np.allclose(variance, scene.scales.detach().square().sum(1).numpy(), rtol=0.02, atol=1e-6)
    meshes = [asset_scene(finished.folder / "asset" / "asset.glb")[0]]
    for number, surface in enumerate(meshes):
        view.images.draw([surface], number + 2, is_idle=True)
        assert isinstance(view.images._native, viser.GlbHandle)
    view.images.draw([scene, scene], 9, is_idle=True)
    assert view.images._native is None and browser.images[-1] is not None, "two scenes are rendered here"


@pytest.mark.parametrize(
    ("name", "text"),
    [("missing", "there is no file or folder"), ("empty", "no run to view"), ("mesh.glb", "mesh.glb")],
)
def test_what_cannot_be_viewed_is_an_error_of_one_line(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "mesh.glb").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=text):
        scene_of(tmp_path / name)


def test_the_command_ends_with_ctrl_c_and_names_what_is_missing(
    undisturbed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Follower, "follow", interrupted)
    assert main(["view", str(undisturbed), "--port", "18090"]) == 130
    captured = capsys.readouterr()
    assert "http://127.0.0.1:18090" in captured.out and captured.err == "stopped; nothing was changed\n"
    assert threading.active_count() < 50
    assert main(["view", str(undisturbed), "--port", "70000"]) == 1
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main(["view", str(undisturbed)]) == 1
    assert "pip install 'steindreamer[view]'" in capsys.readouterr().err


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")
def test_a_browser_sees_the_scene_and_pauses_the_run(view: LiveView, tmp_path: Path) -> None:
    stage = Pipeline(config()).first()
    path = tmp_path / "view.png"
    with open_browser(tmp_path) as page:
        page.open(view.url, 1100, 500)
        page.until("[...document.querySelectorAll('button')].some((each) => each.textContent === 'Pause')")

        def center() -> tuple[int, ...]:
            view(stage)
            page.screenshot(path)
            with Image.open(path) as image:
                return image.convert("RGB").getpixel((388, 250))  # pyright: ignore

        before = view(stage), center()
        for _ in range(100):
            if min(center()) < 200:
                break
        assert before[0] is None and min(center()) < 200, "the ball of the first step is in the middle"
        page.evaluate("[...document.querySelectorAll('button')].find((b) => b.textContent === 'Pause').click()")
        end = time.monotonic() + 20
        while view(stage) is not Wish.WAIT:
            assert time.monotonic() < end
        page.until("document.body.innerText.includes('paused') && document.body.innerText.includes('Resume')")
    assert view(stage) is Wish.WAIT, "the run outlives its browser"


def test_a_run_with_the_view_ends_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--no-refine", "--prior", "world", "--prompt", "a red mug", "--out", str(tmp_path / "run")]
    given = [*SETTINGS, *SCENES["gaussians"], "stages.coarse.steps=1", "export.enabled=false"]
    assert main(["run", "--view", "--port", "18070", *out, *given]) == 0
    said = capsys.readouterr()
    assert "view: http://127.0.0.1:18070 (" in said.out and "viser" not in said.out + said.err
    with pytest.raises(ConnectionRefusedError), socket.socket() as closed:
        closed.connect(("127.0.0.1", 18070))
