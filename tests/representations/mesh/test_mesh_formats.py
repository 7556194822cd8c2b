"""OBJ, PLY, STL and OFF: correct colors on the surface, and one-line errors for broken files."""

from __future__ import annotations

import itertools
import logging
import math
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import trimesh
from gltf_samples import image
from mesh_colors import color_at
from trimesh.visual import ColorVisuals

from steindreamer.representations.mesh.file import FORMATS, read_fitted_mesh, read_mesh
from steindreamer.representations.mesh.painted import PaintedMesh

CORNERS = list(itertools.product((-0.5, 0.5), repeat=3))
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
"""Outward sides of the cube with these corners; the last is the front, +Z."""
TRIANGLES = [half for a, b, c, d in QUADS for half in ((a, b, c), (a, c, d))]
FRONT = (0.0, 0.0, 0.5)
QUARTERS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [255, 255, 255]]])
PLACES = "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n"


def obj(faces: str = "", vertices: str = "", head: str = "") -> str:
    """The text of a cube; `faces`: the lines of the faces, or of the material before them."""
    vertices = vertices or "".join(f"v {x} {y} {z}\n" for x, y, z in CORNERS)
    plain = "".join("f " + " ".join(str(i + 1) for i in quad) + "\n" for quad in QUADS)
    return f"{head}\n{vertices}{PLACES}{faces if 'f ' in faces else faces + plain}"


def textured(material: str = "paint") -> str:
    faces = "".join("f " + " ".join(f"{i + 1}/{k + 1}" for k, i in enumerate(quad)) + "\n" for quad in QUADS)
    return f"usemtl {material}\n{faces}"


def saved(folder: Path, text: str | bytes, name: str = "mesh.obj") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def volume(mesh: PaintedMesh) -> float:
    a, b, c = mesh.vertices[mesh.faces].unbind(1)
    return float((a * b.cross(c, dim=1)).sum() / 6)


def test_a_diffuse_color_without_an_image(tmp_path: Path) -> None:
    (tmp_path / "paint.mtl").write_text("newmtl paint\nKd 0.8 0.5 0.2\n")
    for faces in ("usemtl paint\n", textured()):
        mesh = read_mesh(saved(tmp_path, obj(faces, head="mtllib paint.mtl")))
        assert color_at(mesh, FRONT) == [0.8, 0.5, 0.2]
        assert mesh.colors is not None and len(mesh.colors.unique(dim=0)) == 1


def test_faces_have_their_own_materials(tmp_path: Path) -> None:
    (tmp_path / "a b.mtl").write_text("newmtl one\nKd 1 0 0\nnewmtl two\nKd 0 0 1\n")
    halves = [
        "".join("f " + " ".join(str(i + 1) for i in quad) + "\n" for quad in half) for half in (QUADS[:5], QUADS[5:])
    ]
    mesh = read_mesh(saved(tmp_path, obj(f"usemtl one\n{halves[0]}usemtl two\n{halves[1]}", head="mtllib a b.mtl")))
    assert [color_at(mesh, place) for place in (FRONT, (0.5, 0.0, 0.0))] == [[0, 0, 1], [1, 0, 0]]
    assert volume(mesh) == pytest.approx(1)


@pytest.mark.parametrize(
    "head", ["mtllib lost.mtl", "mtllib ../outside.mtl", "mtllib pipe.mtl", ""], ids=["lost", "outside", "pipe", "none"]
)
def test_a_missing_material_is_gray_with_a_warning(head: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "outside.mtl").write_text("newmtl paint\nKd 1 0 0\n")
    folder = tmp_path / "inner"
    folder.mkdir()
    os.mkfifo(folder / "pipe.mtl")
    with caplog.at_level(logging.WARNING):
        mesh = read_mesh(saved(folder, obj("usemtl paint\n", head=head)))
    assert color_at(mesh, FRONT) == [0.5] * 3
    assert "no material file defines 'paint'" in caplog.text


def test_textures_are_sampled_with_v_upward(tmp_path: Path) -> None:
    """The corners of the last side are (-x, -y), (x, -y), (x, y), (-x, y), at the texture's corners from below left."""
    (tmp_path / "wood.png").write_bytes(image(QUARTERS))
    (tmp_path / "paint.mtl").write_text("newmtl paint\nKd 0 0 0\nmap_Kd wood.png\n")
    mesh = read_mesh(saved(tmp_path, obj(textured(), head="mtllib paint.mtl")))
    places = [(x, y, 0.5) for y in (0.25, -0.25) for x in (-0.25, 0.25)]
    assert [color_at(mesh, place) for place in places] == [[1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]


def test_options_of_a_texture_and_its_factor(tmp_path: Path) -> None:
    (tmp_path / "my wood.png").write_bytes(image(np.full((2, 2, 3), 204)))
    lines = "newmtl paint\nKd 0.5 1 1\nmap_Kd -s 2 2 1 -o 0.5 0 0 -mm 0 1 -clamp off my wood.png\n"
    (tmp_path / "paint.mtl").write_text(lines)
    assert color_at(read_mesh(saved(tmp_path, obj(textured(), head="mtllib paint.mtl"))), FRONT) == [0.4, 0.8, 0.8]
    (tmp_path / "my wood.png").write_bytes(image(QUARTERS))
    # Scaled by 2 and shifted by half: at (-0.25, 0.25, 0.5), where (u, v) = (0.25, 0.75), it is (1, 1.5).
    (tmp_path / "paint.mtl").write_text("newmtl paint\nmap_Kd -s 0.5 0.5 -o 0.5 0 my wood.png\n")
    mesh = read_mesh(saved(tmp_path, obj(textured(), head="mtllib paint.mtl")))
    assert color_at(mesh, (0.0, 0.0, 0.5)) == [1, 1, 1]


@pytest.mark.parametrize(
    "name", ["textures\\wood.png", "C:\\Users\\me\\wood.png", "/home/me/wood.png", "textures/wood.png"]
)
def test_paths_of_other_computers_refer_to_the_file_beside(name: str, tmp_path: Path) -> None:
    place = tmp_path / "textures" if name.startswith("textures") else tmp_path
    place.mkdir(exist_ok=True)
    (place / "wood.png").write_bytes(image(np.full((2, 2, 3), 204)))
    (tmp_path / "paint.mtl").write_text(f"newmtl paint\nmap_Kd {name}\n")
    assert color_at(read_mesh(saved(tmp_path, obj(textured(), head="mtllib paint.mtl"))), FRONT) == [0.8] * 3


@pytest.mark.parametrize("name", ["lost.png", "../outside.png", "pipe.png", "https://example.com/a.png"])
def test_a_texture_that_cannot_be_read_leaves_the_diffuse_color(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "outside.png").write_bytes(image(QUARTERS))
    os.mkfifo(folder / "pipe.png")
    (folder / "paint.mtl").write_text(f"newmtl paint\nKd 0.8 0.5 0.2\nmap_Kd {name}\n")
    with caplog.at_level(logging.WARNING):
        mesh = read_mesh(saved(folder, obj(textured(), head="mtllib paint.mtl")))
    assert color_at(mesh, FRONT) == [0.8, 0.5, 0.2]
    assert [record.getMessage().count("cannot be read") for record in caplog.records] == [1]


def test_vertex_colors_are_display_values_in_0_1_or_bytes(tmp_path: Path) -> None:
    for color in ("0.8 0.4 0.2", "204 102 51"):
        vertices = "".join(f"v {x} {y} {z} {color}\n" for x, y, z in CORNERS)
        assert color_at(read_mesh(saved(tmp_path, obj(vertices=vertices))), FRONT) == [0.8, 0.4, 0.2]


def test_numbers_counted_backward_continued_lines_and_windows_line_ends(tmp_path: Path) -> None:
    first = "".join(f"v {x} {y} {z}\n" for x, y, z in CORNERS)
    faces = "".join("f " + " ".join(str(i - 8) for i in quad) + "\n" for quad in QUADS)
    second = "".join(f"v {x + 3} {y} {z}\n" for x, y, z in CORNERS)
    text = (first + faces + "# a comment\n" + second + faces).replace("f -8 ", "f -8 \\\n ").replace("\n", "\r\n")
    mesh = read_mesh(saved(tmp_path, text))
    assert volume(mesh) == pytest.approx(2) and float(mesh.vertices[:, 0].max()) == 3.5


def test_polygons_of_all_kinds_in_one_file(tmp_path: Path) -> None:
    corners = 8
    ring = [(math.cos(2 * math.pi * k / corners), math.sin(2 * math.pi * k / corners)) for k in range(corners)]
    vertices = "".join(f"v {x} {y} {z}\n" for z in (0, 1) for x, y in ring)
    faces = ["f " + " ".join(str(corners - k) for k in range(corners))]
    faces += ["f " + " ".join(str(corners + 1 + k) for k in range(corners))]
    for k in range(corners):
        after = (k + 1) % corners
        faces += [
            f"f {k + 1}// {after + 1}// {corners + after + 1}//",
            f"f {k + 1} {corners + after + 1} {corners + k + 1}",
        ]
    mesh = read_mesh(saved(tmp_path, vertices + "\n".join(faces)))
    assert volume(mesh) == pytest.approx(corners / 2 * math.sin(2 * math.pi / corners), rel=1e-5)


def ply(
    form: str, faces: Sequence[Sequence[int]], kind: str = "", color: Sequence[float] = (), extra: str = ""
) -> bytes:
    head = ["ply", f"format {form} 1.0", *filter(None, [extra]), "element vertex 8"]
    head += [f"property float {axis}" for axis in "xyz"]
    head += [f"property {kind} {name}" for name in ("red", "green", "blue") if kind]
    head += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    rows = [
        ([*corner, *color], "3f" + (f"3{ {'uchar': 'B', 'ushort': 'H', 'float': 'f'}[kind] }" if kind else ""))
        for corner in CORNERS
    ]
    rows += [([len(face), *face], f"B{len(face)}i") for face in faces]
    order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[form]
    body = [
        struct.pack(order + kinds, *row) if order else (" ".join(map(str, row)) + "\n").encode() for row, kinds in rows
    ]
    return "\n".join(head).encode() + b"".join(body)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_in_all_encodings_and_polygons(form: str, tmp_path: Path) -> None:
    for faces in (TRIANGLES, QUADS, [QUADS[0], *TRIANGLES[2:]], [*TRIANGLES[2:], QUADS[0]]):
        for kind, color in (
            ("", ()),
            ("uchar", (204, 102, 51)),
            ("ushort", (52428, 26214, 13107)),
            ("float", (0.8, 0.4, 0.2)),
            ("float", (204.0, 102.0, 51.0)),
        ):
            mesh = read_mesh(saved(tmp_path, ply(form, faces, kind, color), "mesh.ply"))
            assert volume(mesh) == pytest.approx(1)
            assert color_at(mesh, FRONT) == ([0.8, 0.4, 0.2] if kind else [0.5] * 3)


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_with_colors_of_polygons(form: str, tmp_path: Path) -> None:
    order = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}[form]
    names = "".join(f"property uchar {name}\n" for name in ("red", "green", "blue")).encode()
    for faces in (QUADS, [QUADS[0], *TRIANGLES[2:]]):
        whole = ply(form, faces)
        head, _, body = whole.partition(b"end_header\n")
        rows = [
            ([len(face), *face, *((204, 102, 51) if k else (0, 0, 255))], len(face)) for k, face in enumerate(faces)
        ]
        body = body.split(b"\n", 8)[:8] if not order else [body[: 8 * 12]]
        body += [
            struct.pack(f"{order}B{count}i3B", *row) if order else " ".join(map(str, row)).encode()
            for row, count in rows
        ]
        joined = (b"" if order else b"\n").join(body)
        mesh = read_mesh(saved(tmp_path, head + names + b"end_header\n" + joined, "mesh.ply"))
        assert volume(mesh) == pytest.approx(1)
        first = [sum(CORNERS[corner][axis] for corner in QUADS[0]) / 4 for axis in range(3)]
        assert color_at(mesh, (first[0], first[1], first[2])) == [0, 0, 1]
        assert color_at(mesh, (-first[0], -first[1], -first[2])) == [0.8, 0.4, 0.2]


@pytest.mark.parametrize("names", [("r", "g", "b"), ("diffuse_red", "diffuse_green", "diffuse_blue")])
def test_ply_with_other_names_of_colors(names: tuple[str, str, str], tmp_path: Path) -> None:
    whole = ply("binary_little_endian", TRIANGLES, "uchar", (204, 102, 51))
    for usual, name in zip(("red", "green", "blue"), names, strict=True):
        whole = whole.replace(f"uchar {usual}\n".encode(), f"uchar {name}\n".encode())
    assert color_at(read_mesh(saved(tmp_path, whole, "mesh.ply")), FRONT) == [0.8, 0.4, 0.2]


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
def test_ply_with_line_ends_of_classic_mac_os(form: str, tmp_path: Path) -> None:
    whole = ply(form, QUADS, "uchar", (204, 102, 51))
    head, end, body = whole.partition(b"end_header\n")
    body = body.replace(b"\n", b"\r") if form == "ascii" else body
    whole = (head + end).replace(b"\n", b"\r") + body
    assert color_at(read_mesh(saved(tmp_path, whole, "mesh.ply")), FRONT) == [0.8, 0.4, 0.2]


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_with_triangle_strips(form: str, tmp_path: Path) -> None:
    """A square of two triangles and a single triangle, in two strips that -1 separates; every other one is reversed."""
    corners = [(0.0, 0.0, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (1.0, 1.0, 0.0), (2.0, 0.0, 0.0)]
    strip = [0, 1, 2, 3, -1, 1, 4, 3]
    head = f"ply\nformat {form} 1.0\nelement vertex 5\nproperty float x\nproperty float y\nproperty float z\n"
    head += "element tristrips 1\nproperty list int int vertex_indices\nend_header\n"
    if form == "ascii":
        rows = [" ".join(map(str, row)) for row in [*corners, (len(strip), *strip)]]
        body = ("\n".join(rows) + "\n").encode()
    else:
        order = "<" if "little" in form else ">"
        body = b"".join(struct.pack(f"{order}3f", *corner) for corner in corners)
        body += struct.pack(f"{order}{len(strip) + 1}i", len(strip), *strip)
    mesh = read_mesh(saved(tmp_path, head.encode() + body, "mesh.ply"))
    assert mesh.faces.tolist() == [[0, 1, 2], [2, 1, 3], [1, 4, 3]]


def test_ply_with_colors_of_faces_and_with_a_texture(tmp_path: Path) -> None:
    cube = trimesh.Trimesh(CORNERS, TRIANGLES, process=False)
    cube.visual = ColorVisuals(cube, face_colors=[(204, 102, 51)] * 10 + [(0, 0, 255)] * 2)
    cube.export(tmp_path / "faces.ply")
    mesh = read_mesh(tmp_path / "faces.ply")
    assert [color_at(mesh, place) for place in (FRONT, (0.5, 0.0, 0.0))] == [[0, 0, 1], [0.8, 0.4, 0.2]]
    (tmp_path / "wood.png").write_bytes(image(QUARTERS))
    head = "ply\nformat ascii 1.0\ncomment TextureFile wood.png\nelement vertex 3\nproperty float x\nproperty float y\n"
    head += "property float z\nproperty float s\nproperty float t\nproperty uchar red\nproperty uchar green\n"
    head += "property uchar blue\nelement face 1\nproperty list uchar int vertex_indices\nend_header\n"
    body = "0 0 0 0 0 9 9 9\n1 0 0 1 0 9 9 9\n0 1 0 0 1 9 9 9\n3 0 1 2\n"
    mesh = read_mesh(saved(tmp_path, head + body, "mesh.ply"))
    assert [color_at(mesh, place) for place in ((0.25, 0.25, 0.0), (0.25, 0.75, 0.0))] == [[0, 0, 1], [1, 0, 0]]
    # Without the texture, the vertex colors are used.
    mesh = read_mesh(saved(tmp_path, (head + body).replace("wood", "lost"), "mesh.ply"))
    assert color_at(mesh, (0.25, 0.25, 0.0)) == [round(9 / 255, 3)] * 3


def test_stl_as_text_and_binary(tmp_path: Path) -> None:
    cube = trimesh.Trimesh(CORNERS, TRIANGLES, process=False)
    for kind in ("stl", "stl_ascii"):
        data = cube.export(file_type=kind)
        assert isinstance(data, bytes | str)
        saved(tmp_path, data, "mesh.STL")
        mesh = read_mesh(tmp_path / "mesh.STL")
        assert volume(mesh) == pytest.approx(1) and color_at(mesh, FRONT) == [0.5] * 3


def test_off_with_colors_of_vertices_and_faces(tmp_path: Path) -> None:
    rows = [" ".join(map(str, corner)) for corner in CORNERS]
    quads = [f"4 {' '.join(map(str, quad))}" for quad in QUADS]
    plain = "\n".join(["OFF # a cube", "8 6 12", *rows, *quads])
    vertices = "\n".join(["COFF 8 6 12", *(f"{row} 204 102 51 255" for row in rows), *quads])
    faces = "\n".join(["OFF", "8 6 0", *rows, *(f"{quad} 0.8 0.4 0.2" for quad in quads[:5]), f"{quads[5]} 0 0 1"])
    for text, color in ((plain, [0.5] * 3), (vertices, [0.8, 0.4, 0.2]), (faces, [0, 0, 1])):
        mesh = read_mesh(saved(tmp_path, text, "mesh.off"))
        assert volume(mesh) == pytest.approx(1) and color_at(mesh, FRONT) == color


CUBE = "".join(f"v {x} {y} {z}\n" for x, y, z in CORNERS)
BROKEN: dict[str, tuple[str, str | bytes, str]] = {
    "obj index out of range": ("obj", CUBE + "f 1 2 9\n", "vertex 9 of 8"),
    "obj index before the first": ("obj", CUBE + "f 1 2 -9\n", "line 9 .*-9 is not a valid index"),
    "obj index 0": ("obj", CUBE + "f 0 1 2\n", "line 9"),
    "obj texture index": ("obj", CUBE + "f 1/1 2/1 3/1\n", "texture coordinate 1 of 0"),
    "obj flat vertex": ("obj", "v 1 2\n", "line 1 .*three coordinates"),
    "obj beyond measure": ("obj", "v 0 0 0\nv 1e200 0 0\nv 0 1e200 0\nf 1 2 3\n", "its size overflows"),
    "ply of another encoding": ("ply", ply("ascii", TRIANGLES).replace(b"ascii", b"quux"), "its format is 'quux'"),
    "off index of a colored face": ("off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7 255 0 0\n", "refers to a vertex"),
    "another format": ("fbx", b"Kaydara", r"cannot read mesh\.fbx as a mesh; supported formats: \.glb"),
    "obj words": ("obj", "v a b c\n", "line 1"),
    "obj nan": ("obj", "v nan 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n", "not finite"),
    "obj huge": ("obj", "v 1e308 0 0\nv -1e308 0 0\nv 0 1e308 0\nf 1 2 3\n", "mesh.obj"),
    "obj without faces": ("obj", CUBE, "no triangles"),
    "obj flat": ("obj", "v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n", "none of its triangles"),
    "obj one place": ("obj", "v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", "none of its triangles"),
    "empty": ("obj", "", "no triangles"),
    "bytes": ("obj", bytes(range(256)), "no triangles"),
    "ply truncated text": ("ply", ply("ascii", TRIANGLES)[:-20], "truncated"),
    "ply strips without indices": (
        "ply",
        b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
        b"element tristrips 1\nproperty list int int strip\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
        "no list named vertex_indices",
    ),
    "ply strips beyond the vertices": (
        "ply",
        b"ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\n"
        b"element tristrips 1\nproperty list int int vertex_indices\nend_header\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n",
        "a vertex that does not exist",
    ),
    "ply truncated": ("ply", ply("binary_little_endian", TRIANGLES)[:-20], "mesh.ply"),
    "ply truncated mixed": ("ply", ply("binary_little_endian", [QUADS[0], *TRIANGLES[2:]])[:-20], "mesh.ply"),
    "ply wrong count": (
        "ply",
        ply("binary_little_endian", QUADS).replace(b"face 6", b"face 9999999999999"),
        "mesh.ply",
    ),
    "ply rows of nothing": (
        "ply",
        b"ply\nformat binary_little_endian 1.0\nelement a 99999999999\nelement face 1\n"
        b"property list uchar int vertex_indices\nend_header\n",
        "mesh.ply",
    ),
    "ply without faces": ("ply", ply("ascii", []), "no triangles"),
    "ply index": ("ply", ply("ascii", [(0, 1, 8)]), "mesh.ply"),
    "ply of nothing": ("ply", "ply\n", "not a PLY file"),
    "stl short": ("stl", b"x" * 90, "mesh.stl"),
    "off truncated": ("off", "OFF\n8 6 0\n0 0 0\n", "truncated"),
    "off index": ("off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", "refers to"),
    "off short face": ("off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1\n", "3 corners and has 2"),
    "off binary": ("off", "OFF BINARY\n", "binary OFF"),
    "off words": ("off", "hello", "mesh.off"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_raise_a_one_line_error(name: str, tmp_path: Path) -> None:
    form, content, message = BROKEN[name]
    with pytest.raises(ValueError, match=message) as caught:
        read_fitted_mesh(saved(tmp_path, content, f"mesh.{form}"))
    assert f"mesh.{form}" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", FORMATS)
def test_special_files_are_refused(suffix: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / f"pipe{suffix}")
    (tmp_path / f"folder{suffix}").mkdir()
    (tmp_path / f"device{suffix}").symlink_to("/dev/zero")
    for name in ("pipe", "folder", "device"):
        with pytest.raises(ValueError, match=f"{name}{suffix}"):
            read_mesh(tmp_path / f"{name}{suffix}")
    with pytest.raises(FileNotFoundError, match=f"lost{suffix}"):
        read_mesh(tmp_path / f"lost{suffix}")


def test_faces_without_area_and_vertices_without_faces_do_not_matter(tmp_path: Path) -> None:
    text = obj() + "v 1000 nan 0\nf 1 1 2\nf 3 3 3\n"
    mesh, placement = read_fitted_mesh(saved(tmp_path, text))
    assert len(mesh.faces) == 12
    assert placement.center == (0, 0, 0) and placement.scale == pytest.approx(math.sqrt(0.75) / 0.9)


@pytest.mark.parametrize("scale", [1e-3, 0.04, 20.0, 1e6])
def test_meshes_of_any_size_and_place_are_fitted(scale: float, tmp_path: Path) -> None:
    vertices = "".join(f"v {scale * x + 7} {scale * y} {scale * z - 2000}\n" for x, y, z in CORNERS)
    mesh, placement = read_fitted_mesh(saved(tmp_path, obj(vertices=vertices)), yaw=90.0)
    assert float(mesh.vertices.norm(dim=1).max()) == pytest.approx(0.9, rel=1e-5)
    assert volume(mesh) == pytest.approx((2 * 0.9 / math.sqrt(3)) ** 3, rel=1e-3)
    assert placement.center == pytest.approx((7, 0, -2000), abs=1e-6 * max(scale, 1)) and placement.yaw == 90


def test_a_small_mesh_far_away_keeps_its_shape(tmp_path: Path) -> None:
    """In float32, positions at half a million meters are 3 cm apart."""
    vertices = "".join(f"v {0.1 * x + 500000} {0.1 * y} {0.1 * z}\n" for x, y, z in CORNERS)
    mesh, _ = read_fitted_mesh(saved(tmp_path, obj(vertices=vertices)))
    assert volume(mesh) == pytest.approx((2 * 0.9 / math.sqrt(3)) ** 3, rel=1e-3)


def test_materials_of_many_kinds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line may name several files; what gives no color is gray, and a name may begin with a minus."""
    (tmp_path / "-pixel.png").write_bytes(image(np.full((1, 1, 3), 255)))
    (tmp_path / "one.mtl").write_text("newmtl one\nKd spectral file.rfl 1\nnewmtl two\nmap_Kd lost.png\n")
    (tmp_path / "two.mtl").write_text("newmtl three\nKd 1 0 0\nmap_Kd -clamp on -pixel.png\n")
    colors = {"one": [0.5] * 3, "two": [0.5] * 3, "three": [1, 0, 0]}
    for material, color in colors.items():
        text = obj(textured(material), head='mtllib "one.mtl" two.mtl'.replace('"', ""))
        assert color_at(read_mesh(saved(tmp_path, text)), FRONT) == color
    assert "lost.png" in caplog.text and "-pixel.png" not in caplog.text
    assert (
        len(read_mesh(saved(tmp_path, obj(head="mtllib"))).faces) == 12
        and "its material file '' cannot be read" in caplog.text
    )


@pytest.mark.parametrize(
    ("name", "module"),
    [("mesh.obj", "formats.obj"), ("mesh.off", "formats.off"), ("mesh.stl", "formats.stl"), ("mesh.ply", "file")],
)
def test_files_of_too_many_triangles_are_refused(
    name: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cube = trimesh.Trimesh(CORNERS, TRIANGLES, process=False).export(file_type=name[-3:])
    assert isinstance(cube, str | bytes)
    path, limit = saved(tmp_path, cube, name), f"steindreamer.representations.mesh.{module}.MAX_FACES"
    most = 12 if name != "mesh.stl" else 5  # its size tells, roughly
    monkeypatch.setattr(limit, most)
    assert len(read_mesh(path).faces) == 12
    monkeypatch.setattr(limit, most - 1)
    with pytest.raises(ValueError, match=f"more than {most - 1} triangles"):
        read_mesh(path)


def test_too_little_memory_is_no_fault_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*given: object) -> None:
        raise MemoryError

    monkeypatch.setitem(sys.modules[read_mesh.__module__]._READERS, ".stl", read)
    with pytest.raises(MemoryError):
        read_mesh(saved(tmp_path, b"", "mesh.stl"))
