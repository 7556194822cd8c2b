"""Replacement of the base color image inside a glTF file, whole and in part."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import torch
from atlas_samples import accessor_bytes, base_color_image, noise, read_glb, two_boxes, view_bytes
from gltf_samples import Gltf
from PIL import Image

from steindreamer.pipelines.export.fidelity import render_any
from steindreamer.pipelines.export.gltf_texture import with_base_color
from steindreamer.pipelines.export.painted_image import painted_image
from steindreamer.representations import Cameras, RetextureConfig, RetexturedMesh
from steindreamer.representations.mesh.canvas import read_canvas
from steindreamer.representations.mesh.formats.gltf_document import GltfDocument

NEW = noise(seed=9)


def replaced(sample: Gltf, folder: Path) -> Path:
    """The file with `NEW` as its base color."""
    canvas = read_canvas(sample.save(folder), texture_size=32)
    written = folder / "written.glb"
    with_base_color(GltfDocument(canvas.document, folder), canvas.atlases[0].materials, NEW).write(written)
    assert accessor_bytes(written) == accessor_bytes(folder / "mesh.glb")
    return written


def retextured(path: Path, **settings: str) -> Path:
    """The file with the texels of a scene whose parameters are random."""
    config = RetextureConfig(initial_mesh=str(path), texture_size=32, **settings)  # pyright: ignore
    scene = config.build(torch.Generator())
    with torch.no_grad():
        scene.texture_logits.add_(torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0)))
    written = path.with_name("retextured.glb")
    image = painted_image(scene)
    (atlas,) = scene.atlases()
    document = GltfDocument(scene.document.numpy().tobytes(), path.parent)
    with_base_color(document, atlas.materials, image).write(written)
    assert accessor_bytes(written) == accessor_bytes(path.with_suffix(".glb"))
    return written


def test_a_part_of_a_jpeg_with_another_spelling_of_its_name(tmp_path: Path) -> None:
    path = two_boxes(np.kron(noise(4), np.ones((8, 8, 1), np.uint8)), "JPEG").save(tmp_path)
    before, image = np.asarray(base_color_image(path)), base_color_image(retextured(path, part="a LID"))
    after = np.asarray(image)
    assert image.format == "PNG" and np.array_equal(after[:, :16], before[:, :16]), "the body has the left half"
    assert (after[:, 17:] != before[:, 17:]).any(2).mean() > 0.9


def test_space_between_charts_copies_the_painted_texels_beside_it(tmp_path: Path) -> None:
    path = two_boxes(noise()).save(tmp_path)
    white = np.zeros((32, 32), np.uint8)
    white[:, :9] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    after = np.asarray(base_color_image(retextured(path, mask=str(tmp_path / "mask.png"))))
    assert np.array_equal(after[:, 9:], noise()[:, 9:])
    for outside, inside in ((0, 1), (31, 30)):
        assert np.array_equal(after[outside, :9], after[inside, :9])
    scene = RetextureConfig(initial_mesh=str(path)).build(torch.Generator())
    assert not (scene.charts[[0, 31]] > 0).any() and (scene.charts[[1, 30]] > 0).all()


def test_a_part_of_a_material_without_a_texture(tmp_path: Path) -> None:
    colors = np.asarray(base_color_image(retextured(two_boxes().save(tmp_path), part="body")))
    assert (colors[:, 17:] == [0, 0, 255]).all(), "the lid has the same material, and keeps its color"
    assert (colors[:, :15] != [0, 0, 255]).any(2).all()


def test_one_of_several_textures(tmp_path: Path) -> None:
    sample = two_boxes(noise())
    second = sample.painted(noise(seed=3))
    sample.tree["meshes"][1]["primitives"][0]["material"] = second
    written = retextured(sample.save(tmp_path), part="body")
    assert np.array_equal(np.asarray(base_color_image(written, second)), noise(seed=3))
    assert not np.array_equal(np.asarray(base_color_image(written)), noise())


def test_a_gltf_with_its_files_becomes_one_glb(tmp_path: Path) -> None:
    sample = two_boxes(noise())
    sample.save(tmp_path)
    sample.tree["images"][0] = {"uri": "colors%201.png"}
    Image.fromarray(noise()).save(tmp_path / "colors 1.png")
    (tmp_path / "mesh.bin").write_bytes(sample.binary)
    (tmp_path / "mesh.gltf").write_bytes(sample.gltf("mesh.bin"))
    written = retextured(tmp_path / "mesh.gltf", part="body")
    assert np.array_equal(np.asarray(base_color_image(written))[:, 17:], noise()[:, 17:])


def test_factors_vertex_colors_and_other_textures_are_rendered(tmp_path: Path) -> None:
    """Compared with the renderer of materials, which looks up every texture at every pixel."""
    sample = two_boxes(np.full((32, 32, 3), (80, 90, 250), np.uint8))
    sample.tree["materials"][0]["pbrMetallicRoughness"]["baseColorFactor"] = [0.5, 0.1, 1, 1]
    tints = np.random.default_rng(2).random((24, 3)).astype("<f4")
    sample.tree["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"] = sample.accessor(tints)
    sample.tree["meshes"][1]["primitives"][0]["material"] = sample.painted(np.full((4, 4, 3), (200, 20, 90), np.uint8))
    canvas = read_canvas(sample.save(tmp_path), part="body")
    scene = RetexturedMesh.from_canvas(canvas, RetextureConfig(start="texture"))
    cameras = Cameras.orbit([30.0, 200.0], [20.0, -30.0], height=64)
    expected = render_any(canvas.mesh, cameras, samples=1)
    output = scene.render(cameras, torch.zeros(2, 3))
    inner = (torch.nn.functional.avg_pool2d(expected.opacity, 5, 1, 2) == 1).expand(-1, 3, -1, -1)
    assert inner.float().mean() > 0.1
    same = (output.rgb - expected.rgb).abs()[inner] < 0.01
    assert same.float().mean() > 0.9, "all but the antialiased edges"


def test_only_the_image_is_replaced_wherever_it_is(tmp_path: Path) -> None:
    """The image is between the arrays of the meshes, and of a length that is not a multiple of 4."""
    sample = two_boxes(noise())
    size = sample.tree["bufferViews"][0]["byteLength"]
    written = replaced(sample, tmp_path)
    tree, binary = read_glb(written)
    assert sample.tree["images"][0]["bufferView"] == 0 and size > 100
    assert np.array_equal(np.asarray(base_color_image(written)), NEW)
    assert len(binary) < len(sample.binary) + 8 + tree["bufferViews"][0]["byteLength"] - (size - 8), "no dead bytes"
    for key in ("nodes", "meshes", "materials", "accessors", "scenes", "textures"):
        assert tree[key] == sample.tree[key], key


def test_alpha_is_kept(tmp_path: Path) -> None:
    pixels = np.concatenate([noise(), noise(seed=1)[..., :1]], 2)
    image = base_color_image(replaced(two_boxes(pixels), tmp_path))
    assert image.mode == "RGBA" and np.array_equal(np.asarray(image), np.concatenate([NEW, pixels[..., 3:]], 2))


def test_an_image_with_another_use_is_kept(tmp_path: Path) -> None:
    sample = two_boxes(noise())
    sample.tree["materials"][0]["emissiveTexture"] = {"index": 0}
    written = replaced(sample, tmp_path)
    tree, binary = read_glb(written)
    assert tree["materials"][0]["emissiveTexture"] == {"index": 0} and len(tree["images"]) == 2
    kept = view_bytes(tree, binary, tree["images"][tree["textures"][0]["source"]]["bufferView"])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(kept))), noise())
    assert np.array_equal(np.asarray(base_color_image(written)), NEW)


def test_a_webp_becomes_a_png(tmp_path: Path) -> None:
    sample = two_boxes(noise(), "WEBP")
    sample.tree["textures"][0] = {"extensions": {"EXT_texture_webp": {"source": 0}}}
    sample.tree["extensionsUsed"] = sample.tree["extensionsRequired"] = ["EXT_texture_webp"]
    written = replaced(sample, tmp_path)
    tree, _ = read_glb(written)
    assert tree["textures"] == [{"source": 0}] and tree["images"][0]["mimeType"] == "image/png"
    assert "extensionsUsed" not in tree and "extensionsRequired" not in tree
    assert np.array_equal(np.asarray(base_color_image(written)), NEW)


def test_materials_without_a_texture_get_one(tmp_path: Path) -> None:
    written = replaced(two_boxes(), tmp_path)
    material = read_glb(written)[0]["materials"][0]
    assert material["name"] == "Paint"
    assert material["pbrMetallicRoughness"]["baseColorFactor"] == [1, 1, 1, 0.5], "the color is in the texture now"
    assert np.array_equal(np.asarray(base_color_image(written)), NEW)


def test_primitives_without_a_material_get_one(tmp_path: Path) -> None:
    sample = two_boxes()
    del sample.tree["meshes"][1]["primitives"][0]["material"]
    written = replaced(sample, tmp_path)
    tree, _ = read_glb(written)
    assert [mesh["primitives"][0]["material"] for mesh in tree["meshes"]] == [0, 1]
    assert all(np.array_equal(np.asarray(base_color_image(written, index)), NEW) for index in (0, 1))
