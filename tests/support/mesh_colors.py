"""The color of a mesh at a point of its surface."""

from __future__ import annotations

import numpy as np
import torch

from steindreamer.representations.mesh.painted import PaintedMesh


def color_at(mesh: PaintedMesh, point: tuple[float, float, float]) -> list[float]:
    """Rounded sRGB color at a point of the surface."""
    weights = _weights(mesh, np.array(point))
    # Outside a face, or off its plane.
    misses = np.abs(weights.clip(max=0)).sum(1) + np.abs((weights[:, :, None] * _corners(mesh)).sum(1) - point).sum(1)
    face = int(misses.argmin())
    assert misses[face] < 1e-4, f"{point} is not on the surface"
    color = mesh.colors_at(torch.tensor([face]), torch.from_numpy(weights[face])[None])
    return [round(value, 3) for value in color[0].tolist()]


def _corners(mesh: PaintedMesh) -> np.ndarray:
    return mesh.vertices.double().numpy()[mesh.faces.numpy()]


def _weights(mesh: PaintedMesh, point: np.ndarray) -> np.ndarray:
    """Barycentric coordinates of the projection of the point onto the plane of every face."""
    a, b, c = _corners(mesh).transpose(1, 0, 2)
    sides = np.stack([b - a, c - a], 2)
    second_third = (np.linalg.pinv(sides) @ (point - a)[:, :, None])[:, :, 0]
    return np.concatenate([1 - second_third.sum(1, keepdims=True), second_third], 1)
