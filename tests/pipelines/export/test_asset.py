"""Baking, writing and measuring: colors come back, the file obeys glTF, the same scene gives the same bytes."""

from __future__ import annotations

import io
import json
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from analytic_scene import FieldScene, RenderedScene, position_color, sphere, torus, union
from PIL import Image
from skimage.color import deltaE_ciede2000, rgb2lab

from steindreamer.pipelines.export import ExportConfig, ExportReport, color_fidelity, export_asset, unwrap, write_glb
from steindreamer.pipelines.meshing.bake import bake_color, gather
from steindreamer.pipelines.meshing.maps import NormalMapChoice, bake_maps, bake_normals, vertex_tangents
from steindreamer.pipelines.meshing.texels import Texels, rasterize_uvs
from steindreamer.pipelines.meshing.views import take_views
from steindreamer.representations import Cameras, RenderOutput, Representation, TriangleMesh, render_mesh

SIZE = 128
SMALL = ExportConfig(
    resolution=48, cameras=20, view_size=96, face_budget=1500, texture_size=SIZE, padding=2, tolerance=5e-4
)


def icosphere(radius: float = 0.6) -> TriangleMesh:
    ball = trimesh.creation.icosphere(subdivisions=3, radius=radius)
    return TriangleMesh(torch.tensor(ball.vertices).float(), torch.tensor(ball.faces).long())


@pytest.fixture(scope="module")
def flat() -> tuple[TriangleMesh, Texels]:
    mesh = unwrap(icosphere(), SIZE, padding=2)
    return mesh, rasterize_uvs(mesh, SIZE)


def test_texels_lie_on_the_surface(flat: tuple[TriangleMesh, Texels]) -> None:
    mesh, texels = flat
    assert np.allclose(texels.weights.sum(1), 1, atol=1e-5) and texels.weights.min() >= 0
    radius = np.linalg.norm(texels.interpolate(mesh.vertices), axis=1)
    assert 0.59 < radius.min() and radius.max() <= 0.6001
    # A texel's own uv lies within its reach of the texel center.
    assert mesh.uvs is not None
    row, column = np.divmod(np.unique(texels.nearest, return_index=True)[1], SIZE)
    uv = texels.interpolate(mesh.uvs) * SIZE
    inside = (texels.nearest[row, column] == np.arange(len(uv))).all()
    assert inside and np.percentile(np.hypot(uv[:, 0] - column - 0.5, uv[:, 1] - row - 0.5), 50) < 0.01


def test_dilation_leaves_no_background(flat: tuple[TriangleMesh, Texels]) -> None:
    _, texels = flat
    page = texels.image(np.arange(1, len(texels.faces) + 1, dtype=np.float32)[:, None])
    assert page.min() >= 1
    assert set(np.unique(page)) == set(range(1, len(texels.faces) + 1))


@pytest.mark.parametrize("source", ["renders", "field"])
def test_colors_come_back_at_the_texels(flat: tuple[TriangleMesh, Texels], source: str) -> None:
    mesh, texels = flat
    scene = FieldScene(sphere(0.6))
    gathered = gather(mesh, texels, take_views(scene, 24, 128))
    page = bake_color(mesh, texels, gathered, "field" if source == "field" else "renders", scene)
    wanted = texels.image(position_color(torch.from_numpy(texels.interpolate(mesh.vertices))).numpy())
    error = np.abs(page / 255 - wanted)
    assert error.mean() < 0.008 and error.max() < 0.08


def test_unseen_texels_copy_their_neighbors_in_space(flat: tuple[TriangleMesh, Texels]) -> None:
    mesh, texels = flat
    gathered = gather(mesh, texels, take_views(RenderedScene(sphere(0.6)), 24, 128)[:4])  # only the top is seen
    below = texels.interpolate(mesh.vertices)[:, 1] < -0.3
    assert (gathered.weight[below] == 0).all()
    page = bake_color(mesh, texels, gathered, "renders", None)
    assert page.min() > 0


def test_ambient_occlusion_is_one_outside_and_less_in_a_corner(flat: tuple[TriangleMesh, Texels]) -> None:
    mesh, texels = flat
    assert gather(mesh, texels, take_views(RenderedScene(sphere(0.6)), 24, 96)).ambient_occlusion.mean() > 0.97
    two = [icosphere(0.3), icosphere(0.3)]
    shift = torch.tensor([0.3, 0.0, 0.0])
    pair = TriangleMesh(
        torch.cat([two[0].vertices - shift, two[1].vertices + shift]),
        torch.cat([two[0].faces, two[1].faces + len(two[0].vertices)]),
    )
    pair = unwrap(pair, SIZE, padding=2)
    texels = rasterize_uvs(pair, SIZE)
    ambient_occlusion = gather(
        pair,
        texels,
        take_views(RenderedScene(union(sphere(0.3, (-0.3, 0, 0)), sphere(0.3, (0.3, 0, 0)))), 24, 96),
    ).ambient_occlusion
    x = np.abs(texels.interpolate(pair.vertices)[:, 0])
    assert ambient_occlusion[x > 0.5].mean() > 0.95 and ambient_occlusion[x < 0.1].mean() < 0.8


def test_tangents_follow_u_and_the_bitangent_points_up_the_page(flat: tuple[TriangleMesh, Texels]) -> None:
    mesh, _ = flat
    tangents = vertex_tangents(mesh)
    assert mesh.normals is not None and mesh.uvs is not None
    normals = mesh.normals.numpy()
    assert np.allclose(np.linalg.norm(tangents[:, :3], axis=1), 1, atol=1e-5)
    assert np.abs((tangents[:, :3] * normals).sum(1)).max() < 1e-5
    bitangents = np.cross(normals, tangents[:, :3]) * tangents[:, 3:]
    a, b, c = mesh.faces.numpy().T
    for end in (b, c):
        step, uv = mesh.vertices.numpy()[end] - mesh.vertices.numpy()[a], (mesh.uvs[end] - mesh.uvs[a]).numpy()
        right = (step * tangents[a, :3]).sum(1) * uv[:, 0] - (step * bitangents[a]).sum(1) * uv[:, 1]
        assert (right > 0).all()


def test_normal_map_of_the_same_surface_is_flat(flat: tuple[TriangleMesh, Texels]) -> None:
    mesh, texels = flat
    normal = bake_normals(mesh, icosphere(), texels)
    maps = bake_maps(normal, texels, np.ones(len(texels.faces), np.float32), 0.7)
    assert np.abs(normal.image.astype(int) - [128, 128, 255]).max() < 12 and normal.detail < 2
    assert (maps.occlusion_roughness_metallic == [255, round(0.7 * 255), 0]).all()


def test_detail_of_a_normal_map_is_the_angle_to_the_mesh(flat: tuple[TriangleMesh, Texels]) -> None:
    mesh, texels = flat
    ball = icosphere()
    shift = torch.tensor([0.1, 0.0, 0.0])
    detail = bake_normals(mesh, replace(ball, vertices=ball.vertices + shift), texels).detail
    # The normal of the shifted ball at the point nearest to p is the direction of p from its center.
    points = torch.from_numpy(texels.interpolate(mesh.vertices)).float()
    cosine = torch.cosine_similarity(points, points - shift, dim=1).numpy()
    expected = np.degrees(np.arccos(np.percentile(cosine, 5)))
    assert expected > 8 and detail == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("choice", "kept"), [("auto", False), ("always", True), ("never", False)])
def test_a_flat_normal_map_is_left_out(
    choice: NormalMapChoice, kept: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On a mesh as fine as the surface, a normal map adds nothing."""
    caplog.set_level("INFO", logger="steindreamer")
    config = replace(SMALL, normal_map=choice, face_budget=100_000, tolerance=0.0, resolution=24)
    report = export_asset(RenderedScene(sphere(0.6)), tmp_path, config)
    material = parse(report.path)[0]["materials"][0]
    attributes = parse(report.path)[0]["meshes"][0]["primitives"][0]["attributes"]
    assert report.normal_map == ("normalTexture" in material) == ("TANGENT" in attributes) == kept
    assert any("without a normal map" in line and choice in line for line in caplog.messages) == (not kept)
    assert "occlusionTexture" in material


class MeshScene(Representation):
    def __init__(self, mesh: TriangleMesh) -> None:
        super().__init__()
        self.mesh = mesh

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {}

    def render(self, cameras: Cameras, background: torch.Tensor) -> RenderOutput:
        return render_mesh(self.mesh, cameras, background)


def test_color_difference_of_known_pairs() -> None:
    cameras = Cameras.orbit([0.0, 90.0, 180.0], [0.0, 20.0, -20.0], height=96)
    shade, other = torch.tensor([0.6, 0.4, 0.3]), torch.tensor([0.5, 0.45, 0.3])
    ball = icosphere()
    mesh = replace(ball, colors=shade.expand(len(ball.vertices), 3).contiguous())
    same = color_fidelity(MeshScene(mesh), mesh, cameras=cameras)
    assert same.color_difference < 1e-3 and same.silhouette_iou > 0.97
    shifted = replace(mesh, colors=other.expand(len(ball.vertices), 3).contiguous())
    expected = float(deltaE_ciede2000(rgb2lab(shade.numpy()), rgb2lab(other.numpy())))
    found = color_fidelity(MeshScene(mesh), shifted, cameras=cameras)
    assert found.color_difference == pytest.approx(expected, rel=1e-3)
    smaller = replace(mesh, vertices=mesh.vertices * 0.8)
    assert color_fidelity(MeshScene(mesh), smaller, cameras=cameras).silhouette_iou == pytest.approx(0.64, abs=0.03)


def parse(path: Path) -> tuple[dict, bytes]:
    data = path.read_bytes()
    magic, version, length = struct.unpack("<4sII", data[:12])
    assert (magic, version, length) == (b"glTF", 2, len(data))
    size, kind = struct.unpack("<I4s", data[12:20])
    body_size, body_kind = struct.unpack("<I4s", data[20 + size : 28 + size])
    assert kind == b"JSON" and body_kind == b"BIN\0" and len(data) == 28 + size + body_size
    return json.loads(data[20 : 20 + size]), data[28 + size :]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> ExportReport:
    config = replace(SMALL, height_meters=0.25)
    folder = tmp_path_factory.mktemp("asset")
    scene = RenderedScene(torus(0.6, 0.2))
    return export_asset(scene, folder, config, name="ring", provenance={"seed": 3})


def test_report_of_a_whole_export(exported: ExportReport) -> None:
    report = exported
    assert report.watertight and 500 < report.faces <= SMALL.face_budget
    assert 0 < report.deviation < 2e-3
    assert report.to_plain()["deviation"] == report.deviation
    assert report.color_difference < 2 and report.silhouette_iou > 0.95
    assert list(report.seconds) == ["views", "surface", "cleanup", "unwrap", "bake", "maps", "write", "compare"]


def test_thumbnail_is_square_transparent_and_filled(exported: ExportReport) -> None:
    with Image.open(exported.path.with_name("thumbnail.png")) as image:
        assert image.size == (512, 512) and image.mode == "RGBA"
        pixels = np.asarray(image).astype(float)
    solid = pixels[..., 3] == 255
    rows, columns = np.nonzero(pixels[..., 3] > 0)
    assert max(np.ptp(rows), np.ptp(columns)) == pytest.approx(0.88 * 512, abs=4)
    assert (rows.min() + rows.max()) / 2 == pytest.approx(256, abs=3)
    assert 0.1 < solid.mean() < 0.8 and (pixels[..., 3] == 0).mean() > 0.1
    light = pixels[solid][:, :3].max(1)
    assert light.max() > 200 and np.percentile(light, 1) > 10 and light.std() > 20


def test_file_obeys_the_rules(exported: ExportReport) -> None:
    tree, body = parse(exported.path)
    primitive = tree["meshes"][0]["primitives"][0]
    assert exported.normal_map and "normalTexture" in tree["materials"][0]
    assert primitive["attributes"].keys() == {"POSITION", "NORMAL", "TANGENT", "TEXCOORD_0"}
    material = tree["materials"][0]
    assert material["pbrMetallicRoughness"]["metallicFactor"] == 0
    assert material["pbrMetallicRoughness"]["roughnessFactor"] == 1
    height = float(exported.mesh.vertices[:, 1].max() - exported.mesh.vertices[:, 1].min())
    center = (exported.mesh.vertices.amin(0) + exported.mesh.vertices.amax(0)) / 2
    noted = {
        "seed": 3,
        "size_meters": list(exported.size_meters),
        "scene_height": pytest.approx(height, rel=1e-4),
        "scene_center": pytest.approx(center.tolist(), rel=1e-4, abs=1e-5),
    }
    assert tree["asset"]["extras"] == noted
    assert exported.size_meters[1] == 0.25 and exported.size_meters[0] == pytest.approx(1.0, rel=0.08)
    assert tree["samplers"] == [{"magFilter": 9729, "minFilter": 9987, "wrapS": 33071, "wrapT": 33071}]
    assert "matrix" not in tree["nodes"][0] and "scale" not in tree["nodes"][0]
    for number, accessor in enumerate(tree["accessors"]):
        view = tree["bufferViews"][accessor["bufferView"]]
        assert view["target"] == (34963 if number == primitive["indices"] else 34962)
        assert view["byteOffset"] % 4 == 0
    assert tree["accessors"][primitive["indices"]]["componentType"] == 5123
    for image in tree["images"]:
        view = tree["bufferViews"][image["bufferView"]]
        assert "target" not in view
        decoded = Image.open(io.BytesIO(body[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]))
        assert decoded.size == (SIZE, SIZE) and decoded.mode == "RGB"


def test_file_reads_back_in_place(exported: ExportReport) -> None:
    ring = trimesh.load(exported.path, force="mesh")
    assert isinstance(ring, trimesh.Trimesh)
    low, high = ring.bounds
    assert low[1] == pytest.approx(0, abs=1e-6) and high[1] == pytest.approx(0.25, abs=1e-5)
    assert np.allclose((low + high)[[0, 2]], 0, atol=1e-5)
    assert (high - low)[0] == pytest.approx(0.25 * 1.6 / 0.4, rel=0.08)  # a voxel is 3 %
    ring.merge_vertices(merge_tex=True, merge_norm=True)
    assert ring.is_watertight and ring.volume > 0 and ring.euler_number == 0


def test_texture_lands_where_the_uvs_say(exported: ExportReport) -> None:
    ring = trimesh.load(exported.path, force="mesh", process=False)
    assert isinstance(ring, trimesh.Trimesh)
    colors = ring.visual.to_color().vertex_colors[:, :3] / 255.0  # pyright: ignore
    scale = 0.4 / 0.25
    points = torch.from_numpy(np.asarray(ring.vertices) * scale - [0, 0.2, 0]).float()
    assert np.abs(colors - position_color(points).numpy()).mean() < 0.02


def test_same_scene_gives_the_same_bytes_and_the_log_tells_every_step(
    exported: ExportReport, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="steindreamer")
    config = replace(SMALL, height_meters=0.25)
    scene = RenderedScene(torus(0.6, 0.2))
    again = export_asset(scene, tmp_path, config, name="ring", provenance={"seed": 3})
    assert len(caplog.messages) == 10
    assert "m (width x height x depth)" in caplog.text
    assert again.path.read_bytes() == exported.path.read_bytes()


def test_writer_without_texture(tmp_path: Path) -> None:
    ball = icosphere()
    gray = replace(ball, colors=torch.full_like(ball.vertices, 0.5))
    write_glb(tmp_path / "ball.glb", gray)
    tree, body = parse(tmp_path / "ball.glb")
    attributes = tree["meshes"][0]["primitives"][0]["attributes"]
    view = tree["bufferViews"][tree["accessors"][attributes["COLOR_0"]]["bufferView"]]
    colors = np.frombuffer(body, "<f4", len(ball.vertices) * 3, view["byteOffset"])
    assert np.allclose(colors, 0.21404, atol=1e-4)  # sRGB 0.5 in linear light
    assert "NORMAL" in attributes and "images" not in tree


def test_writer_refuses_nonsense_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.glb"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"height_meters must be positive, got -1\.0"):
        write_glb(path, icosphere(), height_meters=-1.0)
    with pytest.raises(ValueError, match="no faces"):
        write_glb(path, TriangleMesh(torch.zeros(3, 3), torch.zeros(0, 3, dtype=torch.long)))
    with pytest.raises(ValueError, match="no uvs"):
        write_glb(path, replace(icosphere(), texture=torch.zeros(3, 4, 4)))
    with pytest.raises(ValueError, match="JSON compliant"):
        write_glb(path, icosphere(), extras={"loss": float("nan")})
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
