"""The 3D view of an asset in a browser: it shows the file's triangles as our renderer does, and loads nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from browser import CHROMIUM, Page, browser
from clean_asset import Content
from PIL import Image

from steindreamer.pipelines.export import unwrap, write_glb
from steindreamer.pipelines.export.lighting import clay, lit
from steindreamer.pipelines.pages.asset_view import asset_model, asset_page, asset_view
from steindreamer.pipelines.pages.document import html_document
from steindreamer.pipelines.runs.result import Result
from steindreamer.representations import Cameras, RenderOutput, TriangleMesh, render_mesh

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH")
BACKGROUND = 242 / 255
SHOWN = "document.body.dataset.frames > 0"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def forget(page: Page) -> None:
    page.problems.clear()
    page.requests.clear()


def show(page: Page, glb: Path, view: str = "", *, width: int = 700, height: int = 800, phone: bool = False) -> Path:
    """Open the page of an asset, and wait until it is drawn; returns the page's file."""
    path = glb.with_suffix(".html")
    path.write_text(asset_page(asset_model(glb), "an asset"), encoding="utf-8")
    page.open(f"{path.as_uri()}#{view}", width, height, phone=phone)
    page.until(SHOWN)
    return path


def canvas(page: Page, path: Path) -> np.ndarray:
    """The pixels of the 3D view in [0, 1]."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    box = page.evaluate("JSON.parse(JSON.stringify(document.querySelector('.stand canvas').getBoundingClientRect()))")
    page.screenshot(path, **{name: box[name] for name in ("x", "y", "width", "height")})
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")) / 255.0


@pytest.fixture(scope="module")
def slab() -> TriangleMesh:
    """A box with three different sides, rounded normals and a smooth texture."""
    box = trimesh.creation.box((1.0, 0.6, 0.3)).subdivide().subdivide()
    mesh = TriangleMesh(torch.tensor(box.vertices).float(), torch.tensor(box.faces).long())
    mesh = unwrap(mesh, 256, padding=4)
    v, u = torch.meshgrid(torch.linspace(0, 1, 256), torch.linspace(0, 1, 256), indexing="ij")
    texture = torch.stack([u, v, 0.5 + 0.5 * torch.sin(9 * u) * torch.cos(7 * v)])
    return TriangleMesh(mesh.vertices, mesh.faces, normals=mesh.normals, uvs=mesh.uvs, texture=texture)


def unlit(output: RenderOutput, camera: Cameras) -> torch.Tensor:
    return output.rgb


@pytest.mark.parametrize(("mode", "look", "most"), [("base", unlit, 0.006), ("clay", clay, 0.006), ("lit", lit, 0.03)])
def test_the_view_is_what_our_renderer_draws(
    page: Page, slab: TriangleMesh, tmp_path: Path, mode: str, look: Callable, most: float
) -> None:
    """`lit` adds the reflections of a rough material, which the previews do not have."""
    write_glb(tmp_path / "asset.glb", slab, height_meters=0.3)
    show(page, tmp_path / "asset.glb", f"mode={mode}&yaw=40&pitch=25")
    seen = canvas(page, tmp_path / "view.png")
    distance = math.hypot(1.0, 0.6, 0.3) / 2 / math.sin(math.radians(20))
    camera = Cameras.orbit([40.0], [25.0], distance=distance, height=seen.shape[0], width=seen.shape[1])
    output = render_mesh(slab, camera, torch.ones(1, 3), supersample=4)
    opacity = output.opacity[0, 0].numpy()
    expected = look(output, camera)[0].permute(1, 2, 0).numpy() - (1 - BACKGROUND) * (1 - opacity[..., None])
    inside = (np.abs(seen - BACKGROUND) > 0.01).any(2)
    assert 0.1 < inside.mean() and (inside & (opacity > 0.5)).sum() / (inside | (opacity > 0.5)).sum() > 0.985
    error = np.abs(seen - expected)[opacity == 1]
    assert error.mean() < most and np.percentile(error, 97) < 3 * most
    assert not page.problems and page.evaluate("document.body.dataset.errors") is None


@pytest.mark.parametrize("arrangement", ["siblings", "MSFT_lod", "files"])
def test_levels_and_collider(page: Page, tmp_path: Path, arrangement: str) -> None:
    content = Content()
    if arrangement == "files":
        Content(level=None, hull=None).save(tmp_path, "asset.glb")
        assert content.level is not None and content.hull is not None
        Content(arrays=content.level, level=None, hull=None, node={"name": "asset_LOD1"}).save(
            tmp_path, "asset_LOD1.glb"
        )
        content.hull.export(tmp_path / "asset_collider.glb")
    else:
        if arrangement == "MSFT_lod":

            def link(tree: dict) -> None:
                tree["nodes"][0]["extensions"] = {"MSFT_lod": {"ids": [1]}}
                tree["nodes"][1]["name"] = "another"
                tree["scenes"][0]["nodes"] = [0, 2]
                tree["extensionsUsed"] = ["MSFT_lod"]

            content.tree = link
        content.save(tmp_path, "asset.glb")
    show(page, tmp_path / "asset.glb", "mode=wire")
    buttons = page.evaluate("[...document.querySelectorAll('.bar button')].map((each) => each.textContent)")
    assert buttons[:6] == ["Lit", "Clay", "Wire", "Base color", "Normal map", "ORM"]
    assert buttons[6:] == ["LOD 0", "LOD 1", "Collider", "Reset view"]
    plain = canvas(page, tmp_path / "plain.png")
    assert page.evaluate("document.body.dataset.triangles") == "320"
    page.evaluate("[...document.querySelectorAll('.bar button')].find((b) => b.textContent === 'LOD 1').click()")
    coarse = canvas(page, tmp_path / "coarse.png")
    assert page.evaluate("document.body.dataset.triangles") == "80" and np.abs(plain - coarse).mean() > 0.005
    page.evaluate("[...document.querySelectorAll('.bar button')].find((b) => b.textContent === 'Collider').click()")
    hull = canvas(page, tmp_path / "hull.png")
    assert page.evaluate("document.body.dataset.collider") == "true"
    covered = (np.abs(hull - coarse).max(2) > 0.02).mean()
    assert covered > 0.1, "the hull encloses the asset"
    assert not page.problems


def test_an_asset_without_levels_collider_and_maps_has_no_such_buttons(page: Page, tmp_path: Path) -> None:
    ball = trimesh.creation.icosphere(subdivisions=1)
    mesh = TriangleMesh(torch.tensor(ball.vertices).float(), torch.tensor(ball.faces).long())
    write_glb(tmp_path / "asset.glb", mesh)
    show(page, tmp_path / "asset.glb", "mode=clay&level=7&collider=x&yaw=nonsense")
    buttons = page.evaluate("[...document.querySelectorAll('.bar button')].map((each) => each.textContent)")
    assert buttons == ["Lit", "Clay", "Wire", "Base color", "Reset view"]
    data = page.evaluate("({...document.body.dataset})")
    assert data.items() >= {"mode": "clay", "level": "0", "collider": "false", "triangles": "80"}.items()


def test_maps_and_their_texture_coordinates_are_drawn(page: Page, tmp_path: Path) -> None:
    show(page, Content(level=None, hull=None).save(tmp_path, "asset.glb"))
    captions = page.evaluate("[...document.querySelectorAll('.atlas figcaption')].map((each) => each.textContent)")
    assert captions == [
        "Base color, 128 × 128 px",
        "Texture coordinates",
        "Occlusion, roughness, metalness, 128 × 128 px",
        "Normal map, 128 × 128 px",
    ]
    first, second = (
        np.array(page.evaluate(
            f"[...document.querySelectorAll('.atlas canvas')[{i}].getContext('2d').getImageData(0, 0, 128, 128).data]"
        )).reshape(128, 128, 4)
        for i in (0, 1)
    )  # fmt: skip
    assert np.abs(first[..., :3] - Content().images["T_Ball_BC"].astype(int)).max() <= 1
    assert (second[..., :3].sum(2) < 300).mean() > 0.05, "lines"


def test_mouse_wheel_keys_and_touch_move_the_camera(page: Page, slab: TriangleMesh, tmp_path: Path) -> None:
    write_glb(tmp_path / "asset.glb", slab)
    show(page, tmp_path / "asset.glb", "mode=clay", phone=True, width=360, height=740)
    last = canvas(page, tmp_path / "view.png")

    def mouse(kind: str, x: float, y: float, **more: float) -> None:
        page.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1, **more)

    def drag() -> None:
        mouse("mousePressed", 150, 150, buttons=1)
        mouse("mouseMoved", 220, 170, buttons=1)
        mouse("mouseReleased", 220, 170)

    def wheel() -> None:
        page.call("Input.dispatchMouseEvent", type="mouseWheel", x=150, y=150, deltaX=0, deltaY=-300)

    def key() -> None:
        page.evaluate("document.querySelector('.stand canvas').focus()")
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key="ArrowLeft", code="ArrowLeft", windowsVirtualKeyCode=37)

    def pinch() -> None:
        for kind, apart in (("touchStart", 40), ("touchMove", 50), ("touchMove", 70), ("touchEnd", 0)):
            points = [{"x": 170 + side * apart, "y": 150, "id": side + 1} for side in (-1, 1) if apart]
            page.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)

    for move in (drag, wheel, key, pinch):
        move()
        now = canvas(page, tmp_path / "view.png")
        assert np.abs(now - last).mean() > 0.01, move.__name__
        last = now
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("Math.min(...[...document.querySelectorAll('button')].map((each) => each.offsetHeight))") >= 24
    assert page.evaluate("scrollY") == 0 and not page.problems


def test_the_page_makes_no_request_and_may_make_none(page: Page, tmp_path: Path) -> None:
    path = show(page, Content().save(tmp_path, "asset.glb"))
    assert [url for url in page.requests if not url.startswith("data:")] == [path.as_uri()]
    assert not page.problems
    outcome = page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'loaded', (error) => error.message)")
    assert outcome == "Failed to fetch" and "http://127.0.0.1:9/" in page.evaluate("document.body.dataset.errors")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title = 1\">')")
    assert page.evaluate("document.title") == "an asset"


def test_a_lost_context_is_restored(page: Page, tmp_path: Path) -> None:
    show(page, Content().save(tmp_path, "asset.glb"))
    before = canvas(page, tmp_path / "before.png")
    page.evaluate(
        """new Promise((done) => {
          const canvas = document.querySelector('.stand canvas');
          const lost = canvas.getContext('webgl2').getExtension('WEBGL_lose_context');
          canvas.addEventListener('webglcontextrestored', () => setTimeout(done, 100));
          lost.loseContext();
          setTimeout(() => lost.restoreContext(), 50);
        })"""
    )
    assert np.abs(canvas(page, tmp_path / "after.png") - before).mean() < 0.002


@pytest.mark.parametrize(("content", "text"), [(b"nonsense" * 4, "not a binary glTF"), (None, "KHR_draco")])
def test_a_file_that_cannot_be_shown_says_why(page: Page, tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / "asset.glb"
    if content is None:
        Content(tree=lambda tree: tree.update(extensionsRequired=["KHR_draco_mesh_compression"])).save(
            tmp_path, path.name
        )
    else:
        path.write_bytes(content)
    html = path.with_suffix(".html")
    html.write_text(asset_page(asset_model(path), "x"))
    page.open(html.as_uri())
    page.until("document.body.dataset.errors")
    assert text in page.evaluate("document.querySelector('#viewer .soft').textContent")


def test_several_models_have_buttons(page: Page, slab: TriangleMesh, tmp_path: Path) -> None:
    write_glb(tmp_path / "slab.glb", slab)
    models = [asset_model(Content().save(tmp_path, "ball.glb"), "ball"), asset_model(tmp_path / "slab.glb", "slab")]
    view = asset_view(models)
    path = tmp_path / "models.html"
    path.write_text(html_document("models", view.html, style=view.style, script=view.script), encoding="utf-8")
    page.open(path.as_uri(), 600, 700)
    page.until(SHOWN)
    counts = []
    for name in ("ball", "slab", "ball"):
        page.evaluate(f"[...document.querySelectorAll('.bar button')].find((b) => b.textContent === {name!r}).click()")
        pressed = "[...document.querySelectorAll('.bar [aria-pressed=true]')].map((b) => b.textContent)"
        page.until(f"{pressed}.includes({name!r})")
        seen = canvas(page, tmp_path / f"{name}.png")
        counts.append((page.evaluate("document.body.dataset.triangles"), (np.abs(seen - BACKGROUND) > 0.01).mean()))
    assert [count for count, _ in counts] == ["320", str(len(slab.faces)), "320"]
    assert counts[0] == counts[2] != counts[1] and not page.problems


def test_names_are_text_not_markup(tmp_path: Path) -> None:
    asset = asset_model(Content().save(tmp_path, "asset.glb"), "</script><script>alert(1)</script>")
    assert asset_page(asset, "<b>").count("<script") == 3 and "<title>&lt;b&gt;" in asset_page(asset, "<b>")


def test_a_result_shows_its_asset_in_a_notebook(page: Page, slab: TriangleMesh, tmp_path: Path) -> None:
    write_glb(tmp_path / "asset.glb", slab)

    class Export:
        path = tmp_path / "asset.glb"

    result = Result(tmp_path, torch.nn.Identity(), (Export(),), 1.0)  # pyright: ignore
    html = result._repr_html_()
    assert html is not None and html.startswith("<iframe")
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f"<!doctype html><meta charset=utf-8><body>{html}</body>", encoding="utf-8")
    page.open(notebook.as_uri())

    def colors() -> int:
        page.screenshot(tmp_path / "notebook.png")
        with Image.open(tmp_path / "notebook.png") as image:
            return len(image.convert("RGB").crop((100, 100, 700, 500)).getcolors(1 << 20) or [])

    for _ in range(100):
        if colors() > 1000:
            break
    assert colors() > 1000 and not page.problems
    assert Result(tmp_path, torch.nn.Identity(), (), 1.0)._repr_html_() is None  # pyright: ignore
    Export.path.unlink()
    assert result._repr_html_() is None
