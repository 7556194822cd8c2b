"""Exporting a mesh whose texture was trained: kept as it is, or made anew in another size."""

from __future__ import annotations

import json
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from fitted_scenes import ring_and_ball
from PIL import Image
from torch import Tensor

from steindreamer.pipelines.export import ExportConfig, export_asset
from steindreamer.pipelines.meshing.atlas import TexturedSurface, texture_surface
from steindreamer.pipelines.meshing.conversion import Conversion, conversion_psnr
from steindreamer.pipelines.meshing.stopwatch import Stopwatch
from steindreamer.pipelines.meshing.texels import rasterize_uvs
from steindreamer.pipelines.meshing.views import take_views
from steindreamer.representations import SurfaceIndex, TextureConfig, TexturedMesh, sample_surface
from steindreamer.representations.mesh.render import sample_texture

SIZE = 128
EXPORT = ExportConfig(
    resolution=40, cameras=20, view_size=96, face_budget=800, texture_size=SIZE, padding=2, tolerance=0.0
)


@pytest.fixture(scope="module")
def trained() -> TexturedMesh:
    """With speckles that no bake from images would reproduce."""
    context = Conversion(EXPORT, torch.Generator().manual_seed(0), torch.device("cpu"))
    scene = TextureConfig().from_scene(ring_and_ball(), context)
    noise = torch.randn(scene.texture_logits.shape, generator=torch.Generator().manual_seed(0))
    scene.texture_logits.data += noise
    return scene


def _surface(scene: TexturedMesh, config: ExportConfig, watch: Stopwatch | None = None) -> TexturedSurface:
    return texture_surface(scene, take_views(scene, 20, 96), config, watch or Stopwatch())


def test_texels_are_kept_and_gutters_filled(trained: TexturedMesh) -> None:
    surface = _surface(trained, EXPORT)
    assert surface.watertight and surface.mesh.texture is not None
    assert torch.equal(surface.mesh.faces, trained.faces) and torch.equal(surface.mesh.uvs, trained.uvs)  # pyright: ignore
    assert len(surface.detailed.faces) > len(trained.faces)
    page, texture = surface.mesh.texture, trained.texture.detach()
    texels = rasterize_uvs(surface.mesh, SIZE)
    rows, columns = torch.from_numpy(texels.rows), torch.from_numpy(texels.columns)
    assert (page - texture)[:, rows, columns].abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(page, page[:, rows, columns][:, torch.from_numpy(texels.nearest)])
    assert (page - texture).abs().max() > 0.1, "the gutters were noise too"


@pytest.mark.parametrize(
    "changed",
    [{"face_budget": 300}, {"texture_size": 64}, {"texture_size": 256, "source": "field", "color_source": "field"}],
)
def test_another_size_is_made_anew(trained: TexturedMesh, changed: dict[str, int]) -> None:
    config = replace(EXPORT, **changed)
    watch = Stopwatch()
    surface = _surface(trained, config, watch)
    assert list(watch.seconds) == ["surface", "cleanup", "unwrap", "bake"]
    mesh, size = surface.mesh, config.texture_size
    assert surface.watertight and 0.7 * config.face_budget < len(mesh.faces) <= config.face_budget
    assert mesh.texture is not None and mesh.texture.shape == (3, size, size)
    assert conversion_psnr(trained, TexturedMesh.from_mesh(mesh), 128) > 20


def test_a_remade_mesh_has_the_trained_texels(trained: TexturedMesh) -> None:
    """Stripes of four texels, which the 96-pixel views cannot show."""
    scene = TexturedMesh.from_mesh(trained.mesh(), detail=trained.detail())
    stripes = ((torch.arange(SIZE) // 4) % 2).float().clamp(0.05, 0.95)
    scene.texture_logits.data = torch.logit(stripes).expand_as(scene.texture_logits).clone()
    again = _surface(scene, replace(EXPORT, face_budget=700)).mesh
    old, new = scene.mesh(), again
    assert old.uvs is not None and new.uvs is not None and new.texture is not None
    generator = torch.Generator().manual_seed(0)
    seen = sample_surface(new, 4000, generator)
    closest = SurfaceIndex(old).closest(seen.points, seen.normals)
    uvs = closest.interpolate(old.uvs, old)
    trained_colors = sample_texture(scene.texture.detach(), uvs.T[None, :, :, None])[0, :, :, 0].T
    assert seen.colors is not None
    close = (seen.colors - trained_colors).abs().mean(1) < 0.15
    assert float(close.float().mean()) > 0.7, "two fifths by chance"


def test_a_smaller_texture_is_averaged(trained: TexturedMesh) -> None:
    """Stripes of one texel become gray instead of aliasing."""
    scene = TexturedMesh.from_mesh(trained.mesh(), detail=trained.detail())
    stripes = (torch.arange(SIZE) % 2).float().clamp(0.05, 0.95)
    scene.texture_logits.data = torch.logit(stripes).expand_as(scene.texture_logits).clone()
    smaller = _surface(scene, replace(EXPORT, texture_size=SIZE // 4)).mesh.texture
    assert smaller is not None and float(smaller.std()) < 0.1


def test_a_mesh_without_a_finer_one_is_simplified_itself(trained: TexturedMesh) -> None:
    bare = TexturedMesh.from_mesh(trained.mesh())
    surface = _surface(bare, replace(EXPORT, face_budget=300))
    assert surface.watertight and 200 < len(surface.mesh.faces) <= 300
    assert _surface(bare, EXPORT).watertight


def test_the_file_holds_the_trained_texture(trained: TexturedMesh, tmp_path: Path) -> None:
    report = export_asset(trained, tmp_path, EXPORT)
    assert list(report.seconds) == ["views", "bake", "maps", "write", "compare"]
    assert report.faces == len(trained.faces) and report.watertight and report.silhouette_iou > 0.97
    texels = rasterize_uvs(trained.mesh(), SIZE)
    wanted: Tensor = trained.texture.detach()[:, torch.from_numpy(texels.rows), torch.from_numpy(texels.columns)]
    found = _base_color(report.path)[texels.rows, texels.columns]
    assert np.abs(found - 255 * wanted.T.numpy()).max() <= 0.5 + 1e-3


def _base_color(path: Path) -> np.ndarray:
    data = path.read_bytes()
    size = int.from_bytes(data[12:16], "little")
    tree, body = json.loads(data[20 : 20 + size]), data[28 + size :]
    texture = tree["materials"][0]["pbrMetallicRoughness"]["baseColorTexture"]["index"]
    view = tree["bufferViews"][tree["images"][tree["textures"][texture]["source"]]["bufferView"]]
    image = Image.open(BytesIO(body[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]))
    return np.asarray(image).astype(np.float32)
