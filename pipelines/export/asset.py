"""Export of a representation to a file, with a report of time and fidelity."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from steindreamer.representations import Representation, TriangleMesh

from ..meshing.atlas import texture_surface
from ..meshing.bake import to_bytes
from ..meshing.maps import LEAST_DETAIL, NormalMap, NormalMapChoice, bake_maps, bake_normals
from ..meshing.stopwatch import Stopwatch
from ..meshing.views import take_views
from ..settings.validation import check_settings
from .config import ExportConfig
from .detail_report import ColliderReport, LevelReport, plain_values
from .fidelity import color_fidelity
from .gltf import center_in_scene, height_in_scene, size_in_file, write_glb
from .previews import save_maps, save_mesh_sheet, save_thumbnail

logger = logging.getLogger(__name__)

FILE_NAME = "asset.glb"
IMAGE_NAME = "asset.png"
IMAGE_SIZE = 320
MAPS_NAME = "maps.png"
THUMBNAIL_NAME, THUMBNAIL_SIZE = "thumbnail.png", 512


@dataclass(frozen=True)
class ExportReport:
    """Statistics of the exported asset, and its comparison with the scene."""

    path: Path
    vertices: int
    faces: int
    watertight: bool
    color_difference: float
    """Mean CIEDE2000 color difference between the representation and the textured mesh."""
    silhouette_iou: float
    """Intersection over union of the silhouettes, [0, 1]."""
    deviation: float
    """Distance that 99 % of the mesh keeps from the surface before its triangles were reduced, as a fraction of the
    diagonal."""
    normal_map: bool
    """Whether the material has a normal map."""
    size_meters: tuple[float, ...]
    """Width, height and depth in the file, in meters."""
    mesh: TriangleMesh = field(repr=False)
    """The exported mesh with its texture, in the scene's own coordinates."""
    levels: list[LevelReport] = field(default_factory=list)
    """The levels of detail, once they are written (`finishing.details.write_details`)."""
    collider: ColliderReport | None = None
    """The collider, once it is written."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds by export step."""
    maps: tuple[str, ...] = ()
    """The textures that `maps.png` shows."""
    painted: float | None = None
    """Fraction of the texels that were painted, for a file whose texture was replaced; None for a new mesh."""

    def to_plain(self) -> dict[str, Any]:
        """All fields but the mesh as JSON values: an entry of `exports` in summary.json."""
        plain = {each.name: getattr(self, each.name) for each in fields(self) if each.name != "mesh"}
        details = {name: plain_values(plain[name]) for name in ("levels", "collider")}
        return {**plain, **details, "path": str(self.path)}


def export_asset(
    representation: Representation,
    directory: Path,
    config: ExportConfig | None = None,
    *,
    name: str = "asset",
    provenance: dict[str, object] | None = None,
) -> ExportReport:
    """Extract, clean, unwrap, bake and write `directory/asset.glb`, renders of it (`asset.png`, `thumbnail.png`)
    and its maps (`maps.png`); a line per step is logged.

    Args:
        representation: the scene to export.
        directory: the folder of the files.
        config: the settings; default `ExportConfig()`.
        name: the object's name inside the file.
        provenance: JSON values (prompt, seed, versions ...) that are written into the file.

    Raises ValueError if the scene is empty or an option is out of range.

    Example:
        >>> report = export_asset(scene, Path("out"), ExportConfig(face_budget=5000), name="duck")
        >>> report.silhouette_iou
    """
    config = ExportConfig() if config is None else config
    check_settings(config, "export")
    watch = Stopwatch()
    with watch("views"):
        views = take_views(representation, config.cameras, config.view_size)
    surface = texture_surface(representation, views, config, watch)
    mesh, watertight = surface.mesh, surface.watertight
    with watch("maps"):
        normal = _chosen(bake_normals(mesh, surface.detailed, surface.texels), config.normal_map)
        maps = bake_maps(normal, surface.texels, surface.ambient_occlusion, config.roughness)
    size = size_in_file(mesh, config.height_meters, representation.placement)
    with watch("write"):
        path = Path(directory) / FILE_NAME
        write_glb(
            path,
            mesh,
            height_meters=config.height_meters,
            placement=representation.placement,
            name=name,
            extras={
                **(provenance or {}),
                "size_meters": list(size),
                "scene_height": height_in_scene(mesh),
                "scene_center": center_in_scene(mesh),
            },
            maps=maps,
        )
    with watch("compare"):
        fidelity = color_fidelity(representation, mesh)
        save_mesh_sheet(mesh, path.with_name(IMAGE_NAME), IMAGE_SIZE)
        save_thumbnail(mesh, path.with_name(THUMBNAIL_NAME), THUMBNAIL_SIZE)
        assert mesh.texture is not None
        base_color = to_bytes(mesh.texture.permute(1, 2, 0).numpy())
        images = [base_color, *([normal.image] if normal else []), maps.occlusion_roughness_metallic]
        save_maps(images, path.with_name(MAPS_NAME))
    logger.info(f"size: {' x '.join(f'{extent:.3g}' for extent in size)} m (width x height x depth)")
    logger.info(
        f"{len(mesh.faces)} faces, {'watertight' if watertight else 'not watertight'}, within {surface.deviation:.2%} "
        f"of the detailed surface; compared with the scene: color difference {fidelity.color_difference:.2f} (mean "
        f"CIEDE2000), silhouettes overlap {fidelity.silhouette_iou:.1%}"
    )
    return ExportReport(
        path,
        len(mesh.vertices),
        len(mesh.faces),
        watertight,
        fidelity.color_difference,
        fidelity.silhouette_iou,
        surface.deviation,
        normal is not None,
        size,
        mesh,
        seconds=watch.seconds,
        maps=("base color", *(["normal map"] if normal else []), "occlusion, roughness and metalness"),
    )


def _chosen(normal: NormalMap, choice: NormalMapChoice) -> NormalMap | None:
    """The normal map, or None if it is unwanted or adds no detail."""
    if choice == "never" or (choice == "auto" and normal.detail < LEAST_DETAIL):
        logger.info(
            f"without a normal map: 95 % of it is within {normal.detail:.1f} degrees of the mesh's own normals "
            f"(export.normal_map={choice})"
        )
        return None
    return normal
