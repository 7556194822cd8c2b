"""Script for a Python with Blender's `bpy`: reads a GLB and writes an FBX whose materials refer to texture files.

It runs in a process of its own, with the path of a JSON file as its last argument: `scene`, the GLB; `fbx`, the file to
write; `materials`, for each material its texture files and its colors (linear RGB) by kind, roughness and metalness. It
imports nothing of this package.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Convert the GLB that the JSON file names to FBX."""
    bpy = importlib.import_module("bpy")
    job = json.loads(Path(sys.argv[-1]).read_text())
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=job["scene"])
    for image in list(bpy.data.images):
        bpy.data.images.remove(image)
    for material in bpy.data.materials:
        if material.name in job["materials"]:
            give_surface(bpy, material, **job["materials"][material.name])
    for shown in bpy.data.objects:
        if shown.type == "MESH":
            shown.data.name = shown.name
    # Vertices in centimeters with +Y up, and nodes without rotation and scale: the units and axes of FBX.
    bpy.ops.export_scene.fbx(
        filepath=job["fbx"],
        object_types={"MESH"},
        apply_unit_scale=True,
        apply_scale_options="FBX_SCALE_NONE",
        bake_space_transform=True,
        axis_forward="-Z",
        axis_up="Y",
        mesh_smooth_type="FACE",
        path_mode="RELATIVE",
        embed_textures=False,
        bake_anim=False,
    )


def give_surface(
    bpy: Any,
    material: Any,
    files: dict[str, str],
    colors: dict[str, list[float]],
    roughness: float,
    metallic: float,
) -> None:
    """Replace the shader of a material by one that FBX can store."""
    material.use_nodes = True
    tree = material.node_tree
    tree.nodes.clear()
    surface = tree.nodes.new("ShaderNodeBsdfPrincipled")
    tree.links.new(surface.outputs["BSDF"], tree.nodes.new("ShaderNodeOutputMaterial").inputs["Surface"])
    surface.inputs["Roughness"].default_value = roughness
    surface.inputs["Metallic"].default_value = metallic
    for kind, name in (("base_color", "Base Color"), ("emissive", "Emission Color")):
        if kind in colors:
            surface.inputs[name].default_value = (*colors[kind], 1.0)
    if "emissive" in colors:
        surface.inputs["Emission Strength"].default_value = 1.0
    for kind, file in files.items():
        texture = tree.nodes.new("ShaderNodeTexImage")
        texture.image = bpy.data.images.load(file)
        color = texture.outputs["Color"]
        if kind == "normal":
            texture.image.colorspace_settings.name = "Non-Color"
            bumps = tree.nodes.new("ShaderNodeNormalMap")
            tree.links.new(color, bumps.inputs["Color"])
            tree.links.new(bumps.outputs["Normal"], surface.inputs["Normal"])
        elif kind == "emissive":
            tree.links.new(color, surface.inputs["Emission Color"])
            surface.inputs["Emission Strength"].default_value = 1.0
        else:
            tree.links.new(color, surface.inputs["Base Color"])


if __name__ == "__main__":
    main()
