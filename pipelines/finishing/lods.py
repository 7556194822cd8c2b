"""Levels of detail on one shared atlas: edges are collapsed along chart borders, no vertex moves or is added."""

from __future__ import annotations

import ctypes
import importlib.util
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from skimage.color import deltaE_ciede2000, rgb2lab

from steindreamer.representations import Cameras, RenderOutput, TriangleMesh

from ..errors import UserError
from ..meshing.views import Views
from .comparison import difference, render_any

_NORMAL_WEIGHT, _UV_WEIGHT = 0.5, 0.5
"""Weights of normals and texture coordinates beside the distance, which is relative to the size of the mesh."""
_SLACK = 1.1
"""Factor on the number of triangles above which a level is collapsed with less regard for its attributes."""
_SIZES = (16, 32, 64, 128, 256)
"""Diameters of the object in pixels, at which levels are compared."""
_FILLED = 0.77
"""Fraction of the height of an image of the default camera that the object, of radius 0.9, fills."""
_COLOR, _SILHOUETTE = 2.0, 0.5
"""Color difference (mean CIEDE2000) and mean displacement of the silhouette in pixels up to which levels look alike."""
_SCREEN, _FIELD_OF_VIEW = 1080, 60.0
"""Height of the screen in pixels and vertical field of view in degrees to which switch distances refer."""


@dataclass(frozen=True)
class Level:
    """A level of detail, compared with the source and with the first level."""

    mesh: TriangleMesh
    """The triangles of the level."""
    ratio: float
    """Fraction of the triangles of level 0 that was asked for."""
    color_difference: float | None
    """Mean CIEDE2000 from the source, see `comparison.difference`; None for a mesh without color."""
    silhouette_iou: float
    """Overlap of the silhouettes of the source and the level, [0, 1]."""
    screen_coverage: float
    """Largest diameter of the object, as a fraction of the height of the screen, at which the level looks like level 0:
    a color difference of at most 2, and a silhouette that is displaced by at most half a pixel on average."""

    def switch_distance(self, diameter: float) -> float:
        """Distance in meters from which the level replaces the one before it, for a field of view of 60 degrees.

        Args:
            diameter: diameter of the object in meters.
        """
        if self.ratio == 1:
            return 0.0
        return diameter / (2 * math.tan(math.radians(_FIELD_OF_VIEW) / 2) * self.screen_coverage)


def collapsed(mesh: TriangleMesh, ratios: Sequence[float]) -> list[TriangleMesh]:
    """The levels of a mesh with normals and uvs, over the same vertices, see `collapse`.

    Args:
        mesh: level 0.
        ratios: fractions of its triangles, the first is 1.
    """
    attributes = np.concatenate([_rows(mesh.normals) * _NORMAL_WEIGHT, _rows(mesh.uvs) * _UV_WEIGHT], 1)
    levels = collapse(mesh.vertices.numpy(), attributes, mesh.faces.numpy(), ratios)
    return [replace(mesh, faces=torch.from_numpy(faces)) for faces in levels]


def measure_levels(meshes: Sequence[TriangleMesh], ratios: Sequence[float], source: Views) -> list[Level]:
    """Compare levels with the source and with the first of them; see `Level`."""
    coverage, finest = 1.0, _Renders(meshes[0])
    out = []
    for index, (mesh, ratio) in enumerate(zip(meshes, ratios, strict=True)):
        # A coarser level is never shown nearer than a finer one.
        coverage = 1.0 if index == 0 else min(coverage, _coverage(finest, _Renders(mesh)))
        fidelity = difference(source, mesh)
        out.append(Level(mesh, ratio, fidelity.color_difference, fidelity.silhouette_iou, coverage))
    return out


class _Renders:
    """Renders of a mesh at several sizes, made when they are needed."""

    def __init__(self, mesh: TriangleMesh) -> None:
        self._mesh = mesh
        self._drawn: dict[int, RenderOutput] = {}

    def at(self, size: int) -> RenderOutput:
        """Three views, in which the object has a diameter of `size` pixels."""
        if size not in self._drawn:
            cameras = Cameras.orbit([20.0, 140.0, 260.0], [15.0, -10.0, 40.0], height=round(size / _FILLED))
            self._drawn[size] = render_any(self._mesh, cameras, 2)
        return self._drawn[size]


def collapse(
    vertices: Float[np.ndarray, "v 3"],
    attributes: Float[np.ndarray, "v c"],
    faces: Int[np.ndarray, "f 3"],
    ratios: Sequence[float],
) -> list[Int[np.ndarray, "_ 3"]]:
    """Faces of several levels over the same vertices, see meshoptimizer's `simplifyWithAttributes`.

    Vertices at the same position with different attributes are collapsed together, so that chart borders and sharp
    edges stay closed. Each level is collapsed from the one before it. Raises UserError if meshoptimizer is not
    installed and there is more than one ratio.

    Args:
        vertices: positions.
        attributes: weighted attributes.
        faces: faces of the first level.
        ratios: fractions of its number of faces.
    """
    if len(ratios) == 1:
        return [faces]
    simplify, permissive = _simplifiers()
    extent = max(float(np.ptp(vertices, axis=0).max()), 1e-12)
    # One scale for all meshes: the weights refer to a mesh of size 1.
    points = np.ascontiguousarray((vertices - vertices.min(0)) / extent, np.float32)
    attributes = np.ascontiguousarray(attributes, np.float32)
    levels = [faces.astype(np.int64)]
    for ratio in ratios[1:]:
        target = max(4, round(ratio * len(faces)))
        chosen = simplify(points, attributes, levels[-1], target)
        if len(chosen) > _SLACK * target:
            chosen = permissive(points, attributes, chosen, target)
        levels.append(chosen if len(chosen) else levels[-1])
    return levels


def can_collapse() -> bool:
    """Whether meshoptimizer is installed."""
    return importlib.util.find_spec("meshoptimizer") is not None


Simplifier = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


def _simplifiers() -> tuple[Simplifier, Simplifier]:
    """The collapse with attributes, and the one without, for levels that the first cannot reach."""
    try:
        import meshoptimizer
        from meshoptimizer import _loader
    except ImportError:
        raise UserError(
            "levels of detail on one atlas need the package meshoptimizer: pip install meshoptimizer; or set "
            "lod_atlas=auto (without keep), or lods=[1]"
        ) from None

    _declare_types(_loader.lib.meshopt_simplifyWithAttributes)

    def with_attributes(points: np.ndarray, attributes: np.ndarray, faces: np.ndarray, target: int) -> np.ndarray:
        flat = np.ascontiguousarray(faces.reshape(-1), np.uint32)
        out = np.zeros(len(flat), np.uint32)
        weights = np.ones(attributes.shape[1], np.float32)
        count = meshoptimizer.simplify_with_attributes(
            out, flat, points, attributes, weights, target_index_count=3 * target, target_error=1.0
        )
        return out[:count].reshape(-1, 3).astype(np.int64)

    def without(points: np.ndarray, attributes: np.ndarray, faces: np.ndarray, target: int) -> np.ndarray:
        flat = np.ascontiguousarray(faces.reshape(-1), np.uint32)
        out = np.zeros(len(flat), np.uint32)
        count = meshoptimizer.simplify(out, flat, points, target_index_count=3 * target, target_error=1.0)
        return out[:count].reshape(-1, 3).astype(np.int64)

    return with_attributes, without


def _declare_types(function: Any) -> None:
    """Declare the C types of `meshopt_simplifyWithAttributes`, which the binding (0.2.30a0) leaves out."""
    numbers, indices, size = ctypes.POINTER(ctypes.c_float), ctypes.POINTER(ctypes.c_uint), ctypes.c_size_t
    locks = ctypes.POINTER(ctypes.c_ubyte)
    function.argtypes = [indices, indices, size, numbers, size, size, numbers, size, numbers, size, locks, size]
    function.argtypes += [ctypes.c_float, ctypes.c_uint, numbers]
    function.restype = size


def _coverage(finest: _Renders, level: _Renders) -> float:
    """Largest diameter of the object, relative to the height of the screen, at which both meshes look alike."""
    coverage = _SIZES[0] / _SCREEN / 2
    for size in _SIZES:
        if not _alike(finest.at(size), level.at(size), size):
            break
        coverage = size / _SCREEN
    return coverage


def _alike(one: RenderOutput, other: RenderOutput, size: int) -> bool:
    # The outline of a ball stands for that of the object.
    displaced = float((one.opacity - other.opacity).abs().sum()) / (len(one.opacity) * math.pi * size)
    shown = ((one.opacity + other.opacity) > 0)[:, 0]
    gray = [(each.rgb + 0.5 * (1 - each.opacity)).permute(0, 2, 3, 1)[shown].numpy() for each in (one, other)]
    color = float(deltaE_ciede2000(*map(rgb2lab, gray)).mean()) if bool(shown.any()) else 0.0
    return displaced <= _SILHOUETTE and color <= _COLOR


def _rows(values: torch.Tensor | None) -> np.ndarray:
    assert values is not None
    return values.numpy()
