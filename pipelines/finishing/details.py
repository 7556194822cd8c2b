"""Levels of detail and a collider of a GLB, in files beside it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from steindreamer.representations import sphere_of_cameras
from steindreamer.representations.placement import RADIUS

from ..engines import WEB
from ..export.detail_report import ColliderReport, LevelReport
from ..export.gltf_builder import GltfBuilder
from ..meshing.detail_config import DetailConfig
from ..meshing.stopwatch import Stopwatch
from .colliders import build_collider
from .comparison import simplified, views_of
from .config import FinishConfig
from .keep import KeptDocument
from .lod_extension import link_levels
from .lods import Level, can_collapse, measure_levels
from .looks import bake_levels, kept_levels, smaller_levels
from .naming import Names
from .placing import frame_of
from .repair import repair
from .report import collider_report, level_reports
from .source import Source, read_source
from .writing.scene import add_baked_material, add_look, collider_document

RUN = replace(WEB, name="run", title="the asset of a run", mesh_name="{name}", material_name="{name}", collider="file")
"""Conventions of a run's asset."""
_VIEWS, _SIZE = 6, 96
"""Number and size in pixels of the images that measure a level."""


@dataclass(frozen=True)
class Details:
    """The levels of detail and the collider of an asset."""

    levels: list[LevelReport]
    collider: ColliderReport | None
    seconds: dict[str, float]
    """Wall-clock seconds by step."""


def write_details(path: Path, config: DetailConfig) -> Details:
    """Write the levels of detail of a GLB (`X_lods.glb`) and its collider (`X_collider.glb`) beside it.

    The file with the levels is the given one with further meshes outside its scene (MSFT_lod). The file itself stays
    as it is, since some readers show all meshes of a file.

    Args:
        path: the file, with one mesh.
        config: the settings.

    Raises:
        UserError: The file cannot be read.
        ValueError: A step is not possible for this surface.
    """
    watch, source = Stopwatch(), read_source(path, FinishConfig())
    document = KeptDocument(source, FinishConfig.crease_angle)
    title = document.names()[0]
    names = Names(title, title, title, RUN)
    frame = frame_of(source.mesh, source.placement, FinishConfig(pivot="keep"))
    with watch("lods"):
        levels, builder = _levels(document, source, names, config)
    if len(levels) > 1:
        builder.write(path.with_name(f"{path.stem}_lods.glb"))
    collider = None
    if config.hulls:
        with watch("hulls"):
            surface = repair(source.mesh, FinishConfig(repair="never")).mesh
            collider = build_collider(surface, config.hulls, config.hull_vertices, config.concavity)
        collider_document(collider, names, frame).write(path.with_name(f"{path.stem}_collider.glb"))
    own = [False, *[not can_collapse()] * (len(levels) - 1)]
    out = Details(level_reports(levels, 2 * RADIUS * frame.scale, own), collider_report(collider), watch.seconds)
    for index, level in enumerate(out.levels):
        level.log(index)
    if out.collider is not None:
        out.collider.log()
    return out


def _levels(
    document: KeptDocument, source: Source, names: Names, config: DetailConfig
) -> tuple[list[Level], GltfBuilder]:
    """The levels, and the document with them: on its own atlas, or without meshoptimizer baked anew."""
    views = views_of(simplified(source.mesh), sphere_of_cameras(_VIEWS, height=_SIZE))
    if len(config.lods) == 1 or can_collapse():
        faces, levels = kept_levels(document, source, config.lods, views)
        return levels, document.with_levels(faces, [level.screen_coverage for level in levels])
    baking = FinishConfig(repair="never", normal_map="auto", lightmap="never", pivot="keep")
    surface = repair(source.mesh, baking).mesh
    looks = bake_levels(source, surface, config.lods, source.largest_texture(), baking, RUN)
    kept = smaller_levels([len(source.mesh.faces), *(len(look.mesh.faces) for look in looks)])
    looks = [looks[index - 1] for index in kept[1:]]
    meshes = [simplified(source.mesh), *(look.textured() for look in looks)]
    levels = measure_levels(meshes, [config.lods[index] for index in kept], views)
    builder, nodes = document.with_levels([{}], [1.0]), document.mesh_nodes()[:1]
    for index, look in enumerate(looks, 1):
        material = add_baked_material(builder, names, look.material, index)
        primitive = add_look(builder, look, frame_of(source.mesh, source.placement, baking)) | {"material": material}
        title = names.lod(index)
        mesh = builder.add("meshes", {"name": title, "primitives": [primitive]})
        nodes.append(builder.add("nodes", {"name": title, "mesh": mesh}))
    if len(nodes) > 1:
        link_levels(builder, nodes, [level.screen_coverage for level in levels])
    return levels, builder
