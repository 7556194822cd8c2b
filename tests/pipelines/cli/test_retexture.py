"""`steindreamer retexture`: the base color image of a file is replaced, and nothing else."""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
from atlas_samples import (
    NAMES,
    accessor_bytes,
    base_color_image,
    noise,
    read_glb,
    two_boxes,
)
from PIL import Image

import steindreamer
from steindreamer.pipelines.cli.main import main

SMALL = [
    "--prompt", "a red gift", "--prior", "world", "prior.objects=1", "stages.texture.steps=12",
    "stages.texture.resolution=24", "stages.texture.probe_every=0", "stages.texture.rates=1", "representation.rate=0.4",
    "representation.rate_end=0.4", "start=texture", "output.image_size=16",
    "output.turntable_frames=0", "output.preview_every=0", "output.checkpoint_every=8",
]  # fmt: skip
BLUE = np.array([30, 40, 200], np.uint8)


CARD = """mtllib card.mtl
v -1 -1 0\nv 1 -1 0\nv 1 1 0\nv -1 1 0\nv 0 0 1
vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1
usemtl Paper
f 1/1 2/2 3/3 4/4
usemtl Ink
f 1 2 5
"""


def blue(size: int = 32) -> np.ndarray:
    return np.broadcast_to(BLUE, (size, size, 3)).copy()


def run(path: Path, out: Path, *words: str) -> int:
    return main(["retexture", str(path), "--out", str(out), "--quiet", *SMALL, *words])


def message(capsys: pytest.CaptureFixture[str]) -> str:
    *_, line = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A file with a blue texture, and the run that made it red."""
    folder = tmp_path_factory.mktemp("whole")
    path = two_boxes(blue()).save(folder)
    with contextlib.redirect_stdout(io.StringIO()):
        assert run(path, folder / "run") == 0
    return path, folder / "run"


def test_geometry_and_names_are_kept_byte_for_byte(whole: tuple[Path, Path]) -> None:
    path, folder = whole
    written = folder / "asset" / "asset.glb"
    assert accessor_bytes(written) == accessor_bytes(path)
    before, after = read_glb(path)[0], read_glb(written)[0]
    for key in ("nodes", "meshes", "materials", "accessors", "scenes", "scene", "textures"):
        assert after[key] == before[key], key
    assert len(after["images"]) == 1 and len(after["bufferViews"]) == len(before["bufferViews"])
    assert after["asset"]["extras"]["retextured"]["prompt"] == "a red gift"


def test_the_texture_becomes_that_of_the_prompt(whole: tuple[Path, Path]) -> None:
    colors = np.asarray(base_color_image(whole[1] / "asset" / "asset.glb")).reshape(-1, 3).astype(float)
    red, _, blue = colors.mean(0) - BLUE
    assert red > 10 and blue < -10


def test_another_reader_sees_the_same_mesh(whole: tuple[Path, Path]) -> None:
    one, other = (trimesh.load(path) for path in (whole[0], whole[1] / "asset" / "asset.glb"))
    assert isinstance(one, trimesh.Scene) and isinstance(other, trimesh.Scene)
    assert one.graph.nodes_geometry == other.graph.nodes_geometry and set(NAMES) <= set(other.graph.nodes_geometry)
    for name in one.geometry:
        a, b = one.geometry[name], other.geometry[name]
        assert np.array_equal(a.vertices, b.vertices) and np.array_equal(a.faces, b.faces)
        assert np.array_equal(a.visual.uv, b.visual.uv)


def test_it_is_a_run(whole: tuple[Path, Path]) -> None:
    folder = whole[1]
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"config.yaml", "summary.json", "report.html", "previews/final.png", "asset/asset.png"} <= names
    assert "of the texture; all else is as in the file" in (folder / "report.html").read_text()


def test_a_mask_keeps_the_other_texels(tmp_path: Path) -> None:
    pixels = noise()
    path = two_boxes(pixels).save(tmp_path)
    white = np.zeros((32, 32), np.uint8)
    white[5:29, 3:9] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    assert run(path, tmp_path / "run", "--mask", str(tmp_path / "mask.png")) == 0
    after = np.asarray(base_color_image(tmp_path / "run" / "asset" / "asset.glb"))
    assert np.array_equal(after[white == 0], pixels[white == 0])
    assert (after[white > 0] != pixels[white > 0]).any(1).mean() > 0.8


def test_several_textures_in_one_run_by_the_python_api(tmp_path: Path) -> None:
    sample = two_boxes(blue())
    sample.tree["meshes"][1]["primitives"][0]["material"] = sample.painted(blue(16))
    path = sample.save(tmp_path)
    settings = [word for word in SMALL[4:] if "=" in word]
    settings = [word.replace("start=", "representation.start=") for word in settings]
    result = steindreamer.retexture(path, "a red gift", prior="world", out=tmp_path / "run", overrides=settings)
    assert result.asset is not None and accessor_bytes(result.asset) == accessor_bytes(path)
    assert read_glb(result.asset)[0]["materials"] == read_glb(path)[0]["materials"]
    for material, size in ((0, 32), (1, 16)):
        image = base_color_image(result.asset, material)
        red, _, _ = np.asarray(image).reshape(-1, 3).mean(0) - BLUE
        assert image.size == (size, size) and red > 10


def test_an_obj_file_gets_another_image(tmp_path: Path) -> None:
    """Two faces of one texture, and a third of a material without texture coordinates, which is kept."""
    (tmp_path / "card.obj").write_text(CARD)
    (tmp_path / "card.mtl").write_text("newmtl Paper\nmap_Kd paper.png\nnewmtl Ink\nKd 0 0 1\n")
    Image.fromarray(blue()).save(tmp_path / "paper.png")
    assert run(tmp_path / "card.obj", tmp_path / "run") == 0
    written = tmp_path / "run" / "asset" / "obj"
    assert sorted(path.name for path in written.iterdir()) == ["card.mtl", "card.obj", "paper.png"]
    for name in ("card.obj", "card.mtl"):
        assert (written / name).read_bytes() == (tmp_path / name).read_bytes()
    red, _, _ = np.asarray(Image.open(written / "paper.png")).reshape(-1, 3).mean(0) - BLUE
    assert red > 10
    assert [len(m["primitives"]) for m in read_glb(written.parent / "asset.glb")[0]["meshes"]] == [2]


def test_resuming_without_the_file_gives_the_same_bits(whole: tuple[Path, Path], tmp_path: Path) -> None:
    path, folder = whole
    copy = tmp_path / "run"
    shutil.copytree(folder, copy)
    for name in ("asset", "report.html", "summary.json"):
        target = copy / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    for newest in (copy / "checkpoints").glob("000012.*"):
        newest.unlink()
    path.rename(tmp_path / "elsewhere.glb")
    try:
        assert main(["retexture", "--resume", "--quiet", "--out", str(copy)]) == 0
    finally:
        (tmp_path / "elsewhere.glb").rename(path)
    images = [base_color_image(each / "asset" / "asset.glb") for each in (folder, copy)]
    assert np.array_equal(np.asarray(images[0]), np.asarray(images[1]))


@pytest.mark.parametrize(
    ("uvs", "words", "expected"),
    [
        ("none", [], "'Body', 'mesh 0', 'Paint' has no texture coordinates; steindreamer finish FILE --preset web"),
        ("same", [], "are used by several faces, which would all get the same color; steindreamer finish"),
        ("same", ["--part", "Body"], "of the texels to paint are used by several faces"),
        ("repeated", [], "has texture coordinates from 0.0375 to 2.95, which repeat the texture"),
        ("apart", ["--part", "handle"], "it has no part 'handle'; parts: 'Body', 'mesh 0', 'Paint', 'The Lid'"),
        ("apart", ["--mask", "small.png"], "small.png is 8 x 9, but the texture is 32 x 32; resize the mask"),
        ("apart", ["--mask", "black.png"], "the mask has no white texel on the chosen faces"),
        ("apart", ["--mask", "nowhere.png"], "representation.mask: there is no file nowhere.png"),
        ("apart", ["start=white"], "representation.start is 'white'"),
        ("two", ["--mask", "black.png"], "it has 2 textures, and a mask fits one: choose one with --part NAME ('Body'"),
    ],
)
def test_errors(
    uvs: str,
    words: list[str],
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 9), 255).save("small.png")
    Image.new("L", (32, 32), 0).save("black.png")
    sample = two_boxes(noise(), uvs="apart" if uvs == "two" else uvs)
    if uvs == "two":
        sample.tree["meshes"][1]["primitives"][0]["material"] = sample.painted(blue())
    assert run(sample.save(tmp_path), tmp_path / "run", *words) in (1, 2)
    assert expected in message(capsys)
    assert not (tmp_path / "run").exists()


def test_a_prompt_and_a_file_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in ((["box.glb"], "give a prompt"), (["--prompt", "a red mug"], "give a mesh file")):
        with pytest.raises(SystemExit) as stop:
            main(["retexture", *words])
        assert stop.value.code == 2 and expected in message(capsys)
    assert main(["retexture", "box.glb", "--prompt", "a red mug", "--out", str(tmp_path / "run")]) == 1
    assert "there is no file box.glb" in message(capsys)
    assert run(Path(__file__), tmp_path / "run") == 1
    assert (
        "the texture of test_retexture.py cannot be replaced, only that of .glb, .gltf, .obj; steindreamer finish"
        in message(capsys)
    )
