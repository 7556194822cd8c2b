"""Replacement of base color images of an OBJ file: all other bytes stay."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from steindreamer.representations.mesh.file import read_mesh
from steindreamer.representations.mesh.formats.obj_bundle import ObjBundle, relative_path

OBJ = """# a comment\r
mtllib box.mtl
o Body
v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0
vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1
g front side
usemtl Red Paint
f 1/1 2/2 3/3
usemtl Plain
f 1/1 3/3 4/4
"""
MTL = """newmtl Red Paint\r
Ns 10.0\r
Kd 0.5 0.5 0.5\r
map_Kd -s 1 1 1 textures\\red.png\r
map_Bump textures\\bump.png
newmtl Plain
Kd 0.1 0.2 0.9
"""


def png(color: tuple[int, int, int]) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), color).save(buffer, "PNG")
    return buffer.getvalue()


NEW = png((10, 200, 30))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "textures").mkdir()
    (tmp_path / "box.obj").write_bytes(OBJ.encode())
    (tmp_path / "box.mtl").write_bytes(MTL.encode())
    (tmp_path / "textures" / "red.png").write_bytes(png((200, 0, 0)))
    (tmp_path / "textures" / "bump.png").write_bytes(png((128, 128, 255)))
    return tmp_path / "box.obj"


def colors(path: Path) -> np.ndarray:
    mesh = read_mesh(path)
    assert mesh.colors is not None
    return (mesh.colors[mesh.faces].mean(1) * 255).round().numpy()


def test_only_the_image_of_a_png_changes(path: Path, tmp_path: Path) -> None:
    bundle = ObjBundle.unpack(ObjBundle.read(path).packed())
    assert bundle.materials == ["Red Paint", "Plain"] and bundle.image_of("Red Paint") == "textures\\red.png"
    written = bundle.with_image(["Red Paint"], NEW, "base_color").write(tmp_path / "new")
    files = {each.relative_to(tmp_path / "new").as_posix(): each for each in written.parent.rglob("*.*")}
    assert set(files) == {"box.obj", "box.mtl", "textures/red.png", "textures/bump.png"}
    for name, file in files.items():
        assert (file.read_bytes() == (tmp_path / name).read_bytes()) == (name != "textures/red.png"), name
    assert files["textures/red.png"].read_bytes() == NEW


def test_a_material_without_an_image_gets_a_line(path: Path, tmp_path: Path) -> None:
    written = ObjBundle.read(path).with_image(["Plain"], NEW, "base_color").write(tmp_path / "new")
    assert written.read_bytes() == path.read_bytes()
    expected = MTL.replace("newmtl Plain\nKd 0.1 0.2 0.9\n", "newmtl Plain\nmap_Kd base_color.png\nKd 1 1 1\n")
    assert (tmp_path / "new" / "box.mtl").read_bytes() == expected.encode()
    assert np.array_equal(colors(written)[1], [10, 200, 30]) and not np.array_equal(colors(written)[0], [10, 200, 30])


def test_a_jpeg_or_a_shared_image_is_replaced_by_a_png_under_another_name(path: Path, tmp_path: Path) -> None:
    library = tmp_path / "box.mtl"
    for old, kept in (("textures\\red.jpg", False), ("textures\\bump.png", True)):
        library.write_bytes(MTL.replace("textures\\red.png", old).encode())
        Image.new("RGB", (4, 4)).save(tmp_path / "textures" / "red.jpg")
        bundle = ObjBundle.read(path).with_image(["Red Paint"], NEW, "base_color")
        assert bundle.files["box.mtl"] == MTL.replace("textures\\red.png", "base_color.png").encode()
        assert bundle.files["base_color.png"] == NEW and bundle.files["box.obj"] == path.read_bytes()
        assert (relative_path(old) in bundle.files) == kept, "an image that nothing shows is left out"


@pytest.mark.parametrize("library", ["", "mtllib lost.mtl\n"])
def test_a_reference_is_added_where_there_is_none(library: str, tmp_path: Path) -> None:
    path = tmp_path / "box.obj"
    text = library + OBJ.split("o Body")[1].replace("usemtl Red Paint\n", "")
    path.write_text(text)
    bundle = ObjBundle.read(path).with_image(["", "Plain"], NEW, "base_color")
    written = bundle.write(tmp_path / "new").read_text()
    head = "" if library else "mtllib box.mtl\n"
    assert written == f"{head}usemtl base_color\n{text}"
    assert np.array_equal(colors(tmp_path / "new" / "box.obj"), [[10, 200, 30]] * 2)


def test_files_stay_below_the_folder() -> None:
    names = {
        "a/b.png": "a/b.png",
        "C:\\x\\b.png": "b.png",
        "../b.png": "b.png",
        "/b.png": "b.png",
        "a\\b.png": "a/b.png",
    }
    assert {name: relative_path(name) for name in names} == names
