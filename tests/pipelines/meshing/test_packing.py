"""Flat charts onto a page: turned and scaled alike, and as large as several ways of turning allow."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

import steindreamer.pipelines.meshing.packing as packing


def rectangles(sides: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """One chart each, crooked, all on the same spot."""
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]])
    turn = np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    charts = np.concatenate([(corners * side) @ turn for side in sides])
    faces = np.concatenate([[[4 * i, 4 * i + 1, 4 * i + 2], [4 * i, 4 * i + 2, 4 * i + 3]] for i in range(len(sides))])
    return charts.astype(np.float32), faces.astype(np.uint32)


def edges(points: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corners = points[faces].astype(np.float64)
    return corners - np.roll(corners, 1, 1)


# All lying down, they are too wide for each other.
PLANKS = [(10.0, 4.0), (6.0, 3.0), (6.0, 3.0), (6.0, 1.0), (6.0, 1.0)]


def test_charts_keep_their_shape_and_share_a_scale() -> None:
    charts, faces = rectangles([*PLANKS, (2.0, 2.0)])
    packed, uvs, kept = packing.pack(charts, faces, 256, 2)
    before, after = edges(charts[kept], packed), edges(uvs, packed)
    ratio = np.linalg.norm(after, axis=-1) / np.linalg.norm(before, axis=-1)
    assert np.ptp(ratio) < 0.1 * ratio.mean(), "xatlas rounds sides to whole texels"
    turning = [
        np.cross(np.pad(e[:, 0], ((0, 0), (0, 1))), np.pad(e[:, 1], ((0, 0), (0, 1))))[:, 2] for e in (before, after)
    ]
    assert (np.sign(turning[0]) == -np.sign(turning[1])).all(), "only v is upside down"


def test_turning_charts_fills_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    charts, faces = rectangles(PLANKS)

    def scale() -> float:
        packed, uvs, kept = packing.pack(charts, faces, 256, 2)
        return float(np.linalg.norm(edges(uvs, packed)) / np.linalg.norm(edges(charts[kept], packed)))

    turned = scale()
    monkeypatch.setattr(packing, "_TRIALS", 1)
    assert turned > 1.1 * scale()


def test_what_does_not_fit_is_refused() -> None:
    charts, faces = rectangles([(1.0, 1.0)] * 300)
    with pytest.raises(ValueError, match="lower padding"):
        packing.pack(charts, faces, 16, 8)
