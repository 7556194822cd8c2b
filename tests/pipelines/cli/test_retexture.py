"""`steindreamer retexture`: the base color image of a file is replaced, and nothing else."""

from __future__ import annotations

import contextlib
import io
import json
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
    view_bytes,
)
from PIL import Image

from steindreamer.pipelines.cli.main import main

SMALL = [
    "--prompt", "a red gift", "--prior", "world", "prior.objects=1", "stages.texture.steps=12",
    "stages.texture.resolution=24", "stages.texture.probe_every=0", "stages.texture.rates=1", "representation.rate=0.4",
    "representation.rate_end=0.4", "start=texture", "output.image_size=16",
    "output.turntable_frames=0", "output.preview_every=0",
]  # fmt: skip
BLUE = np.array([30, 40, 200], np.uint8)


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


def test_a_part_of_a_jpeg_with_another_spelling_of_its_name(tmp_path: Path) -> None:
    pixels = np.kron(noise(4), np.ones((8, 8, 1), np.uint8))
    path = two_boxes(pixels, "JPEG").save(tmp_path)
    before = np.asarray(base_color_image(path))
    assert run(path, tmp_path / "run", "--part", "a lid") == 0
    image = base_color_image(tmp_path / "run" / "asset" / "asset.glb")
    after = np.asarray(image)
    assert image.format == "PNG" and accessor_bytes(tmp_path / "run" / "asset" / "asset.glb") == accessor_bytes(path)
    assert np.array_equal(after[:, :16], before[:, :16]), "the body has the left half"
    assert (after[:, 17:] != before[:, 17:]).any(2).mean() > 0.8


def test_materials_without_a_texture_get_one(tmp_path: Path) -> None:
    path = two_boxes().save(tmp_path)
    assert run(path, tmp_path / "run", "texture_size=32", "stages.texture.steps=1") == 0
    written = tmp_path / "run" / "asset" / "asset.glb"
    assert accessor_bytes(written) == accessor_bytes(path)
    surface = read_glb(written)[0]["materials"][0]["pbrMetallicRoughness"]
    assert surface["baseColorFactor"] == [1, 1, 1, 0.5], "its color has moved into the texture, its alpha has not"
    colors = np.asarray(base_color_image(written)).reshape(-1, 3).mean(0)
    assert colors[2] > 200 > 60 > colors[0], "it starts with the color of the material"


def test_a_part_of_a_material_without_a_texture(tmp_path: Path) -> None:
    path = two_boxes().save(tmp_path)
    assert run(path, tmp_path / "run", "texture_size=32", "--part", "body", "start=gray", "stages.texture.steps=1") == 0
    colors = np.asarray(base_color_image(tmp_path / "run" / "asset" / "asset.glb"))
    assert (colors[:, 17:] == [0, 0, 255]).all(), "the lid has the same material, and keeps its color"
    assert (np.abs(colors[:, :15] - 127.5) < 60).all()


def test_factors_and_vertex_colors_stay_and_are_taken_into_account(tmp_path: Path) -> None:
    """The file is rendered again by other code, and compared with the scene that was trained."""
    sample = two_boxes(blue() + np.uint8(50))
    sample.tree["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] = [0.5, 0.1, 1, 1]
    tints = np.random.default_rng(2).random((24, 3)).astype("<f4")
    sample.tree["meshes"][1]["primitives"][0]["attributes"]["COLOR_0"] = sample.accessor(tints)
    path = sample.save(tmp_path)
    assert run(path, tmp_path / "run", "stages.texture.steps=1", "representation.rate=1e-6") == 0
    assert accessor_bytes(tmp_path / "run" / "asset" / "asset.glb") == accessor_bytes(path)
    (export,) = json.loads((tmp_path / "run" / "summary.json").read_text())["exports"]
    assert export["color_difference"] < 1 and export["silhouette_iou"] > 0.97


def test_a_gltf_with_its_files_becomes_one_glb(tmp_path: Path) -> None:
    sample = two_boxes(noise())
    inside = sample.save(tmp_path)
    sample.tree["images"][0] = {"uri": "colors%201.png"}
    Image.fromarray(noise()).save(tmp_path / "colors 1.png")
    (tmp_path / "mesh.bin").write_bytes(sample.binary)
    (tmp_path / "mesh.gltf").write_bytes(sample.gltf("mesh.bin"))
    assert run(tmp_path / "mesh.gltf", tmp_path / "run", "--part", "body", "stages.texture.steps=1") == 0
    written = tmp_path / "run" / "asset" / "asset.glb"
    assert accessor_bytes(written) == accessor_bytes(inside)
    assert np.array_equal(np.asarray(base_color_image(written))[:, 17:], noise()[:, 17:])


def test_alpha_is_kept(tmp_path: Path) -> None:
    pixels = np.concatenate([blue(), noise(seed=1)[..., :1]], 2)
    path = two_boxes(pixels).save(tmp_path)
    assert run(path, tmp_path / "run", "stages.texture.steps=1") == 0
    image = base_color_image(tmp_path / "run" / "asset" / "asset.glb")
    assert image.mode == "RGBA" and np.array_equal(np.asarray(image)[..., 3], pixels[..., 3])


def test_an_image_with_another_use_is_kept(tmp_path: Path) -> None:
    sample = two_boxes(noise())
    sample.tree["materials"][0]["emissiveTexture"] = {"index": 0}
    path = sample.save(tmp_path)
    assert run(path, tmp_path / "run", "stages.texture.steps=1") == 0
    tree, binary = read_glb(tmp_path / "run" / "asset" / "asset.glb")
    assert tree["materials"][0]["emissiveTexture"] == {"index": 0} and len(tree["images"]) == 2
    kept = view_bytes(tree, binary, tree["images"][tree["textures"][0]["source"]]["bufferView"])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(kept))), noise())


def test_resuming_without_the_file_gives_the_same_bits(whole: tuple[Path, Path], tmp_path: Path) -> None:
    path, folder = whole
    copy = tmp_path / "mesh.glb"
    shutil.copy(path, copy)
    assert run(copy, tmp_path / "run", "output.checkpoint_every=5") == 0
    for name in ("asset", "report.html", "summary.json"):
        target = tmp_path / "run" / name
        shutil.rmtree(target) if target.is_dir() else target.unlink()
    for newest in (tmp_path / "run" / "checkpoints").glob("000012.*"):
        newest.unlink()
    copy.unlink()
    assert main(["retexture", "--resume", "--quiet", "--out", str(tmp_path / "run")]) == 0
    images = [base_color_image(each / "asset" / "asset.glb") for each in (folder, tmp_path / "run")]
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
    path = two_boxes(noise(), uvs=uvs).save(tmp_path)
    assert run(path, tmp_path / "run", *words) in (1, 2)
    assert expected in message(capsys)
    assert not (tmp_path / "run").exists()


def test_several_textures_are_chosen_by_a_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sample = two_boxes(noise())
    second = sample.painted(blue())
    sample.tree["meshes"][1]["primitives"][0]["material"] = second
    path = sample.save(tmp_path)
    assert run(path, tmp_path / "run") == 1
    assert "these parts have 2 textures, choose those of one with --part NAME (a texture: 'Body'" in message(capsys)
    assert run(path, tmp_path / "run", "--part", "body", "stages.texture.steps=2") == 0
    written = tmp_path / "run" / "asset" / "asset.glb"
    assert np.array_equal(np.asarray(base_color_image(written, second)), blue())
    assert not np.array_equal(np.asarray(base_color_image(written)), noise())


def test_a_prompt_and_a_file_are_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, expected in ((["box.glb"], "give a prompt"), (["--prompt", "a red mug"], "give a mesh file")):
        with pytest.raises(SystemExit) as stop:
            main(["retexture", *words])
        assert stop.value.code == 2 and expected in message(capsys)
    assert main(["retexture", "box.glb", "--prompt", "a red mug", "--out", str(tmp_path / "run")]) == 1
    assert "there is no file box.glb" in message(capsys)
    assert main(["retexture", __file__, "--prompt", "a red mug", "--out", str(tmp_path / "run")]) == 1
    assert (
        "the texture of test_retexture.py cannot be replaced, only that of .glb and .gltf; steindreamer finish"
        in message(capsys)
    )
