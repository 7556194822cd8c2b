"""The scene of a retextured mesh: what is trained, and what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from atlas_samples import noise, two_boxes
from PIL import Image

from steindreamer.representations import Cameras, RetextureConfig, RetexturedMesh
from steindreamer.representations.mesh.texture_sheet import arrange
from steindreamer.representations.mesh.uv_coverage import cover_texels


def scene_of(path: Path, **settings: str) -> RetexturedMesh:
    return RetextureConfig(initial_mesh=str(path), **settings).build(torch.Generator())  # pyright: ignore


def trained(scene: RetexturedMesh, steps: int = 5) -> None:
    """Steps toward red from all sides."""
    optimizer = torch.optim.Adam(scene.optimizer_groups())
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0], [20.0] * 4, height=48)
    for _ in range(steps):
        rgb = scene.render(cameras, torch.zeros(4, 3)).rgb
        optimizer.zero_grad()
        (rgb[:, 1:].sum() - rgb[:, 0].sum()).backward()
        optimizer.step()


def test_only_painted_texels_change(tmp_path: Path) -> None:
    pixels = noise()
    scene = scene_of(two_boxes(pixels).save(tmp_path), part="the lid", start="texture")
    before = scene.texture.detach().clone()
    trained(scene)
    changed = (scene.texture.detach() - before).abs().amax(0) > 1e-4
    assert not changed[:, :15].any() and changed[:, 17:].all(), "the tone also changes what no view shows"
    assert bool((scene.painted | ~changed).all())


def test_gray_is_the_start_of_painted_texels_only(tmp_path: Path) -> None:
    pixels = noise()
    scene = scene_of(two_boxes(pixels).save(tmp_path), part="body")
    texture = scene.texture.detach().permute(1, 2, 0)
    assert torch.allclose(texture[scene.painted], torch.tensor(0.5))
    kept = ~scene.painted
    assert torch.allclose(texture[kept], torch.from_numpy(pixels)[kept] / 255, atol=0.01)


def test_smoothness_is_of_painted_texels_within_a_chart(tmp_path: Path) -> None:
    """By hand: the mean over all pairs of neighbors of the atlas, with the differences of painted ones."""
    white = np.zeros((32, 32), np.uint8)
    white[:, :8] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    scene = scene_of(two_boxes(noise()).save(tmp_path), mask=str(tmp_path / "mask.png"), start="texture")
    texture, charts = scene.texture.detach().numpy(), scene.charts.numpy()
    total, count = 0.0, 0
    for row in range(32):
        for column in range(32):
            for down, right in ((1, 0), (0, 1)):
                if row + down == 32 or column + right == 32:
                    continue
                if charts[row, column] and charts[row, column] == charts[row + down, column + right]:
                    count += 3
                    if column + right < 8:
                        difference = texture[:, row, column] - texture[:, row + down, column + right]
                        total += float(np.abs(difference).sum())
    assert len(np.unique(charts)) == 13, "twelve sides and the space between them"
    assert float(scene.regularizers()["texture_smoothness"].detach()) == pytest.approx(total / count, rel=1e-4)


def test_coverage_counts_faces_strictly_inside() -> None:
    """Two halves of a square, the second one twice."""
    uvs = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    coverage = cover_texels(uvs, np.array([[0, 1, 2], [0, 2, 3], [0, 3, 2]]), (4, 8))
    row, column = np.mgrid[:4, :8]
    right = (column + 0.5) / 8 > (row + 0.5) / 4
    left = (column + 0.5) / 8 < (row + 0.5) / 4
    assert (coverage.count[right] == 1).all() and (coverage.count[left] == 2).all()
    assert (coverage.owner[right] == 0).all() and (coverage.owner[left] == 1).all()


def test_the_space_between_charts_belongs_to_the_nearest() -> None:
    uvs = np.array([[0, 0], [0.25, 0], [0.25, 1], [0, 1], [0.75, 0], [1, 0], [1, 1], [0.75, 1]])
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    coverage = cover_texels(uvs, faces, (16, 16))
    assert (coverage.owner[:, 4:12] == -1).all()
    row, column = coverage.nearest()
    assert (coverage.owner[row, column][:, :8] < 2).all() and (coverage.owner[row, column][:, 8:] >= 2).all()


def test_several_textures_are_one_image_with_the_same_renders(tmp_path: Path) -> None:
    """Each box shows its own texture as in a scene with that texture alone."""
    sample = two_boxes(noise())
    sample.tree["meshes"][1]["primitives"][0]["material"] = sample.painted(noise(16, seed=3))
    path = sample.save(tmp_path)
    scenes = [scene_of(path, part=part, start="texture") for part in ("", "body", "the lid")]
    (first, second), size = scenes[0].atlases(), scenes[0].painted.shape
    assert (first.materials, second.materials) == ((0,), (1,)) and size == (34, 52)
    assert len(scenes[0].factors) == 0
    for atlas, alone in zip((first, second), scenes[1:], strict=True):
        assert bool((atlas.region.of(scenes[0].source) == alone.source).all())
        assert bool(atlas.region.of(scenes[0].painted).all())
    cameras = Cameras.orbit([30.0, 200.0], [20.0, -30.0], height=48)
    whole, *single = (scene.render(cameras, torch.zeros(2, 3)).rgb for scene in scenes)
    # In the others, one of the boxes has the colors of its vertices.
    nearest = torch.minimum(*((whole - other).abs().amax(1) for other in single))
    assert (nearest < 1e-4).float().mean() > 0.98, "all but the antialiased edge between the boxes"
    trained(scenes[0])
    assert all((atlas.region.of(scenes[0].texture.permute(1, 2, 0))[..., 0] > 0.5).any() for atlas in (first, second))


@pytest.mark.parametrize("sizes", [[(8, 4)], [(8, 8), (4, 4), (4, 8), (2, 2)]])
def test_an_arrangement_has_no_overlaps(sizes: list[tuple[int, int]]) -> None:
    regions, (height, width) = arrange(sizes)
    used = torch.zeros(height, width)
    for region, size in zip(regions, sizes, strict=True):
        part = region.of(used)
        assert part.shape == size
        part += 1
    assert used.max() == 1
    if len(sizes) == 1:
        assert used.min() == 1
