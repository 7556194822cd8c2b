"""Exported assets under light: the shading follows its closed form, normal maps tilt it, and files are read whole."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from mesh_samples import sphere, square

from steindreamer.pipelines.export import write_glb
from steindreamer.pipelines.meshing.maps import MaterialMaps, NormalMap, vertex_tangents
from steindreamer.representations import Cameras, TriangleMesh, render_mesh
from steindreamer.world import caption_of, sample_object
from steindreamer.world.scorer import Accuracy

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
NAMES = ("glb", "lit", "recognition")
FRONT = Cameras.orbit([0.0], [0.0], height=32)
CORNERS = torch.tensor([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
"""Texture coordinates of `square`."""


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in NAMES})
    for name in NAMES:
        sys.modules.pop(name, None)


def textured(mesh: TriangleMesh, color: tuple[float, float, float]) -> TriangleMesh:
    uvs = torch.full((len(mesh.vertices), 2), 0.5)
    texture = torch.tensor(color)[:, None, None].expand(3, 4, 4).contiguous()
    return replace(mesh, normals=torch.nn.functional.normalize(mesh.vertices, dim=1), uvs=uvs, texture=texture)


def plate(tilt_x: float = 0.0, tilt_y: float = 0.0) -> tuple[TriangleMesh, MaterialMaps]:
    """A gray square facing +Z, and maps whose normals lean along its texture's u and up."""
    normals = torch.tensor([[0.0, 0.0, 1.0]]).expand(4, 3).contiguous()
    mesh = square(0.5, normals=normals, uvs=CORNERS, texture=torch.full((3, 8, 8), 0.5))
    local = np.array([tilt_x, tilt_y, math.sqrt(1 - tilt_x**2 - tilt_y**2)])
    tile = np.broadcast_to((255 * (0.5 + 0.5 * local)).round().astype(np.uint8), (8, 8, 3)).copy()
    return mesh, MaterialMaps(NormalMap(vertex_tangents(mesh), tile, 10.0), np.full((8, 8, 3), 255, np.uint8))


def test_a_white_sphere_is_brighter_on_the_side_of_the_light(modules: Any) -> None:
    """The key light is above, on the left, and moves with the camera."""
    asset = modules.lit.Asset(textured(sphere(0.9), (0.8, 0.8, 0.8)), None, None, None)
    images = modules.lit.render_asset(asset, Cameras.orbit([0.0, 130.0], [0.0, 30.0], height=32), "lit")
    for image in images:
        top, bottom, left, right = image[:, 9, 16], image[:, 22, 16], image[:, 16, 9], image[:, 16, 22]
        assert (top > bottom + 0.2).all() and (left > right + 0.1).all()
        assert image[:, 16, 16].std() < 1e-5  # white light


def test_clay_is_gray_and_unlit_is_the_base_color(modules: Any) -> None:
    asset = modules.lit.Asset(textured(sphere(0.9), (0.9, 0.2, 0.1)), None, None, None)
    clay, unlit, lit = (modules.lit.render_asset(asset, FRONT, look) for look in ("clay", "unlit", "lit"))
    assert (clay.amax(1) - clay.amin(1)).max() < 1e-6 < clay.std()
    torch.testing.assert_close(unlit, render_mesh(asset.mesh, FRONT, torch.ones(1, 3), supersample=2).rgb)
    assert (lit[0, 0] >= lit[0, 1] - 1e-6).all() and lit[0, :, 16, 16].diff().max() < -0.05  # still red


def test_an_exported_normal_map_tilts_the_surface(modules: Any, tmp_path: Path) -> None:
    """Leaning toward the light (up, and left: against u) is brighter; a flat map changes nothing."""

    def brightness(tilt_x: float, tilt_y: float) -> float:
        mesh, maps = plate(tilt_x, tilt_y)
        write_glb(tmp_path / "plate.glb", mesh, maps=maps, extras={"prompt": "a red mug"})
        asset = modules.lit.read_asset(tmp_path / "plate.glb")
        assert asset.prompt == "a red mug"
        return modules.lit.render_asset(asset, FRONT, "clay")[0, :, 16, 16].mean().item()

    mesh, _ = plate()
    write_glb(tmp_path / "plain.glb", mesh)
    plain = modules.lit.read_asset(tmp_path / "plain.glb")
    assert plain.normal_map is None and plain.tangents is None and plain.prompt is None
    flat = modules.lit.render_asset(plain, FRONT, "clay")[0, :, 16, 16].mean().item()
    assert brightness(0, 0) == pytest.approx(flat, abs=0.01)
    assert brightness(0, 0.5) > flat + 0.02 > flat - 0.02 > brightness(0, -0.5)
    assert brightness(-0.5, 0) > flat + 0.02 > flat - 0.02 > brightness(0.5, 0)


class Bright:
    """Finds every image whose object is brighter than a threshold."""

    def accuracy(self, images: torch.Tensor, captions: list[str]) -> Accuracy:
        assert captions == ["a red mug"] * len(images) and len(images) == 16
        found = (images[:, :, 64, 64].mean(1) > 0.25).float().mean().item()
        return Accuracy(found, found / 2, found / 2)


def test_every_look_is_scored_and_drawn(modules: Any) -> None:
    """A dark red ball is brighter than the threshold unlit and as clay, and darker under light."""
    asset = modules.lit.Asset(textured(sphere(0.9, 3), (0.7, 0.1, 0.0)), None, None, "a red mug")
    found = modules.recognition.recognized(asset, Bright())
    assert [found[look].kind for look in ("unlit", "lit", "clay")] == [1, 0, 1]
    assert modules.recognition.cells(found) == "| 100 %, 50 % | 0 %, 0 % | 100 % |"
    grid = modules.recognition.grid([asset])
    assert grid.size == (4 * 256, 2 * 256)
    with pytest.raises(ValueError, match="no prompt"):
        modules.recognition.recognized(replace(asset, prompt=None), Bright())


def test_assets_are_placed_like_the_worlds_objects(modules: Any) -> None:
    mesh = sample_object(caption_of("mug", "red"), np.random.default_rng(0))
    moved = TriangleMesh(3 * mesh.vertices + torch.tensor([1.0, 2.0, 3.0]), mesh.faces, colors=mesh.colors)
    torch.testing.assert_close(modules.glb.placed(moved).vertices, mesh.vertices, atol=1e-5, rtol=0)
