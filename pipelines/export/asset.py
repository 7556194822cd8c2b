"""The whole way from a representation to a file, with a report of what it cost and how close it came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from ...representations import Representation
from ..pictures import save_mesh_sheet
from .config import ExportConfig
from .fidelity import colour_fidelity
from .gltf import write_glb
from .maps import bake_maps
from .page import texture_surface
from .stopwatch import Stopwatch
from .views import take_views

FILE_NAME = "asset.glb"
PICTURE_NAME = "asset.png"
PICTURE_SIZE = 256


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how it compares with the scene it came from."""

    path: Path
    vertices: int
    faces: int
    watertight: bool
    colour_difference: float
    """Mean CIEDE2000 between the representation and the textured mesh."""
    silhouette_iou: float
    """Intersection over union of the pixels that both cover, [0, 1]."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Wall-clock seconds by stage."""


def export_asset(
    representation: Representation,
    directory: Path,
    config: ExportConfig | None = None,
    *,
    name: str = "asset",
    provenance: dict[str, object] | None = None,
    report: Callable[[str], None] = print,
) -> ExportReport:
    """Extract, clean, unwrap, bake and write `directory/asset.glb`, and a picture; `report` gets a line per stage.

    `name` is the object's name inside the file, `provenance` (JSON: prompt, seed, versions ...) is written into it.
    Raises ValueError if the scene is empty or an option is out of range.
    """
    config = ExportConfig() if config is None else config
    config.validate()
    watch = Stopwatch(report)
    with watch("views"):
        views = take_views(representation, config.cameras, config.view_size)
    surface = texture_surface(representation, views, config, watch)
    mesh, watertight = surface.mesh, surface.watertight
    with watch("maps"):
        maps = bake_maps(mesh, surface.detailed, surface.texels, surface.openness, config.roughness)
    with watch("write"):
        path = Path(directory) / FILE_NAME
        write_glb(
            path,
            mesh,
            height_metres=config.height_metres,
            placement=representation.placement,
            name=name,
            extras=provenance,
            maps=maps,
        )
    with watch("compare"):
        fidelity = colour_fidelity(representation, mesh)
        save_mesh_sheet(mesh, path.with_name(PICTURE_NAME), PICTURE_SIZE)
    report(
        f"{len(mesh.faces)} faces, {'watertight' if watertight else 'not watertight'}; beside the scene: "
        f"colour difference {fidelity.colour_difference:.2f} (mean CIEDE2000), "
        f"silhouettes overlap {fidelity.silhouette_iou:.1%}"
    )
    return ExportReport(
        path,
        len(mesh.vertices),
        len(mesh.faces),
        watertight,
        fidelity.colour_difference,
        fidelity.silhouette_iou,
        watch.seconds,
    )
