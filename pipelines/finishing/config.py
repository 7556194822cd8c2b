"""Settings of the finishing of a mesh file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Interval

from ..engines import Engine, FileFormat
from ..meshing.detail_config import DetailConfig

MAX_TEXTURE = 8192
KEPT_FORMATS: tuple[FileFormat, ...] = ("glb", "gltf")
"""The formats of a file whose triangles and materials are kept."""


@dataclass
class FinishConfig(DetailConfig):
    """Repair, reduction, unwrapping, baking, levels of detail, colliders and names of a finished asset."""

    name: str = ""
    """Name of the asset, from which files, meshes, materials and textures are named; empty: the name of the file."""
    keep: bool = False
    """Whether triangles, texture coordinates, materials and names of the file are kept: only levels of detail,
    colliders and lightmap coordinates are added."""
    repair: Literal["auto", "wrap", "never"] = "auto"
    """Closing of the surface: `auto`: vertices are welded, faces oriented and holes filled, and if it is still open,
    it is wrapped; `wrap`: it is wrapped in any case; `never`: it is only welded and oriented."""
    holes: Annotated[float, Interval(ge=0, le=1)] = 0.1
    """Largest diameter of a hole that is filled, as a fraction of the bounding box's diagonal."""
    wrap_resolution: Annotated[int, Interval(ge=16, le=512)] = 160
    """Number of voxels along the longest side when the surface is wrapped."""
    smallest_part: Annotated[float, Interval(ge=0, lt=1)] = 0.0
    """Fraction of the area, in [0, 1), below which disconnected parts are dropped; of splats at least 0.005."""
    triangles: Annotated[int, Interval(ge=0, le=5_000_000)] = 0
    """Maximum number of triangles; 0: the budget of the engine."""
    tolerance: Annotated[float, Interval(ge=0, le=0.1)] = 0.001
    """Deviation, as a fraction of the bounding box's diagonal, up to which the surface is simplified below `triangles`;
    0: the whole budget is used."""
    crease_angle: Annotated[float, Interval(ge=0, le=180)] = 40.0
    """Angle between two faces in degrees above which their common edge is shaded as sharp."""
    texture_size: Annotated[int, Interval(ge=0, le=MAX_TEXTURE)] = 0
    """Size of each texture in pixels (square), a power of two; 0: 1024, or more if the file has larger textures, up to
    the budget of the engine."""
    texel_density: Annotated[float, Interval(ge=0, le=1_000_000)] = 0.0
    """Texels per meter of surface from which `texture_size` is chosen, rounded up to a power of two, up to the budget
    of the engine; 0: it is not."""
    padding: Annotated[int, Interval(ge=0, le=64)] = 4
    """Texels between charts, which keep mipmaps from bleeding."""
    normal_map: Literal["auto", "always", "never"] = "auto"
    """Whether the material has a normal map; `auto`: if at least 1 % of its texels differ by 2 degrees from the mesh's
    own normals."""
    constant_maps: Literal["auto", "always"] = "auto"
    """Whether a texture that has one value everywhere (within 1/255) is written; `auto`: it is a number of the material
    instead."""
    roughness: Annotated[float, Interval(ge=0, le=1)] = 0.8
    """Roughness of materials without one, [0, 1]."""
    lod_atlas: Literal["auto", "shared"] = "auto"
    """Textures of the levels: `shared`: all use the atlas of the first; `auto`: a level that misses its number of
    triangles, or whose silhouette overlaps that of the source by less than 97 %, gets an atlas of its own if that
    improves it."""
    lightmap: Literal["auto", "always", "never"] = "auto"
    """Whether the mesh has a second set of texture coordinates for lightmaps; `auto`: if the engine uses it."""
    lightmap_size: Annotated[int, Interval(ge=32, le=4096)] = 256
    """Size of the lightmap in texels, to which its charts are aligned."""
    height_meters: Annotated[float, Interval(gt=0, le=10_000)] | None = None
    """Height of the asset in meters; None: as in the file."""
    pivot: Literal["bottom", "center", "keep"] = "bottom"
    """Place of the origin: `bottom`: the center of the base of the bounding box; `center`: its center; `keep`: as in
    the file."""
    yaw: Annotated[float, Interval(ge=-360, le=360)] = 0.0
    """Rotation in degrees about +Y, from +Z toward +X: 90 turns a model that faces -X to +Z."""
    formats: tuple[FileFormat, ...] = ()
    """File formats, the main file first; empty: those of the engine."""
    collider_format: Literal["engine", "omi"] = "engine"
    """The collider in glTF files: `engine`: as the engine expects it by default; `omi`: as convex shapes of a static
    body (OMI_physics_shape and OMI_physics_body)."""
    compression: Literal["none", "quantize", "meshopt", "draco"] = "none"
    """Compression of the arrays of glTF files: `quantize`: numbers of 8 and 16 bits (KHR_mesh_quantization);
    `meshopt`: the same, compressed (EXT_meshopt_compression); `draco`: KHR_draco_mesh_compression."""
    images: Literal["png", "webp"] = "png"
    """Format of the images of glTF files."""
    webp_quality: Annotated[int, Interval(ge=1, le=100)] = 100
    """Quality of the colors in WebP images; 100: lossless. The other textures are lossless at any quality."""
    blender: str = ""
    """Blender, or a Python in which its package `bpy` can be imported, for FBX files; empty: this Python, or else
    `blender` on the PATH."""

    def __post_init__(self) -> None:
        if len(set(self.formats)) < len(self.formats):
            raise ValueError(f"formats is {list(self.formats)}; each format is accepted once")
        if self.texture_size & (self.texture_size - 1) or 0 < self.texture_size < 16:
            raise ValueError(f"texture_size is {self.texture_size}; 0 and powers of two from 16 are accepted")
        if self.texture_size and self.texel_density:
            raise ValueError("texture_size and texel_density both choose the size of the textures; leave one out")
        self.check_lods()
        if self.keep and (self.height_meters is not None or self.yaw):
            raise ValueError("keep does not change the scene: leave out height_meters and yaw, or keep")

    def budget(self, engine: Engine) -> int:
        """The maximum number of triangles of the first level."""
        return self.triangles or engine.max_triangles

    def files(self, engine: Engine) -> tuple[FileFormat, ...]:
        """The file formats, the main file first."""
        return self.formats or tuple(each for each in engine.written if not self.keep or each in KEPT_FORMATS)

    def has_lightmap(self, engine: Engine) -> bool:
        """Whether lightmap coordinates are made."""
        return self.lightmap == "always" or (self.lightmap == "auto" and engine.lightmap)

    def has_collider(self, engine: Engine) -> bool:
        """Whether a collider is made."""
        return self.hulls > 0 and (engine.collider != "none" or self.collider_format == "omi")

    def levels(self, engine: Engine) -> list[float]:
        """The levels of detail that the engine takes."""
        return self.lods if engine.lods != "none" else self.lods[:1]
