"""The whole way from a representation to a file, with a report of what it cost and how close it came."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ...representations import Queryable, Representation
from ..errors import UserError, nearest
from ..pictures import save_mesh_sheet
from .bake import bake_colour, gather
from .cleanup import clean_mesh, is_closed_manifold
from .fidelity import colour_fidelity
from .gltf import write_glb
from .maps import bake_maps
from .surface import SurfaceConfig, extract_surface
from .texels import rasterize_uvs
from .unwrap import MAX_FACES, unwrap
from .views import take_views

FILE_NAME = "asset.glb"
PICTURE_NAME = "asset.png"
PICTURE_SIZE = 256
SOURCES = ("auto", "renders", "field")
COLOUR_SOURCES = ("renders", "field")
LIMITS = {
    "resolution": (16, 1024),
    "cameras": (8, 1024),
    "view_size": (32, 2048),
    "smoothing": (0, 1000),
    "face_budget": (12, MAX_FACES),
    "texture_size": (16, 8192),
    "padding": (0, 64),
}
"""Smallest and largest accepted; beyond the largest, memory or patience ends."""


@dataclass
class ExportConfig:
    """What the exported asset shall be."""

    source: str = "auto"
    """Where the surface comes from: `auto`, `renders` or `field`."""
    colour_source: str = "renders"
    """Where the base colour comes from: `renders` or `field`."""
    resolution: int = 144
    """Voxels along the object's longest side."""
    cameras: int = 64
    """Views over the whole sphere."""
    view_size: int = 256
    """Pixels per side of a view."""
    smoothing: int = 8
    """Taubin smoothing steps."""
    smallest_part: float = 0.01
    """Loose parts below this share of the surface's area are dropped."""
    face_budget: int = 20_000
    """Triangles at most."""
    texture_size: int = 1024
    """Pixels per side of each texture; a power of two."""
    padding: int = 4
    """Texels between charts, so that mipmaps do not bleed."""
    roughness: float = 0.8
    """Of the material, [0, 1]."""
    height_metres: float | None = None
    """Height of the asset; None keeps the scene's own size."""

    def validate(self) -> None:
        """Raises UserError for a value out of range."""
        for key, choices in (("source", SOURCES), ("colour_source", COLOUR_SOURCES)):
            value = getattr(self, key)
            if value not in choices:
                raise UserError(f"export.{key} is '{value}'{nearest(value, choices)}; known: {', '.join(choices)}")
        for key, (least, most) in LIMITS.items():
            if not least <= getattr(self, key) <= most:
                raise UserError(f"export.{key} is {getattr(self, key)}; {least} to {most} is accepted")
        if self.texture_size & (self.texture_size - 1):
            raise UserError(f"export.texture_size is {self.texture_size}; powers of two are accepted, such as 1024")
        if not 0 <= self.roughness <= 1 or not 0 <= self.smallest_part < 1:
            raise UserError("export.roughness must lie in [0, 1] and export.smallest_part in [0, 1)")
        if self.height_metres is not None and not 0 < self.height_metres < math.inf:
            raise UserError(f"export.height_metres is {self.height_metres}; a positive length is accepted")

    def check(self, representation: Representation) -> None:
        """Raises UserError if this representation cannot be exported so."""
        for key in ("source", "colour_source"):
            if getattr(self, key) == "field" and not isinstance(representation, Queryable):
                raise UserError(
                    f"export.{key}=field needs a representation with field(points), "
                    f"{type(representation).__name__} has none; use renders"
                )


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
    seconds: dict[str, float] = {}

    @contextmanager
    def stage(title: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[title] = time.perf_counter() - start
        report(f"  {title:<7} {seconds[title]:5.1f} s")

    with stage("views"):
        views = take_views(representation, config.cameras, config.view_size)
    with stage("surface"):
        surface = extract_surface(representation, SurfaceConfig(config.source, config.resolution), views)
    with stage("cleanup"):
        options = {"smoothing": config.smoothing, "smallest_part": config.smallest_part}
        detailed = clean_mesh(surface, None, **options)
        mesh = clean_mesh(detailed, config.face_budget, smoothing=0, smallest_part=config.smallest_part)
        watertight = is_closed_manifold(mesh.faces.numpy())
    with stage("unwrap"):
        mesh = unwrap(mesh, config.texture_size, config.padding)
    with stage("bake"):
        texels = rasterize_uvs(mesh, config.texture_size)
        gathered = gather(mesh, texels, views)
        queryable = representation if isinstance(representation, Queryable) else None
        page = bake_colour(mesh, texels, gathered, config.colour_source, queryable)
        mesh = replace(mesh, texture=torch.from_numpy(page).permute(2, 0, 1).float() / 255)
        maps = bake_maps(mesh, detailed, texels, gathered.openness, config.roughness)
    with stage("write"):
        path = Path(directory) / FILE_NAME
        write_glb(path, mesh, height_metres=config.height_metres, name=name, extras=provenance, maps=maps)
    with stage("compare"):
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
        seconds,
    )
