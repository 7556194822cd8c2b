"""The files of a finished asset, in the folder that an engine imports."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from steindreamer.representations import TriangleMesh, face_normals, vertex_normals

from ..export.gltf import add_material, add_primitive
from ..export.gltf_builder import GltfBuilder, png
from ..files import write_atomically
from .bake import BakedMaterial
from .colliders import Collider
from .keep import KeptDocument
from .lod_extension import link_levels
from .lods import Level
from .naming import Names
from .placing import Frame


@dataclass(frozen=True)
class Look:
    """A mesh with its textures."""

    mesh: TriangleMesh
    """A mesh with normals and uvs."""
    material: BakedMaterial
    lightmap: Float[np.ndarray, "v 2"] | None
    """Lightmap coordinates of the vertices."""

    def textured(self) -> TriangleMesh:
        """The mesh with its color as a texture."""
        return replace(self.mesh, texture=torch.from_numpy(self.material.base_color).permute(2, 0, 1).float() / 255)


@dataclass(frozen=True)
class Finished:
    """A finished asset before it is written."""

    names: Names
    frame: Frame
    levels: Sequence[Level]
    """The levels of detail."""
    looks: Sequence[Look]
    """The meshes and textures of the levels; those with one atlas share their vertices and their material."""
    collider: Collider | None
    extras: dict[str, Any]
    """JSON values for the file."""


def write_package(asset: Finished, folder: Path) -> list[Path]:
    """Write the files of an asset for its engine. Returns their paths, the main file first."""
    names, engine = asset.names, asset.names.engine
    folder.mkdir(parents=True, exist_ok=True)
    main = folder / f"{names.mesh}.glb"
    written = [main]
    together = engine.lods in ("msft_lod", "nodes")
    _scene(asset, range(len(asset.levels)) if together else [0], hulls=engine.collider in ("ucx", "convcolonly")).write(
        main
    )
    if engine.lods == "files":
        for level in range(1, len(asset.levels)):
            written.append(folder / f"{names.lod(level)}.glb")
            _scene(asset, [level], hulls=False).write(written[-1])
    if asset.collider is not None and engine.collider == "file":
        written.append(folder / f"{names.mesh}_Collider.glb")
        write_collider(written[-1], asset.collider, names, asset.frame)
    for level, material in _materials(asset, range(len(asset.levels))).items():
        for kind, image in material.images().items():
            written.append(folder / f"{names.texture(kind, level)}.png")
            write_atomically(written[-1], png(engine_image(kind, image, engine.packing, engine.green)))
    return written


def _materials(asset: Finished, levels: Sequence[int]) -> dict[int, BakedMaterial]:
    """The materials of some levels, by the first level that has each."""
    firsts = {level: _first_with(asset, level) for level in levels}
    return {first: asset.looks[first].material for first in firsts.values()}


def _first_with(asset: Finished, level: int) -> int:
    """The first level with the material of a level."""
    return next(i for i, look in enumerate(asset.looks) if look.material is asset.looks[level].material)


def write_kept(
    document: KeptDocument,
    faces: Sequence[dict[int, list[np.ndarray]]],
    coverage: Sequence[float],
    collider: Collider | None,
    names: Names,
    frame: Frame,
    folder: Path,
) -> list[Path]:
    """Write a kept document with its levels of detail and collider. Returns the paths, the main file first.

    Args:
        document: the document.
        faces: its levels, see `KeptDocument.levels`.
        coverage: `Level.screen_coverage` of each.
        collider: the collider, if there is one.
        names: names of the files; the name of the mesh is that of the first node.
        frame: the frame of the collider.
        folder: the folder.
    """
    engine, title = names.engine, names.engine.mesh_name.format(name=names.asset)
    folder.mkdir(parents=True, exist_ok=True)
    together = engine.lods in ("msft_lod", "nodes")
    builder = document.with_levels(faces if together else faces[:1], coverage)
    if collider is not None and engine.collider in ("ucx", "convcolonly"):
        tree = builder.tree
        tree["scenes"][tree.get("scene", 0)].setdefault("nodes", []).extend(add_hulls(builder, collider, names, frame))
    written = [folder / f"{title}.glb"]
    builder.write(written[0])
    if engine.lods == "files":
        for level in range(1, len(faces)):
            written.append(folder / f"{title}_LOD{level}.glb")
            document.alone(faces[level]).write(written[-1])
    if collider is not None and engine.collider == "file":
        written.append(folder / f"{title}_Collider.glb")
        write_collider(written[-1], collider, replace(names, mesh=title), frame)
    return written


def write_collider(path: Path, collider: Collider, names: Names, frame: Frame) -> None:
    """Write a file with a node per hull."""
    builder = GltfBuilder()
    finish_scene(builder, names.mesh, add_hulls(builder, collider, names, frame), {})
    builder.write(path)


def _scene(asset: Finished, levels: Sequence[int], *, hulls: bool) -> GltfBuilder:
    """A file with some levels, and with the collider if there is one and it is wanted."""
    builder, names = GltfBuilder(), asset.names
    primitives = [add_look(builder, asset.looks[level], asset.frame) for level in levels]
    materials = {
        first: add_baked_material(builder, names, material, first)
        for first, material in _materials(asset, levels).items()
    }
    nodes = []
    for level, primitive in zip(levels, primitives, strict=True):
        several = len(levels) > 1 or level > 0
        title = names.lod(level) if several else names.mesh
        shown = primitive | {"material": materials[_first_with(asset, level)]}
        mesh = builder.add("meshes", {"name": title, "primitives": [shown]})
        nodes.append(builder.add("nodes", {"name": title, "mesh": mesh}))
    if names.engine.lods == "msft_lod" and len(levels) > 1:
        link_levels(builder, nodes, [asset.levels[level].screen_coverage for level in levels])
        nodes = nodes[:1]
    if hulls and asset.collider is not None:
        nodes += add_hulls(builder, asset.collider, names, asset.frame)
    finish_scene(builder, names.mesh, nodes, asset.extras)
    return builder


def add_baked_material(builder: GltfBuilder, names: Names, material: BakedMaterial, level: int) -> int:
    """Append a baked material; in the file the packed texture is occlusion, roughness, metalness for every engine."""
    title = f"{names.asset}_LOD{level}" if level else names.asset
    images = {
        kind: (f"T_{title}_ORM" if kind == ORM else names.texture(kind, level), image)
        for kind, image in material.images().items()
    }
    name = f"{names.material}_LOD{level}" if level else names.material
    return add_material(builder, name, images, roughness=1.0, metallic=float(material.metallic))


ORM = "occlusion_roughness_metallic"


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


def finish_scene(builder: GltfBuilder, name: str, nodes: Sequence[int], extras: dict[str, Any]) -> None:
    """Make nodes the roots of the file's only scene."""
    builder.add("scenes", {"name": name, "nodes": list(nodes)})
    builder.tree["scene"] = 0
    if extras:
        builder.tree["asset"]["extras"] = extras


def engine_image(kind: str, image: UInt8[np.ndarray, "h w 3"], packing: str, green: str) -> UInt8[np.ndarray, "h w c"]:
    """A texture as the engine wants it beside the glTF file, see `Engine.packing` and `Engine.green`."""
    if kind == "normal" and green == "down":
        return np.stack([image[..., 0], 255 - image[..., 1], image[..., 2]], -1)
    if kind == ORM and packing == "mask_map":
        occlusion, roughness, metallic = np.moveaxis(image, -1, 0)
        return np.stack([metallic, occlusion, np.zeros_like(occlusion), 255 - roughness], -1)
    return image


def write_stl(path: Path, mesh: TriangleMesh, frame: Frame, unit_meters: float) -> None:
    """Write a binary STL with +Z up and front -Y.

    Args:
        path: the file.
        mesh: the mesh in the unit ball.
        frame: its frame.
        unit_meters: length of a unit of the file in meters.
    """
    x, y, z = frame.points(mesh.vertices).T / unit_meters
    corners = np.stack([x, -z, y], 1).astype(np.float32)[mesh.faces.numpy()]
    normals = face_normals(mesh.vertices, mesh.faces).numpy()
    rows = np.zeros(len(corners), np.dtype([("numbers", "<f4", 12), ("attribute", "<u2")]))
    rows["numbers"] = np.concatenate(
        [np.stack([normals[:, 0], -normals[:, 2], normals[:, 1]], 1), corners.reshape(-1, 9)], 1
    )
    write_atomically(path, b"steindreamer".ljust(80) + struct.pack("<I", len(rows)) + rows.tobytes())


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
