"""The glTF document of a finished asset: levels of detail, materials and collider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from steindreamer.representations import vertex_normals

from ...export.gltf import add_material, add_primitive
from ...export.gltf_builder import GltfBuilder
from ..bake import BakedMaterial
from ..colliders import Collider
from ..finished import Finished, Look
from ..lod_extension import link_levels
from ..naming import Names
from ..placing import Frame
from .physics import add_body
from .textures import ORM


def scene(
    asset: Finished,
    levels: Sequence[int],
    collider: Literal["nodes", "omi", "none"] = "none",
    *,
    linked: bool = True,
) -> GltfBuilder:
    """A document with some levels.

    Args:
        asset: the asset.
        levels: the levels of detail by number.
        collider: the hulls of the collider, if there is one, as `nodes` with names of the engine, as physics shapes
            (`omi`, see `physics.add_body`), or not at all.
        linked: whether levels are linked by MSFT_lod if the engine uses it; else all are nodes of the scene.
    """
    builder, names = GltfBuilder(), asset.names
    primitives = [add_look(builder, asset.looks[level], asset.frame) for level in levels]
    materials = {
        first: add_baked_material(builder, names, material, first)
        for first, material in asset.materials(levels).items()
    }
    nodes = []
    for level, primitive in zip(levels, primitives, strict=True):
        several = len(levels) > 1 or level > 0
        title = names.lod(level) if several else names.mesh
        shown = primitive | {"material": materials[asset.first_with(level)]}
        mesh = builder.add("meshes", {"name": title, "primitives": [shown]})
        nodes.append(builder.add("nodes", {"name": title, "mesh": mesh}))
    if linked and names.engine.lods == "msft_lod" and len(levels) > 1:
        link_levels(builder, nodes, [asset.levels[level].screen_coverage for level in levels])
        nodes = nodes[:1]
    if asset.collider is not None and collider == "nodes":
        nodes += add_hulls(builder, asset.collider, names, asset.frame)
    elif asset.collider is not None and collider == "omi":
        nodes = [add_body(builder, asset.collider, names, asset.frame, nodes)]
    finish_scene(builder, names.mesh, nodes, asset.extras)
    return builder


def add_hulls(builder: GltfBuilder, collider: Collider, names: Names, frame: Frame) -> list[int]:
    """Append a node per hull. Returns the nodes."""
    nodes = []
    for index, hull in enumerate(collider.hulls):
        title = names.hull(index)
        normals = vertex_normals(hull.vertices, hull.faces).numpy()
        primitive = add_primitive(builder, frame.points(hull.vertices), normals, hull.faces.numpy())
        mesh = builder.add("meshes", {"name": title, "primitives": [primitive]})
        nodes.append(builder.add("nodes", {"name": title, "mesh": mesh}))
    return nodes


def collider_document(collider: Collider, names: Names, frame: Frame) -> GltfBuilder:
    """A document with the hulls of a collider only."""
    builder = GltfBuilder()
    finish_scene(builder, names.mesh, add_hulls(builder, collider, names, frame), {})
    return builder


def finish_scene(builder: GltfBuilder, name: str, nodes: Sequence[int], extras: dict[str, Any]) -> None:
    """Make nodes the roots of the file's only scene."""
    builder.add("scenes", {"name": name, "nodes": list(nodes)})
    builder.tree["scene"] = 0
    if extras:
        builder.tree["asset"]["extras"] = extras


def add_baked_material(builder: GltfBuilder, names: Names, material: BakedMaterial, level: int) -> int:
    """Append a baked material; in the file the packed texture is occlusion, roughness, metalness for every engine."""
    title = f"{names.asset}_LOD{level}" if level else names.asset
    images = {
        kind: (f"T_{title}_ORM" if kind == ORM else names.texture(kind, level), image)
        for kind, image in material.images().items()
    }
    roughness, metallic = material.roughness_metallic
    return add_material(
        builder,
        names.material_of(level),
        images,
        roughness=roughness,
        metallic=metallic,
        base_color=material.linear_color("base_color"),
        emissive=material.linear_color("emissive"),
    )


def add_look(builder: GltfBuilder, look: Look, frame: Frame) -> dict[str, Any]:
    """Append the arrays of a level, without the vertices that it does not use. Returns a primitive without material."""
    mesh, material = look.mesh, look.material
    used, faces = np.unique(mesh.faces.numpy(), return_inverse=True)
    assert mesh.normals is not None and mesh.uvs is not None
    return add_primitive(
        builder,
        frame.points(mesh.vertices)[used],
        mesh.normals.numpy()[used],
        faces.reshape(-1, 3),
        uvs=mesh.uvs.numpy()[used],
        tangents=None if material.normal is None else material.tangents[used],
        lightmap_uvs=None if look.lightmap is None else look.lightmap[used],
    )
