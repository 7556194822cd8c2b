"""Finishing of a mesh file: from any file to the package of an engine."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from steindreamer.representations import TriangleMesh
from steindreamer.representations.placement import RADIUS

from ..engines import Engine
from ..errors import UserError
from ..meshing.simplify import DeviationFrom
from ..meshing.stopwatch import Stopwatch
from ..meshing.unwrap import MAX_FACES, unwrap
from ..meshing.views import Views
from .bake import bake_material
from .colliders import Collider, build_collider
from .comparison import difference, silhouette_overlap, views_of
from .config import FinishConfig
from .keep import KeptDocument, read_again
from .lightmap import lightmap_uvs, overlaps
from .lods import Level, collapsed, measure_levels
from .naming import Names, names_of
from .normals import split_at_creases
from .package import Finished, Look, write_kept, write_package, write_stl
from .placing import Frame, frame_of
from .reduce import reduce
from .repair import Repaired, repair
from .report import ColliderReport, FinishReport, LevelReport
from .source import RUN_ASSET, Source, read_source, source_file

logger = logging.getLogger(__name__)

LEAST_TEXTURE = 1024
OVERLAP_SIZE = 1024
"""Size in texels at which overlaps of lightmap coordinates are measured."""
LEAST_OVERLAP, LEAST_GAIN = 0.97, 0.01
"""Overlap of silhouettes with the source below which an atlas of its own is tried for a level, and the gain by which
it is preferred."""
MOST_EXCESS, LEAST_OVERLAP_MISSED = 1.2, 0.9
"""Factor on the target number of triangles above which an atlas of its own is tried too, and the overlap that is then
enough."""
LEAST_DROP = 0.9
"""Ratio of the numbers of triangles of two levels above which the coarser one is left out."""
SMALLEST_TEXTURE = 128


def finish(
    path: str | Path,
    engine: Engine,
    folder: str | Path,
    config: FinishConfig | None = None,
    *,
    overwrite: bool = False,
) -> FinishReport:
    """Finish a mesh file, or the asset of a run, for an engine; a line per step is logged.

    Args:
        path: a mesh file (GLB, glTF, OBJ, PLY, STL, OFF), or the folder of a run.
        engine: one of `engines.ENGINES`.
        folder: the folder of the files, which is created.
        config: the settings; default `FinishConfig()`.
        overwrite: whether files in a folder that is not empty may be replaced.

    Raises:
        UserError: The file cannot be read or finished, or the folder is not empty.

    Example:
        >>> from steindreamer.pipelines.engines import ENGINES
        >>> report = finish("chair.obj", ENGINES["godot"], "finished/chair")
        >>> report.levels[0].triangles
    """
    config = FinishConfig() if config is None else config
    folder = Path(folder)
    file = source_file(Path(path))
    check_output(folder, overwrite=overwrite)
    names, watch = names_of(config.name or usual_name(file), engine), Stopwatch()
    with watch("read"):
        source = read_source(file, config.yaw)
    logger.info(f"{file}: {len(source.mesh.faces)} triangles, {len(source.mesh.paints)} materials")
    try:
        report = (_keep if config.keep else _finish)(source, names, folder, config, watch)
    except UserError:
        raise
    except ValueError as error:  # raised by a step for this surface
        raise UserError(f"cannot finish {file}: {error}") from error
    report.write(folder)
    _tell(report, folder)
    return report


def usual_name(file: Path) -> str:
    """The name of a run for its asset, else that of the file."""
    file = file.resolve()
    return file.parents[1].name if file.parts[-2:] == RUN_ASSET.parts else file.stem


def check_output(folder: Path, *, overwrite: bool) -> None:
    """Raises UserError unless files can be written to the folder."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out is {folder}, which is a file; give a folder")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty; replace its files with --overwrite, or choose another with --out")


def _finish(source: Source, names: Names, folder: Path, config: FinishConfig, watch: Stopwatch) -> FinishReport:
    engine = names.engine
    with watch("repair"):
        repaired = repair(source.mesh, config)
    _tell_repair(repaired)
    with watch("reduce"):
        surface = reduce(repaired.mesh, config.budget(engine), config.tolerance, config.smallest_part)
    if len(surface.faces) > config.budget(engine):
        logger.warning(
            f"{len(surface.faces)} triangles, more than {config.budget(engine)}: its parts need as many; raise "
            "triangles, or drop small parts with smallest_part"
        )
    deviation = DeviationFrom(source.mesh)(surface)
    with watch("views"):
        views = views_of(source.mesh)
    frame = frame_of(surface, source.placement, config)
    if engine.formats[0] == "stl":
        path = folder / f"{names.mesh}.stl"
        with watch("write"):
            folder.mkdir(parents=True, exist_ok=True)
            write_stl(path, surface, frame, engine.unit_meters)
        # A print has one material: the color of the source is not compared.
        level = Level(surface, 1.0, None, difference(views, surface).silhouette_iou, 1.0)
        return _report(
            source, repaired, names, frame, [level], None, [path], watch, deviation=deviation, texture_size=0
        )
    size = config.texture_size or min(max(LEAST_TEXTURE, source.texture_size()), engine.max_texture_size)
    asset = _textured(source, surface, views, names, frame, size, config, watch)
    with watch("write"):
        files = write_package(asset, folder)
    first, overlap = asset.looks[0], None
    if first.lightmap is not None:
        overlap = overlaps(first.lightmap, first.mesh.faces.numpy(), OVERLAP_SIZE)
    return _report(
        source,
        repaired,
        names,
        frame,
        asset.levels,
        asset.collider,
        files,
        watch,
        deviation=deviation,
        own_atlas=[look.material is not first.material for look in asset.looks],
        texture_size=size,
        texels_per_meter=_density(first.mesh, size, frame.scale),
        normal_detail=first.material.normal_detail,
        lightmap_overlap=overlap,
    )


def _keep(source: Source, names: Names, folder: Path, config: FinishConfig, watch: Stopwatch) -> FinishReport:
    """Finish a file without a change of its triangles, texture coordinates, materials and names."""
    engine = names.engine
    if engine.formats[0] == "stl":
        raise UserError(f"--keep adds levels of detail, colliders and lightmap coordinates; {engine.title} takes none")
    try:
        document = KeptDocument(source, config.crease_angle)
    except ValueError as error:
        raise UserError(f"{source.path}: {error}; or leave out --keep") from error
    if not document.names():
        raise UserError(f"{source.path} has no mesh of plain triangles to keep; leave out --keep")
    names = replace(names, mesh=document.names()[0])
    with watch("repair"):
        repaired = repair(source.mesh, config)
    frame = frame_of(source.mesh, source.placement, replace(config, pivot="keep"))
    collider = _collider(repaired.mesh, engine, config, watch)
    overlap = None
    if config.has_lightmap(engine):
        with watch("lightmap"):
            overlap = document.add_lightmap(config.lightmap_size)
    with watch("views"):
        views = views_of(source.mesh)
    with watch("lods"):
        ratios = config.levels(engine)
        faces = document.levels(ratios)
        kept = smaller_levels([sum(len(part) for parts in level.values() for part in parts) for level in faces])
        faces, ratios = [faces[index] for index in kept], [ratios[index] for index in kept]
        coarse = [read_again(document.alone(each), source) for each in faces[1:]]
        levels = measure_levels([source.mesh, *coarse], ratios, views)
    with watch("write"):
        files = write_kept(document, faces, [level.screen_coverage for level in levels], collider, names, frame, folder)
    return _report(
        source,
        repaired,
        names,
        frame,
        levels,
        collider,
        files,
        watch,
        deviation=0.0,
        texture_size=source.largest_texture(),
        lightmap_overlap=overlap,
    )


def _textured(
    source: Source,
    surface: TriangleMesh,
    views: Views,
    names: Names,
    frame: Frame,
    size: int,
    config: FinishConfig,
    watch: Stopwatch,
) -> Finished:
    """Unwrap and bake a surface, and collapse it to its levels of detail."""
    if len(surface.faces) > MAX_FACES:
        raise UserError(
            f"{len(surface.faces)} triangles are too many to unwrap; set triangles to {MAX_FACES} or less, or keep the "
            "file's own texture coordinates with --keep"
        )
    first = _dressed(source, surface, size, config, names.engine, watch)
    ratios = config.levels(names.engine)
    with watch("lods"):
        looks = [replace(first, mesh=mesh) for mesh in collapsed(first.mesh, ratios)]
        if config.lod_atlas == "auto":
            for index in range(1, len(looks)):
                looks[index] = _better(source, surface, views, looks, index, config, names.engine)
        kept = smaller_levels([len(look.mesh.faces) for look in looks])
        looks, ratios = [looks[index] for index in kept], [ratios[index] for index in kept]
        levels = measure_levels([look.textured() for look in looks], ratios, views)
    collider = _collider(surface, names.engine, config, watch)
    extras: dict[str, Any] = {"source": source.path.name, "size_meters": list(frame.size(first.mesh))}
    return Finished(names, frame, levels, looks, collider, extras)


def _dressed(
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


def smaller_levels(triangles: Sequence[int]) -> list[int]:
    """The levels with fewer triangles than the one before, by index: small meshes cannot be reduced any further."""
    kept = [0]
    for index in range(1, len(triangles)):
        if triangles[index] <= LEAST_DROP * triangles[kept[-1]]:
            kept.append(index)
    return kept


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
    size = max(SMALLEST_TEXTURE, len(looks[0].material.base_color) >> index)
    # Its time is a part of that of the levels.
    return _dressed(source, simple, size, config, engine, Stopwatch())


def _collider(surface: TriangleMesh, engine: Engine, config: FinishConfig, watch: Stopwatch) -> Collider | None:
    if not config.has_collider(engine):
        return None
    with watch("collider"):
        return build_collider(surface, config.hulls, config.hull_vertices, config.concavity)


def _density(mesh: TriangleMesh, size: int, scale: float) -> float:
    """Median over the surface of the texels per meter."""
    assert mesh.uvs is not None
    corners, flat = mesh.vertices.double()[mesh.faces].numpy() * scale, mesh.uvs.double()[mesh.faces].numpy() * size
    world = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    one, two = flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]
    texels = np.abs(one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0])
    order = np.argsort(texels / np.maximum(world, 1e-30))
    middle = np.searchsorted(np.cumsum(world[order]), world.sum() / 2)
    chosen = order[min(int(middle), len(order) - 1)]
    return float(np.sqrt(texels[chosen] / max(world[chosen], 1e-30)))


def _report(
    source: Source,
    repaired: Repaired,
    names: Names,
    frame: Frame,
    levels: Sequence[Level],
    collider: Collider | None,
    files: Sequence[Path],
    watch: Stopwatch,
    *,
    deviation: float,
    texture_size: int,
    own_atlas: Sequence[bool] = (),
    texels_per_meter: float | None = None,
    normal_detail: float | None = None,
    lightmap_overlap: float | None = None,
) -> FinishReport:
    first, size = levels[0].mesh, files[0].stat().st_size
    return FinishReport(
        source=source.path.name,
        engine=names.engine.name,
        name=names.asset,
        files=[path.name for path in files],
        source_triangles=len(source.mesh.faces),
        source_materials=len(source.mesh.paints),
        repair={each.name: getattr(repaired, each.name) for each in fields(repaired) if each.name != "mesh"},
        deviation=deviation,
        levels=[
            LevelReport(
                len(level.mesh.faces),
                len(np.unique(level.mesh.faces.numpy())),
                level.color_difference,
                level.silhouette_iou,
                level.screen_coverage,
                level.switch_distance(2 * RADIUS * frame.scale),
                any(own_atlas[index : index + 1]),
            )
            for index, level in enumerate(levels)
        ],
        collider=None
        if collider is None
        else ColliderReport(
            len(collider.hulls),
            [len(hull.vertices) for hull in collider.hulls],
            collider.method,
            collider.volume_error,
            collider.hausdorff,
        ),
        texture_size=texture_size,
        texels_per_meter=texels_per_meter,
        normal_detail=normal_detail,
        lightmap_overlap=lightmap_overlap,
        size_meters=frame.size(first),
        file_bytes=size,
        over_budget=over_budget(names.engine, len(first.faces), texture_size, size),
        seconds=dict(watch.seconds),
    )


def over_budget(engine: Engine, triangles: int, texture_size: int, file_bytes: int) -> list[str]:
    """The values that exceed the budgets of an engine, each with a remedy."""
    measured = (
        (f"{triangles} triangles", triangles, engine.max_triangles, "triangles"),
        (f"textures of {texture_size} pixels", texture_size, engine.max_texture_size, "texture_size"),
        (f"{file_bytes} bytes", file_bytes, engine.max_file_bytes, "texture_size or triangles"),
    )
    return [
        f"{what}; {engine.title} takes {limit}: lower {remedy}"
        for what, value, limit, remedy in measured
        if value > limit
    ]


def _tell_repair(repaired: Repaired) -> None:
    logger.info(
        f"surface {repaired.method}: {repaired.open_edges} open edges, {repaired.crowded_edges} with more than two "
        f"faces, {repaired.holes_filled} holes filled, {repaired.faces_flipped} faces flipped; "
        f"{'closed' if repaired.closed else 'open'}, {len(repaired.mesh.faces)} triangles"
    )


def _tell(report: FinishReport, folder: Path) -> None:
    for index, level in enumerate(report.levels):
        color = "" if level.color_difference is None else f"color difference {level.color_difference:.2f}, "
        logger.info(
            f"LOD{index}: {level.triangles} triangles, {color}silhouettes {level.silhouette_iou:.1%}, from "
            f"{level.switch_distance:.3g} m"
        )
    if report.collider is not None:
        volume = report.collider.volume_error
        logger.info(
            f"collider: {report.collider.hulls} hulls of up to {max(report.collider.vertices)} vertices, volume "
            f"{'unknown' if volume is None else f'{volume:+.1%}'}, largest distance {report.collider.hausdorff:.1%}"
        )
    size = " x ".join(f"{extent:.3g}" for extent in report.size_meters)
    density = "" if report.texels_per_meter is None else f", {report.texels_per_meter:.0f} texels per meter"
    logger.info(f"size {size} m (width x height x depth){density}")
    for line in report.over_budget:
        logger.warning(f"over budget: {line}")
    logger.info(f"{folder}: {', '.join(report.files)}")
