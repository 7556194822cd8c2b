"""Flat charts in one atlas: rotated and scaled alike, apart from each other, and as large as the search allows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import steindreamer.pipelines.meshing.packing as packing


def rectangles(sides: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One rotated chart each, all on the same spot."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    turn = np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    charts = np.concatenate([(corners * side) @ turn for side in sides])
    faces = np.concatenate([[[4 * i, 4 * i + 1, 4 * i + 2], [4 * i, 4 * i + 2, 4 * i + 3]] for i in range(len(sides))])
    return charts, faces, np.repeat(np.arange(len(sides)), 2)


def edges(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = points[faces]
    return corners - np.roll(corners, 1, 1)


def turning(vectors: np.ndarray) -> np.ndarray:
    return vectors[:, 0, 0] * vectors[:, 1, 1] - vectors[:, 0, 1] * vectors[:, 1, 0]


PLANKS = [(10.0, 4.0), (6.0, 3.0), (6.0, 3.0), (6.0, 1.0), (6.0, 1.0)]


def test_charts_keep_their_shape_and_have_one_scale() -> None:
    charts, faces, chart = rectangles([*PLANKS, (2.0, 2.0)])
    uvs = packing.pack(charts, faces, chart, 256, 2)
    before, after = edges(charts, faces), edges(uvs, faces)
    ratio = np.linalg.norm(after, axis=-1) / np.linalg.norm(before, axis=-1)
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-9)
    assert (np.sign(turning(before)) == -np.sign(turning(after))).all(), "only v is upside down"


@pytest.mark.parametrize(("size", "padding"), [(64, 2), (256, 5), (2048, 8)])
def test_charts_are_apart(size: int, padding: int) -> None:
    charts, faces, chart = rectangles(PLANKS)
    uvs = packing.pack(charts, faces, chart, size, padding).reshape(-1, 4, 2) * size
    assert uvs.min() >= padding / 2
    assert uvs.max() <= size - padding / 2
    for i, first in enumerate(uvs):
        for second in uvs[:i]:
            # Rectangles whose sides are axis-aligned are apart along one axis.
            gaps = np.maximum(first.min(0) - second.max(0), second.min(0) - first.max(0))
            assert gaps.max() >= padding


def test_a_hole_holds_another_chart() -> None:
    ring = np.array([[0, 0], [9, 0], [9, 9], [0, 9], [2, 2], [7, 2], [7, 7], [2, 7]], float)
    ring_faces = np.array(
        [[0, 1, 5], [0, 5, 4], [1, 2, 6], [1, 6, 5], [2, 3, 7], [2, 7, 6], [3, 0, 4], [3, 4, 7]], np.int64
    )
    square, square_faces, _ = rectangles([(4.0, 4.0)])
    charts, faces = np.concatenate([ring, square]), np.concatenate([ring_faces, 8 + square_faces])
    uvs = packing.pack(charts, faces, np.repeat([0, 1], [8, 2]), 256, 2)
    assert (uvs[8:] > uvs[:8].min(0)).all()
    assert (uvs[8:] < uvs[:8].max(0)).all()


def test_trying_orders_fills_the_atlas(monkeypatch: pytest.MonkeyPatch) -> None:
    sides = np.random.default_rng(3).uniform(1, 10, (12, 2))
    charts, faces, chart = rectangles([(float(width), float(height)) for width, height in sides])

    def scale() -> float:
        return float(np.linalg.norm(edges(packing.pack(charts, faces, chart, 256, 2), faces)))

    searched = scale()
    monkeypatch.setattr(packing, "_TRIALS", 1)
    assert searched > 1.02 * scale()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="lower padding"):
        packing.pack(*rectangles([(1.0, 1.0)] * 300), 16, 8)


@pytest.mark.parametrize(("side", "message"), [(0.0, "too small"), (float("nan"), "not finite")])
def test_charts_without_size_are_refused(side: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        packing.pack(*rectangles([(side, side)]), 64, 2)
