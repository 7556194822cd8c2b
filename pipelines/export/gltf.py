"""Write one mesh as a binary glTF 2.0 file that engines import with default settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from steindreamer.representations import Placement, TriangleMesh, vertex_normals

from ..meshing.bake import to_bytes
from ..meshing.maps import MaterialMaps
from .gltf_builder import GltfBuilder

_FAR = 1000.0
"""Distance from the origin, relative to the asset's size, beyond which its node stores the translation: vertices have
only 24 bits."""


def write_glb(
    path: str | Path,
    mesh: TriangleMesh,
    *,
    height_meters: float | None = None,
    placement: Placement | None = None,
    name: str = "asset",
    extras: dict[str, object] | None = None,
    maps: MaterialMaps | None = None,
    roughness: float = 0.8,
) -> None:
    """Write the mesh with its base color texture, standing on the ground, centered, front toward +Z.

    The file is written atomically. Raises ValueError for a height that is not positive, an empty mesh, or a texture
    without uvs.

    Args:
        path: the file.
        mesh: the mesh to write.
        height_meters: scale the mesh to this height, on the ground and centered, regardless of `placement`; None keeps
            its size.
        placement: placement of the source file of the mesh; the mesh gets its position, size and orientation there.
        name: the object's name.
        extras: JSON values that are stored as `asset.extras`.
        maps: further texture maps.
        roughness: roughness of the material without `maps`, in [0, 1].

    Example:
        >>> write_glb("mug.glb", mesh, height_meters=0.1)
    """
    if height_meters is not None and not height_meters > 0:
        raise ValueError(f"height_meters must be positive, got {height_meters}; leave it out to keep the size")
    if len(mesh.faces) == 0:
        raise ValueError("the mesh has no faces, there is nothing to write")
    if mesh.texture is not None and mesh.uvs is None:
        raise ValueError("the mesh has a texture but no uvs; unwrap it first")
    builder = GltfBuilder()
    if extras:
        builder.tree["asset"]["extras"] = extras
    positions, translation = _placed(mesh.vertices, height_meters, placement)
    normals = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
    tangents = None
    if maps is not None and maps.normal is not None:
        along = _turned_back(torch.from_numpy(maps.normal.tangents[:, :3]), placement)
        tangents = np.concatenate([along, maps.normal.tangents[:, 3:]], 1)
    primitive = add_primitive(
        builder,
        positions,
        _turned_back(normals, placement),
        mesh.faces.numpy(),
        uvs=None if mesh.uvs is None else mesh.uvs.numpy(),
        colors=None if mesh.colors is None or mesh.uvs is not None else mesh.colors.numpy(),
        tangents=tangents,
    )
    images: dict[str, np.ndarray] = {}
    if mesh.texture is not None:
        images["base_color"] = to_bytes(mesh.texture.permute(1, 2, 0).numpy())
    if maps is not None:
        images["occlusion_roughness_metallic"] = maps.occlusion_roughness_metallic
    if maps is not None and maps.normal is not None:
        images["normal"] = maps.normal.image
    # A metallic factor of 0 ignores the texture's metalness.
    material = add_material(
        builder,
        name,
        {kind: (f"{name}_{kind}", image) for kind, image in images.items()},
        roughness=roughness,
        metallic=0.0,
    )
    builder.add("meshes", {"name": name, "primitives": [primitive | {"material": material}]})
    builder.add("nodes", {"name": name, "mesh": 0} | ({"translation": translation} if any(translation) else {}))
    builder.add("scenes", {"name": name, "nodes": [0]})
    builder.tree["scene"] = 0
    builder.write(path)


def add_primitive(
    builder: GltfBuilder,
    positions: Float[np.ndarray, "v 3"],
    normals: Float[np.ndarray, "v 3"],
    faces: Int[np.ndarray, "f 3"],
    *,
    uvs: Float[np.ndarray, "v 2"] | None = None,
    colors: Float[np.ndarray, "v 3"] | None = None,
    tangents: Float[np.ndarray, "v 4"] | None = None,
    lightmap_uvs: Float[np.ndarray, "v 2"] | None = None,
) -> dict[str, Any]:
    """Append the arrays of a mesh to a file. Returns a primitive of a glTF mesh, without its material.

    Args:
        builder: the file.
        positions: vertices in meters.
        normals: unit normals.
        faces: vertex indices.
        uvs: texture coordinates, v pointing down.
        colors: vertex colors in display sRGB.
        tangents: tangents for a normal map, see `meshing.maps.NormalMap`.
        lightmap_uvs: a second set of texture coordinates.
    """
    attributes = {"POSITION": builder.attribute(positions, bounds=True), "NORMAL": builder.attribute(normals)}
    if uvs is not None:
        attributes["TEXCOORD_0"] = builder.attribute(uvs)
    if colors is not None:
        attributes["COLOR_0"] = builder.attribute(_linear(colors))
    if tangents is not None:
        attributes["TANGENT"] = builder.attribute(tangents)
    if lightmap_uvs is not None:
        attributes["TEXCOORD_1"] = builder.attribute(lightmap_uvs)
    return {"attributes": attributes, "indices": builder.indices(faces, len(positions))}


def add_material(
    builder: GltfBuilder,
    name: str,
    images: Mapping[str, tuple[str, UInt8[np.ndarray, "h w 3"]]],
    *,
    roughness: float,
    metallic: float,
    base_color: tuple[float, float, float] | None = None,
    emissive: tuple[float, float, float] | None = None,
) -> int:
    """Append a material with its textures to a file. Returns its index.

    Args:
        builder: the file.
        name: name of the material.
        images: name and texels of each texture by kind: `base_color`, `occlusion_roughness_metallic`, `normal` and
            `emissive`.
        roughness: roughness of a material without a map of it, in [0, 1].
        metallic: factor of the metalness in [0, 1].
        base_color: color of a material without a texture of it, in linear RGB; None: white.
        emissive: emitted color likewise; None: black.
    """
    surface: dict[str, object] = {"metallicFactor": metallic, "roughnessFactor": roughness}
    material: dict[str, object] = {"name": name, "pbrMetallicRoughness": surface}
    if base_color is not None:
        surface["baseColorFactor"] = [*base_color, 1.0]
    if emissive is not None:
        material["emissiveFactor"] = list(emissive)
    for kind, (title, image) in images.items():
        texture = {"index": builder.texture(title, image)}
        if kind == "base_color":
            surface["baseColorTexture"] = texture
        elif kind == "occlusion_roughness_metallic":
            # The texture's own roughness is multiplied by the factor.
            surface |= {"roughnessFactor": 1.0, "metallicRoughnessTexture": texture}
            material["occlusionTexture"] = dict(texture)
        elif kind == "normal":
            material["normalTexture"] = texture
        else:
            material |= {"emissiveTexture": texture, "emissiveFactor": [1.0, 1.0, 1.0]}
    return builder.add("materials", material)


def size_in_file(mesh: TriangleMesh, height_meters: float | None, placement: Placement | None) -> tuple[float, ...]:
    """Width, height and depth in meters of the mesh in the file that `write_glb` writes."""
    positions, _ = _placed(mesh.vertices, height_meters, placement)
    return tuple(float(f"{extent:.4g}") for extent in np.ptp(positions.astype(np.float64), axis=0))


def height_in_scene(mesh: TriangleMesh) -> float:
    """Height of the mesh in the scene's own unit, before `write_glb` scales it."""
    return float(f"{np.ptp(mesh.vertices[:, 1].double().numpy()):.6g}")


def center_in_scene(mesh: TriangleMesh) -> list[float]:
    """Center of the mesh's bounding box in the scene's own coordinates, before `write_glb` moves it."""
    vertices = mesh.vertices.double()
    return [float(f"{value:.6g}") for value in ((vertices.amin(0) + vertices.amax(0)) / 2).tolist()]


def _placed(
    vertices: Float[Tensor, "v 3"], height: float | None, placement: Placement | None
) -> tuple[np.ndarray, list[float]]:
    """Positions, and the translation of their node: as in the source file; else, or with a given height, with the
    bottom center at the origin.
    """
    if placement is not None and height is None:
        far = max(map(abs, placement.center)) > _FAR * placement.scale
        node = np.array(placement.center if far else (0.0, 0.0, 0.0))
        return (placement.undo(vertices.double()).numpy() - node).astype(np.float32), node.tolist()
    turned = _turned_back(vertices, placement).astype(np.float64)
    low, high = turned.min(0), turned.max(0)
    scale = 1.0 if height is None else height / max(high[1] - low[1], 1e-9)
    base = np.array([(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2])
    return ((turned - base) * scale).astype(np.float32), [0.0, 0.0, 0.0]


def _turned_back(directions: Float[Tensor, "v 3"], placement: Placement | None) -> np.ndarray:
    return (directions if placement is None else placement.turn_back(directions)).numpy()


def _linear(srgb: np.ndarray) -> np.ndarray:
    """Convert sRGB to linear: vertex colors are linear in glTF, textures are not."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
