"""Correction of mesh parts that are inside out."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import trimesh

from steindreamer.representations.mesh.file import read_mesh


def _volume(path: Path) -> float:
    mesh = read_mesh(path)
    return float(trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False).volume)


def _boxes(path: Path, *boxes: tuple[float, float, bool]) -> Path:
    """Write cubes, each given by its size, position along X, and whether it is inside out."""
    parts = []
    for size, place, inverted in boxes:
        box = trimesh.creation.box((size, size, size))
        box.apply_translation((place, 0, 0))
        if inverted:
            box.invert()
        parts.append(box)
    trimesh.util.concatenate(parts).export(path)
    return path


def test_a_separate_part_is_flipped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = _boxes(tmp_path / "two.obj", (1.0, 0.0, False), (0.5, 2.0, True))
    with caplog.at_level(logging.WARNING):
        assert _volume(path) == pytest.approx(1 + 0.125)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: 12 faces of separate parts face inward; these parts are flipped"
    ]


@pytest.mark.parametrize(
    ("boxes", "volume"),
    [
        ([(1.0, 0.0, False), (0.5, 0.0, True)], 1 - 0.125),  # a cavity
        ([(1.0, 0.0, False), (0.5, 2.0, False)], 1 + 0.125),
        ([(1.0, 0.0, True), (0.5, 2.0, True)], -1 - 0.125),  # unknown orientation; refused later
    ],
)
def test_other_parts_are_unchanged(
    boxes: list[tuple[float, float, bool]], volume: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert _volume(_boxes(tmp_path / "some.obj", *boxes)) == pytest.approx(volume)
    assert not caplog.records


def test_an_open_part_is_unchanged(tmp_path: Path) -> None:
    """A sheet that faces the other parts, such as a wall around them."""
    wall = trimesh.Trimesh([[2, -1, -1], [2, 1, -1], [2, 1, 1], [2, -1, 1]], [[0, 2, 1], [0, 3, 2]])
    box = trimesh.creation.box((1, 1, 1))
    trimesh.util.concatenate([box, wall]).export(tmp_path / "wall.obj")
    assert _volume(tmp_path / "wall.obj") == pytest.approx(float(box.volume + wall.volume))


def test_parts_are_found_by_position_not_by_shared_vertices(tmp_path: Path) -> None:
    path = _boxes(tmp_path / "two.stl", (1.0, 0.0, False), (0.5, 2.0, True))  # STL shares no vertices
    assert _volume(path) == pytest.approx(1 + 0.125)
    assert np.isfinite(read_mesh(path).vertices.numpy()).all()
