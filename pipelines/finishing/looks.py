"""The levels of detail of a surface: its triangles, unwrapped, with the materials of the source."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from steindreamer.representations import TriangleMesh

from ..engines import Engine
from ..meshing.normals import split_at_creases
from ..meshing.stopwatch import Stopwatch
from ..meshing.unwrap import unwrap
from ..meshing.views import Views
from .bake import bake_material
from .comparison import silhouette_overlap, simplified
from .config import FinishConfig
from .finished import Look
from .keep import KeptDocument, read_again
from .lightmap import lightmap_uvs
from .lods import Level, can_collapse, collapsed, measure_levels
from .reduce import reduce
from .source import Source

logger = logging.getLogger(__name__)
LEAST_OVERLAP, LEAST_GAIN = 0.97, 0.01
"""Overlap of silhouettes with the source below which an atlas of its own is tried for a level, and the gain by which
it is preferred."""
MOST_EXCESS, LEAST_OVERLAP_MISSED = 1.2, 0.9
"""Factor on the target number of triangles above which an atlas of its own is tried too, and the overlap that is then
enough."""
LEAST_DROP = 0.9
"""Ratio of the numbers of triangles of two levels above which the coarser one is left out."""
SMALLEST_TEXTURE = 128


def build_looks(
    source: Source,
    surface: TriangleMesh,
    views: Views,
    first: Look,
    ratios: Sequence[float],
    config: FinishConfig,
    engine: Engine,
) -> list[Look]:
    """The first level and coarser ones, on its atlas or on one of their own, see `FinishConfig.lod_atlas`."""
    if len(ratios) > 1 and config.lod_atlas == "auto" and not can_collapse():
        logger.info("levels of detail are baked anew; with the package meshoptimizer they share an atlas")
        return [first, *bake_levels(source, surface, ratios, len(first.material.base_color), config, engine)]
    looks = [replace(first, mesh=mesh) for mesh in collapsed(first.mesh, ratios)]
    if config.lod_atlas == "auto":
        for index in range(1, len(looks)):
            looks[index] = _better(source, surface, views, looks, index, config, engine)
    return looks


def bake_levels(
    source: Source, surface: TriangleMesh, ratios: Sequence[float], size: int, config: FinishConfig, engine: Engine
) -> list[Look]:
    """All levels but the first, each with an atlas of its own, half as large as that of the level before.

    Args:
        source: the file.
        surface: the first level, one vertex per position.
        ratios: fractions of its triangles, the first is 1.
        size: texture size of the first level.
        config: settings of the baking.
        engine: the engine.
    """
    simple = [reduce(surface, max(4, round(ratio * len(surface.faces))), 0.0) for ratio in ratios[1:]]
    return [_own(source, mesh, size >> index, config, engine) for index, mesh in enumerate(simple, 1)]


def _own(source: Source, simple: TriangleMesh, size: int, config: FinishConfig, engine: Engine) -> Look:
    # Its time is a part of that of the levels.
    return dress(source, simple, max(SMALLEST_TEXTURE, size), config, engine, Stopwatch())


def _better(
    source: Source,
    surface: TriangleMesh,
    views: Views,
    looks: Sequence[Look],
    index: int,
    config: FinishConfig,
    engine: Engine,
) -> Look:
    """A level of detail, with an atlas of its own if that brings its silhouette much nearer to the source.

    Chart borders limit how far edges can be collapsed.
    """
    shared = looks[index]
    target = max(4, round(config.lods[index] * len(surface.faces)))
    overlap = silhouette_overlap(views, shared.mesh)
    missed = len(shared.mesh.faces) > MOST_EXCESS * target
    if overlap >= LEAST_OVERLAP and not missed:
        return shared
    simple = reduce(surface, target, 0.0)
    if missed and len(simple.faces) > LEAST_DROP * len(shared.mesh.faces):
        return shared
    gained = silhouette_overlap(views, simple)
    if gained <= overlap + LEAST_GAIN and not (missed and gained > LEAST_OVERLAP_MISSED):
        return shared
    return _own(source, simple, len(looks[0].material.base_color) >> index, config, engine)


def kept_levels(
    document: KeptDocument, source: Source, ratios: Sequence[float], views: Views
) -> tuple[list[dict[int, list[np.ndarray]]], list[Level]]:
    """Collapse a kept document to its levels of detail.

    Args:
        document: the document.
        source: the file that it was read from.
        ratios: fractions of its triangles, the first is 1.
        views: images of the source.

    Returns:
        The faces of each level, see `KeptDocument.levels`, and the levels themselves; those without fewer triangles
        than the one before are left out.
    """
    faces = document.levels(ratios)
    kept = smaller_levels([sum(len(part) for parts in level.values() for part in parts) for level in faces])
    faces = [faces[index] for index in kept]
    meshes = [source.mesh, *(read_again(document.alone(each), source) for each in faces[1:])]
    return faces, measure_levels([simplified(mesh) for mesh in meshes], [ratios[index] for index in kept], views)


def smaller_levels(triangles: Sequence[int]) -> list[int]:
    """The levels with fewer triangles than the one before, by index: small meshes cannot be reduced any further."""
    kept = [0]
    for index in range(1, len(triangles)):
        if triangles[index] <= LEAST_DROP * triangles[kept[-1]]:
            kept.append(index)
    return kept


def dress(
    source: Source, surface: TriangleMesh, size: int, config: FinishConfig, engine: Engine, watch: Stopwatch
) -> Look:
    """Unwrap a surface and bake the materials of the source onto it."""
    with watch("unwrap"):
        mesh = unwrap(surface, size, config.padding)
        mesh = split_at_creases(mesh, config.crease_angle, everywhere=config.normal_map == "never")
    lightmap = None
    if config.has_lightmap(engine):
        assert mesh.uvs is not None
        lightmap = lightmap_uvs(mesh.vertices.numpy(), mesh.uvs.numpy(), mesh.faces.numpy(), config.lightmap_size)
    with watch("bake"):
        material = bake_material(source.mesh, mesh, size, config)
    return Look(mesh, material, lightmap)
