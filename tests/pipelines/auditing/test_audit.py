"""The audit as a whole: formats, reports, exit statuses, the product's own files, and hostile ones."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from clean_asset import SIZE, Content, ball, textures
from gltf_samples import image

from steindreamer.pipelines.auditing import ENGINES, audit
from steindreamer.pipelines.auditing.reading.roles import generates_collider, is_collider, level_of
from steindreamer.pipelines.cli.main import main
from steindreamer.pipelines.errors import SettingsError
from steindreamer.pipelines.export import write_glb
from steindreamer.pipelines.meshing.maps import bake_maps, bake_normals
from steindreamer.pipelines.meshing.texels import rasterize_uvs
from steindreamer.representations import TriangleMesh


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    return Content().save(tmp_path)


def _value(path: Path, check: str, engine: str | None = None) -> float | str:
    return next(row.value for row in audit(path, engine).rows if row.check == check)


def test_the_exporter_writes_files_that_pass(tmp_path: Path) -> None:
    mesh = ball(3)
    texture = torch.from_numpy(textures()["T_Ball_BC"]).permute(2, 0, 1).float() / 255
    textured = TriangleMesh(mesh.vertices, mesh.faces, mesh.normals, uvs=mesh.uvs, texture=texture)
    texels = rasterize_uvs(mesh, SIZE)
    finer = trimesh.creation.icosphere(4, 0.4)
    finer.apply_translation([0, 0.4, 0])
    vertices, faces = torch.from_numpy(finer.vertices).float(), torch.from_numpy(np.array(finer.faces, np.int64))
    normal = bake_normals(mesh, TriangleMesh(vertices, faces), texels)
    maps = bake_maps(normal, texels, np.ones(len(texels.rows), np.float32), 0.8)
    path = tmp_path / "ball.glb"
    write_glb(path, textured, name="ball", maps=maps)
    for engine in ("web", "ar"):
        found = audit(path, engine)
        assert found.passed and [row.check for row in found.findings] in ([], ["flat-normal-map"])


def test_measures_of_a_sphere(clean: Path) -> None:
    assert _value(clean, "triangles") == 320
    assert _value(clean, "lods") == "320 > 80"
    assert _value(clean, "draw-calls") == 1
    assert _value(clean, "size") == "0.8 x 0.8 x 0.8 m"
    uvs, areas = ball(2).uvs, trimesh.creation.icosphere(2, 0.4).area
    assert uvs is not None
    a, b, c = uvs[ball(2).faces].double().unbind(1)
    covered = float(((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0]).abs().sum() / 2)
    density = float(str(_value(clean, "texel-density")).split()[0])
    assert density == pytest.approx(SIZE * np.sqrt(covered / areas), rel=0.1)


def test_levels_and_colliders_in_files_beside(tmp_path: Path) -> None:
    content = Content(level=None, hull=None, node={"name": "SM_Ball"})
    path = content.save(tmp_path)
    assert [row.check for row in audit(path, "unity").findings] == ["collider"]
    trimesh.creation.icosphere(1, 0.4).export(tmp_path / "SM_Ball_LOD1.glb")
    hull = trimesh.creation.icosphere(0, 0.4)
    hull.apply_translation([0, 0.4, 0])
    hull.export(tmp_path / "SM_Ball_Collider.glb")
    assert audit(path, "unity").findings == ()
    assert _value(path, "lods", "unity") == "320 > 80"


def test_levels_of_the_extension(tmp_path: Path) -> None:
    def move(tree: dict) -> None:
        tree["scenes"][0]["nodes"].remove(1)
        tree["nodes"][0]["extensions"] = {"MSFT_lod": {"ids": [1]}}

    path = Content(tree=move).save(tmp_path)
    assert audit(path, "web").findings == () and _value(path, "lods") == "320 > 80"


def test_a_solid_for_printing(tmp_path: Path) -> None:
    sphere = trimesh.creation.icosphere(3, 20.0)
    sphere.apply_translation([0, 0, 20])
    path = tmp_path / "ball.stl"
    sphere.export(path)
    assert audit(path, "print").findings == ()
    assert _value(path, "size", "print") == "0.04 x 0.04 x 0.04 m", "an STL for printing is in millimeters"
    sphere.update_faces(np.arange(len(sphere.faces)) > 0)
    sphere.export(path)
    assert {(row.check, row.severity) for row in audit(path, "print").findings} == {("watertight", "error")}
    assert not audit(path, "web").passed, "a STL is no format of the web"


def test_a_ply_of_scanned_points_and_faces(tmp_path: Path) -> None:
    sphere = trimesh.creation.icosphere(2, 0.4)
    sphere.apply_translation([0, 0.4, 0])
    sphere.export(tmp_path / "ball.ply")
    found = audit(tmp_path / "ball.ply")
    assert [row.check for row in found.findings] == ["uvs"]


def test_an_obj_with_its_material_file(tmp_path: Path) -> None:
    mesh, lines = ball(2), ["mtllib ball.mtl", "o SM_Ball", "usemtl M_Ball"]
    assert mesh.uvs is not None and mesh.normals is not None
    for key, rows in (("v", mesh.vertices), ("vt", mesh.uvs * torch.tensor([1, -1]) + torch.tensor([0, 1]))):
        lines += [f"{key} {' '.join(map(str, row))}" for row in rows.tolist()]
    lines += [f"vn {' '.join(map(str, row))}" for row in mesh.normals.tolist()]
    lines += ["f " + " ".join(f"{i}/{i}/{i}" for i in row) for row in (mesh.faces + 1).tolist()]
    (tmp_path / "SM_Ball.obj").write_text("\n".join(lines))
    (tmp_path / "ball.mtl").write_text("newmtl M_Ball\nmap_Kd T_Ball_BC.png\nnorm T_Ball_N.png\n")
    for name in ("T_Ball_BC", "T_Ball_N"):
        (tmp_path / f"{name}.png").write_bytes(image(textures()[name]))
    path = tmp_path / "SM_Ball.obj"
    found = audit(path, "godot")
    assert {row.check for row in found.findings} == {"lightmap-uvs", "collider"}
    assert found.subject.file.file_bytes == sum(each.stat().st_size for each in tmp_path.iterdir())
    (tmp_path / "T_Ball_N.png").unlink()
    assert {row.check for row in audit(path, "godot").findings if row.severity == "error"} == {"files"}
    (tmp_path / "ball.mtl").write_text("newmtl M_Ball\nmap_Kd ../secret.png\n")
    (missing,) = (row for row in audit(path).findings if row.check == "files")
    assert "outside its folder" in " ".join(audit(path).subject.file.missing) and "secret" in missing.where


def test_the_command(clean: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, page = tmp_path / "audit.json", tmp_path / "audit.html"
    assert main(["audit", str(clean), "--preset", "unreal", "--json", str(report), "--html", str(page)]) == 0
    text = capsys.readouterr().out
    assert "ready for Unreal Engine: 0 errors, 0 warnings" in text and "watertight" in text
    plain = json.loads(report.read_text())
    assert plain["passed"] and plain["engine"] == "unreal" and plain["errors"] == plain["warnings"] == 0
    assert {"subject", "check", "severity", "value", "limit", "remedy", "where"} == plain["checks"][0].keys()
    html = page.read_text()
    sources = re.findall(r"(?:src|href|url|@import)\s*[=(]\s*[\"']?([^\"'\s>]{1,30})", html)
    assert len(sources) == 2 and all(source.startswith("data:image/png;base64,") for source in sources)
    assert "http" not in html and "<script" not in html


def test_the_exit_status_of_a_file_with_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = Content()
    content.arrays["POSITION"][0] = np.nan
    path = content.save(tmp_path)
    assert main(["audit", str(path), "--json", str(tmp_path / "a.json")]) == 1
    assert "ERROR   finite" in capsys.readouterr().out
    json.loads((tmp_path / "a.json").read_text(), parse_constant=lambda text: pytest.fail(text))


def test_numbers_that_overflow_leave_valid_reports(tmp_path: Path) -> None:
    path, report, page = tmp_path / "far.obj", tmp_path / "a.json", tmp_path / "a.html"
    path.write_text("o Far\nv 1e308 0 0\nv -1e308 0 1\nv 0 1e308 0\nv 0 0 1e300\nf 1 2 3\nf 1 3 4\n")
    status = main(["audit", str(path), "--json", str(report), "--html", str(page)])
    assert status in (0, 1)
    json.loads(report.read_text(), parse_constant=lambda text: pytest.fail(text))
    assert page.read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("no.glb", None, "no.glb"),
        ("broken.glb", b"glTF", "truncated: a GLB header has 12 bytes"),
        ("scene.fbx", b"", "supported formats: .glb, .gltf, .obj, .stl, .ply"),
        ("empty.obj", b"v 0 0 0\n", "it has no triangles"),
        ("far.gltf", b'{"asset": {"version": "2.0"}, "buffers": [{"uri": "../secret.bin", "byteLength": 4}]}', ""),
    ],
)
def test_an_unreadable_file_is_one_line(
    name: str, content: bytes | None, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    assert main(["audit", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    assert message in captured.err


def test_side_files_stay_in_the_folder(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    document = Content().glb()
    (tmp_path / "outside.bin").write_bytes(bytes(document.binary))
    path = tmp_path / "inner" / "SM_Ball.gltf"
    path.write_bytes(document.gltf("../outside.bin"))
    with pytest.raises(ValueError, match="outside its folder"):
        audit(path)


def test_an_unknown_engine_and_a_report_over_the_file(clean: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean 'unreal'"):
        audit(clean, "unrael")
    before = clean.read_bytes()
    assert main(["audit", str(clean), "--json", str(clean)]) == 2
    assert clean.read_bytes() == before


def test_names_of_a_file_cannot_inject(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = Content(material={"name": "<script>alert(1)</script>\x1b[31m\n"})
    page = tmp_path / "page.html"
    main(["audit", str(content.save(tmp_path)), "--html", str(page)])
    assert "<script" not in page.read_text() and "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(6))
def test_damaged_files_raise_only_value_errors(seed: int, clean: Path) -> None:
    """Numbers in the JSON and bytes of the arrays are replaced; the audit refuses the file or finishes."""
    rng = np.random.default_rng(seed)
    data = bytearray(clean.read_bytes())
    length = int.from_bytes(data[12:16], "little")
    for _ in range(4):
        place = 20 + int(rng.integers(length)) if seed % 2 else 28 + length + int(rng.integers(20_000))
        if seed % 2 == 0 or chr(data[place]).isdigit():
            data[place] = int(rng.integers(48, 58)) if seed % 2 else int(rng.integers(256))
    clean.write_bytes(data)
    try:
        audit(clean, "unreal")
    except ValueError as error:
        assert "cannot read" in str(error)


def test_all_presets_state_the_same_subjects(clean: Path) -> None:
    """A check that does not apply is stated, so that the list of what was checked stays comparable."""
    names = {engine: {row.check for row in audit(clean, engine).rows} for engine in ("unity", "unreal", "godot")}
    assert names["unity"] == names["unreal"] - {"extensions"} == names["godot"] - {"extensions"}
    assert set(ENGINES) == {"unity", "unreal", "godot", "web", "ar", "print"}


def test_the_docs_list_every_check(clean: Path) -> None:
    document = (Path(__file__).parents[3] / "docs" / "audit.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", document, re.M)) - {"error", "warning", "info", "ok"}
    found = {row.check for engine in ENGINES for row in audit(clean, engine).rows}
    assert found <= listed and listed - found <= {"translations"}


def test_a_file_of_one_further_level_or_of_colliders(tmp_path: Path) -> None:
    path = Content(hull=None, level=None, node={"name": "SM_Ball_LOD1"}).save(tmp_path)
    assert audit(path, "web").findings == () and _value(path, "triangles") == 320
    hull = trimesh.creation.icosphere(0, 0.4)
    trimesh.Scene({"UCX_SM_Ball_00": hull}).export(tmp_path / "hulls.glb")
    assert _value(tmp_path / "hulls.glb", "triangles") == 20


@pytest.mark.parametrize(
    ("name", "collider", "generates", "level"),
    [
        ("UCX_SM_Mug_01", True, False, 0),
        ("Mug_00-convcolonly", True, False, 0),
        ("SM_Mug_Collider_00", True, False, 0),
        ("Mug-col", False, True, 0),
        ("SM_Mug_LOD2", False, False, 2),
        ("Explod2", False, False, 0),
        ("collar", False, False, 0),
    ],
)
def test_roles_by_name(name: str, collider: bool, generates: bool, level: int) -> None:
    assert (is_collider(name), generates_collider(name), level_of(name)) == (collider, generates, level)
