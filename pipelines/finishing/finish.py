"""Finishing of a mesh file: from any file to the package of an engine."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from steindreamer.representations import TriangleMesh
from steindreamer.representations.placement import RADIUS

from ..engines import ENGINES, USUAL_SIDE, Engine
from ..errors import UserError
from ..meshing.simplify import DeviationFrom
from ..meshing.stopwatch import Stopwatch
from ..meshing.unwrap import MAX_FACES
from ..meshing.views import Views
from .colliders import Collider, build_collider
from .comparison import difference, views_of
from .config import FinishConfig
from .finished import Finished
from .keep import KeptDocument
from .lightmap import overlaps
from .lods import Level, measure_levels
from .looks import SMALLEST_TEXTURE, build_looks, dress, kept_levels, smaller_levels
from .naming import Names, names_of
from .package import write_kept, write_package, write_stl
from .placing import Frame, frame_of
from .reduce import reduce
from .repair import Repaired, repair
from .report import FinishReport, collider_report, level_reports
from .source import RUN_ASSET, Source, read_source, source_file
from .writing.requirements import check_files

logger = logging.getLogger(__name__)

LEAST_TEXTURE = 1024
OVERLAP_SIZE = 1024
"""Size in texels at which overlaps of lightmap coordinates are measured."""
ALARMING_OVERLAP = 0.9
"""Overlap of the silhouettes of the first level and of the source below which a warning is given."""
USUAL_FILLING = 0.6
"""Fraction of an atlas that its charts usually cover."""


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
        path: a mesh file (GLB, glTF, OBJ, PLY, STL, OFF), a splat file (3DGS .ply, GLB with
            KHR_gaussian_splatting), or the folder of a run.
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
    check_files(config, engine)
    names, watch = names_of(config.name or usual_name(file), engine), Stopwatch()
    with watch("read"):
        source = read_source(file, config)
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
    if config.files(engine) == ("stl",):
        path = folder / f"{names.mesh}.stl"
        with watch("write"):
            folder.mkdir(parents=True, exist_ok=True)
            write_stl(path, surface, frame, ENGINES["print"].unit_meters)
        # A print has one material: the color of the source is not compared.
        level = Level(surface, 1.0, None, difference(views, surface).silhouette_iou, 1.0)
        return _report(
            source, repaired, names, frame, [level], None, [path], watch, deviation=deviation, texture_size=0
        )
    size = _texture_size(source, surface, frame, config, engine)
    asset = _textured(source, surface, views, names, frame, size, config, watch)
    with watch("write"):
        files = write_package(asset, folder, config)
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


def _texture_size(source: Source, surface: TriangleMesh, frame: Frame, config: FinishConfig, engine: Engine) -> int:
    """The size of the textures: as set, from the texel density, or from that of the source."""
    if config.texture_size:
        return config.texture_size
    if not config.texel_density:
        return min(max(LEAST_TEXTURE, source.texture_size()), engine.max_texture_size)
    size = size_for_density(surface, frame.scale, config.texel_density)
    if size > engine.max_texture_size:
        logger.warning(
            f"texel_density={config.texel_density:g} needs textures of {size} pixels; {engine.title} takes "
            f"{engine.max_texture_size}: lower it, or set texture_size"
        )
    return min(size, engine.max_texture_size)


def size_for_density(surface: TriangleMesh, scale: float, density: float) -> int:
    """The power of two from which an atlas of usual density has so many texels per meter.

    Args:
        surface: the mesh.
        scale: length in meters of a unit of the mesh.
        density: texels per meter.
    """
    corners = surface.vertices.double()[surface.faces].numpy() * scale
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    side = density * math.sqrt(float(area) / USUAL_FILLING)
    return max(SMALLEST_TEXTURE, 1 << math.ceil(math.log2(max(side, 1.0))))


def _keep(source: Source, names: Names, folder: Path, config: FinishConfig, watch: Stopwatch) -> FinishReport:
    """Finish a file without a change of its triangles, texture coordinates, materials and names."""
    engine = names.engine
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
        faces, levels = kept_levels(document, source, config.levels(engine), views)
    with watch("write"):
        files = write_kept(
            document, faces, [level.screen_coverage for level in levels], collider, names, frame, folder, config
        )
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
    first = dress(source, surface, size, config, names.engine, watch)
    ratios = config.levels(names.engine)
    with watch("lods"):
        looks = build_looks(source, surface, views, first, ratios, config, names.engine)
        kept = smaller_levels([len(look.mesh.faces) for look in looks])
        looks, ratios = [looks[index] for index in kept], [ratios[index] for index in kept]
        levels = measure_levels([look.textured() for look in looks], ratios, views)
    collider = _collider(surface, names.engine, config, watch)
    extras: dict[str, Any] = {"source": source.path.name, "size_meters": list(frame.size(first.mesh))}
    return Finished(names, frame, levels, looks, collider, extras)


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
        levels=level_reports(levels, 2 * RADIUS * frame.scale, own_atlas),
        collider=collider_report(collider),
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
        level.log(index)
    if report.levels[0].silhouette_iou < ALARMING_OVERLAP:
        logger.warning(
            f"the silhouettes of the result and of the source overlap by only {report.levels[0].silhouette_iou:.1%}: "
            "look at it, and try a larger wrap_resolution, or repair=never"
        )
    if report.collider is not None:
        report.collider.log()
    size = " x ".join(f"{extent:.3g}" for extent in report.size_meters)
    density = "" if report.texels_per_meter is None else f", {report.texels_per_meter:.0f} texels per meter"
    logger.info(f"size {size} m (width x height x depth){density}")
    if not USUAL_SIDE[0] <= max(report.size_meters) <= USUAL_SIDE[1]:
        logger.warning(
            f"its longest side is {max(report.size_meters):.3g} m, as if the file is not in meters; set height_meters"
        )
    for line in report.over_budget:
        logger.warning(f"over budget: {line}")
    logger.info(f"{folder}: {', '.join(report.files)}")
