"""A glTF file with the triangles and materials of a mesh file of any format."""

from __future__ import annotations

from typing import Any

import numpy as np

from steindreamer.representations import Placement
from steindreamer.representations.mesh.painted import CLAMP, MIRROR, PaintedMesh

from ..meshing.normals import split_vertices
from .gltf import add_primitive
from .gltf_builder import GltfBuilder

_WRAPS = {CLAMP: 33071, MIRROR: 33648}


def painted_glb(mesh: PaintedMesh, placement: Placement, name: str, crease_angle: float) -> GltfBuilder:
    """A glTF with one node that shows a mesh with all of its materials.

    Args:
        mesh: The mesh in the unit ball.
        placement: Its placement; the vertices are written in the coordinates of its file.
        name: Name of the node and its mesh.
        crease_angle: Angle in degrees above which edges are sharp.
    """
    builder = GltfBuilder()
    split = split_vertices(mesh, crease_angle)
    placed = placement.undo(mesh.vertices.double()).float().numpy()
    primitives = []
    for index, paint in enumerate(mesh.paints):
        chosen = split.faces[mesh.paint_of_face == index].numpy()
        if len(chosen) == 0:
            continue
        used, faces = np.unique(chosen, return_inverse=True)
        rows = split.rows.numpy()[used]
        tints = mesh.tints.numpy()[rows]
        primitive = add_primitive(
            builder,
            placed[rows],
            split.normals.numpy()[used],
            faces.reshape(-1, 3),
            uvs=None if paint.texture is None else mesh.coordinates.numpy()[rows].astype(np.float32),
            colors=None if (tints == 1).all() else tints,
        )
        primitives.append(primitive | {"material": _material(builder, mesh, index)})
    shown = builder.add("meshes", {"name": name, "primitives": primitives})
    builder.add("scenes", {"name": name, "nodes": [builder.add("nodes", {"name": name, "mesh": shown})]})
    builder.tree["scene"] = 0
    return builder


def _material(builder: GltfBuilder, mesh: PaintedMesh, index: int) -> int:
    paint = mesh.paints[index]
    factor = np.array(paint.factor)
    if not mesh.linear:
        factor = np.where(factor <= 0.04045, factor / 12.92, ((factor + 0.055) / 1.055) ** 2.4)
    surface: dict[str, Any] = {"metallicFactor": 0.0, "baseColorFactor": [*factor.tolist(), 1.0]}
    if paint.texture is not None:
        wraps = {f"wrap{'ST'[axis]}": _WRAPS.get(paint.texture.wrap[axis], 10497) for axis in (0, 1)}
        surface["baseColorTexture"] = {
            "index": builder.texture(f"texture_{index}", paint.texture.texels.numpy(), wraps)
        }
    return builder.add("materials", {"name": f"material_{index}", "pbrMetallicRoughness": surface})
