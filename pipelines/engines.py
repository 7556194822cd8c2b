"""Conventions and budgets of the engines that assets are made for.

A glTF file is the same for every engine: right-handed, +Y up, front +Z, meters, normal maps with green up; importers
convert it. The engines differ in names, in the files beside the glTF file, and in budgets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

LodStyle: TypeAlias = Literal["nodes", "msft_lod", "files", "none"]
"""Levels of detail as nodes `X_LOD0`, `X_LOD1` of one scene; as `X_LOD0` with the others in its glTF extension
`MSFT_lod`, outside the scene; as a file each; or not at all."""
ColliderStyle: TypeAlias = Literal["ucx", "convcolonly", "file", "none"]
"""Convex hulls as nodes `UCX_X_00`, as nodes `X_00-convcolonly`, as a file `X_collider`, or not at all."""
Packing: TypeAlias = Literal["orm", "mask_map"]
"""Channels of the packed texture beside the glTF file: occlusion, roughness, metalness; or metalness, occlusion, detail
mask, smoothness (Unity's mask map)."""
FileFormat: TypeAlias = Literal["glb", "gltf", "obj", "stl", "usdz", "fbx"]
"""A format in which finished assets are written."""

USUAL_SIDE = (0.01, 100.0)
"""Longest side of an asset in meters; others are nearly always in centimeters, inches or without a unit."""
_TEXTURES: Mapping[str, str] = MappingProxyType(
    {
        "base_color": "T_{name}_BC",
        "normal": "T_{name}_N",
        "occlusion_roughness_metallic": "T_{name}_ORM",
        "emissive": "T_{name}_E",
    }
)
# Prefixes SM_, M_ and T_: "Recommended Asset Naming Conventions", Unreal Engine documentation; suffixes _BC, _N, _ORM:
# the list that it refers to, github.com/Allar/ue5-style-guide, section 1.2 (base color, normal, packed maps).


@dataclass(frozen=True)
class Engine:
    """The conventions and budgets of one engine, or of one use of an asset."""

    name: str
    """Name on the command line."""
    title: str
    """Name in messages and documents."""
    up: Literal["+y", "+z"]
    """The vertical axis of the engine; of files without a convention (STL), the axis that is written."""
    forward: Literal["+x", "+z", "-y"]
    """The axis to which the front of a model points after the import."""
    handedness: Literal["right", "left"]
    unit_meters: float
    """Length of the engine's unit in meters; also the unit of files that have none (STL)."""
    mesh_name: str = "SM_{name}"
    """Name of the mesh, its node and its file."""
    material_name: str = "M_{name}"
    texture_names: Mapping[str, str] = field(default_factory=lambda: _TEXTURES)
    """Names of the textures, by kind."""
    packing: Packing = "orm"
    green: Literal["up", "down"] = "up"
    """Direction of green in normal maps beside the glTF file: up (OpenGL) or down (DirectX). In the file it is up."""
    lods: LodStyle = "none"
    collider: ColliderStyle = "none"
    lightmap: bool = False
    """Whether the engine expects a second texture coordinate set without overlaps for lightmaps."""
    max_triangles: int = 100_000
    """Budget of the most detailed level."""
    max_texture_size: int = 2048
    """Budget of the side of a texture in pixels."""
    max_file_bytes: int = 50_000_000
    """Budget of the file that is loaded."""
    max_materials: int = 5
    """Budget of the materials, each of which is a draw call (KhronosGroup/gltf-asset-auditor: 5)."""
    formats: tuple[str, ...] = ("glb",)
    """File formats that the engine imports, the preferred one first."""
    written: tuple[FileFormat, ...] = ("glb",)
    """File formats of a finished asset unless others are asked for, the main file first."""
    extensions: tuple[str, ...] | None = None
    """Required glTF extensions that the engine reads, or their first letters; None: all that are written."""

    @property
    def prints(self) -> bool:
        """Whether files are for slicers: units are `unit_meters` and +Z is up, also where the format has no such
        convention."""
        return self.written[0] == "stl"


UNITY = Engine(
    "unity",
    "Unity",
    # Unity Manual, "Coordinate systems": left-handed, y up; a model faces +z; 1 unit is a meter.
    up="+y",
    forward="+z",
    handedness="left",
    unit_meters=1.0,
    # HDRP documentation, "Mask and detail maps": red metalness, green occlusion, blue detail mask, alpha smoothness.
    texture_names=MappingProxyType({**_TEXTURES, "occlusion_roughness_metallic": "T_{name}_MaskMap"}),
    packing="mask_map",
    # Unity Manual, "Normal maps": green up, as OpenGL.
    green="up",
    # UnityGLTF imports MSFT_lod as an LOD Group (KhronosGroup/UnityGLTF#295); glTFast ignores it and shows level 0.
    # "Importing LOD Meshes" in the manual (names X_LOD0 ...) applies to FBX.
    lods="msft_lod",
    # Unity Manual, "Mesh Collider": a convex collider is a mesh asset of its own, at most 255 triangles.
    collider="file",
    lightmap=True,  # Unity Manual, "Lightmap UVs": Mesh.uv2, which is TEXCOORD_1
    max_triangles=20_000,  # hero props on PC: 5,000 to 20,000 (strayspark.studio game-ready checklist, 2026)
    formats=("glb", "gltf", "obj"),
)
UNREAL = Engine(
    "unreal",
    "Unreal Engine",
    # Unreal Engine documentation, "Coordinate System and Spaces": left-handed, z up, x forward, centimeters.
    up="+z",
    forward="+x",
    handedness="left",
    unit_meters=0.01,
    packing="orm",
    # Unreal's normal maps have green down (DirectX); its glTF importer flips those inside a glTF file.
    green="down",
    # The Interchange reference lists LODs for formats with LOD groups (FBX); glTF has none there. "Static Mesh LODs":
    # further levels are imported in the Static Mesh Editor, each from a file.
    lods="files",
    # "Interchange Import Reference", Static Meshes, Collision: UCX_[name of the render mesh]_##.
    collider="ucx",
    lightmap=True,  # "Unwrapping UVs for Lightmaps": a second set without overlaps
    max_triangles=50_000,  # one object of the foreground; larger meshes are for Nanite
    max_texture_size=4096,
    formats=("glb", "gltf", "obj"),
    # glTF importer of Interchange, GLTFCore enum EGLTFExtension.
    extensions=(
        "KHR_draco_mesh_compression",
        "KHR_lights_punctual",
        "KHR_mesh_quantization",
        "KHR_texture_transform",
        "KHR_materials_",
    ),
)
GODOT = Engine(
    "godot",
    "Godot",
    # Godot documentation, "Introduction to 3D": right-handed, y up, meters; "Import: model front is +Z".
    up="+y",
    forward="+z",
    handedness="right",
    unit_meters=1.0,
    packing="orm",  # ORMMaterial3D
    green="up",  # "Importing images": OpenGL convention
    # Godot generates levels of its own at import ("Mesh level of detail"); nodes X_LOD1 would all be visible.
    lods="files",
    # "Node type customization using name suffixes": -convcolonly is a convex shape without a visible mesh.
    collider="convcolonly",
    lightmap=True,  # "Using Lightmap global illumination": UV2
    max_triangles=20_000,
    formats=("glb", "gltf", "obj"),
    # modules/gltf of Godot 4: SUPPORTED list of the importer, and its document extensions for WebP and KTX.
    extensions=(
        *("KHR_lights_punctual", "KHR_texture_transform", "KHR_texture_basisu", "KHR_node_visibility"),
        *("EXT_texture_webp", "OMI_physics_", "GODOT_single_root", "KHR_materials_", "KHR_mesh_quantization"),
    ),
)
WEB = Engine(
    "web",
    "the web (three.js, Babylon.js, model-viewer)",
    up="+y",
    forward="+z",
    handedness="right",
    unit_meters=1.0,
    # Babylon.js loads MSFT_lod; three.js and model-viewer show level 0.
    lods="msft_lod",
    max_triangles=100_000,  # KhronosGroup/gltf-asset-auditor, default of triangleCount
    max_file_bytes=5_242_880,  # KhronosGroup/gltf-asset-auditor, default of fileSizeInKb: 5120
    formats=("glb", "gltf"),
)
AR = Engine(
    "ar",
    "AR (Scene Viewer, Quick Look)",
    up="+y",
    forward="+z",
    handedness="right",
    unit_meters=1.0,
    # Apple, "Integrating Apps and Content with AR Quick Look" (WWDC 2018): 100,000 polygons, textures of 2048 pixels.
    # Google, Scene Viewer: one file of at most 10 MB, 30,000 vertices (60,000 triangles of a closed mesh).
    max_triangles=50_000,
    max_file_bytes=10_000_000,
    max_materials=1,  # Apple, ibid.: one set of textures
    formats=("glb", "usdz"),
    written=("glb", "usdz"),
    # Scene Viewer: glTF 2.0 with Draco; Quick Look reads USDZ.
    extensions=("KHR_draco_mesh_compression", "KHR_texture_transform", "KHR_materials_unlit"),
)
PRINT = Engine(
    "print",
    "3D printing",
    # Slicers read an STL as millimeters with z up (the format itself has neither).
    up="+z",
    forward="-y",
    handedness="right",
    unit_meters=0.001,
    mesh_name="{name}",
    max_triangles=1_000_000,
    formats=("stl", "obj", "ply"),
    written=("stl",),
)
ENGINES: dict[str, Engine] = {engine.name: engine for engine in (UNITY, UNREAL, GODOT, WEB, AR, PRINT)}
"""The engines by name."""
