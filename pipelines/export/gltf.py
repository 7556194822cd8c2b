"""Write one mesh as a binary glTF 2.0 file that engines import with default settings."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from steindreamer.representations import Placement, TriangleMesh, vertex_normals

from ..files import write_atomically
from ..meshing.bake import to_bytes
from ..meshing.maps import MaterialMaps

_FLOAT, _UINT16, _UINT32 = 5126, 5123, 5125
_ARRAY_BUFFER, _ELEMENT_ARRAY_BUFFER = 34962, 34963
_LINEAR, _LINEAR_MIPMAP_LINEAR, _CLAMP_TO_EDGE = 9729, 9987, 33071
_FAR = 1000.0
"""Distance from the origin, relative to the asset's size, beyond which its node stores the translation: vertices have
only 24 bits."""


class _Binary:
    """The binary chunk under construction, with its buffer views and accessors."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.views: list[dict[str, object]] = []
        self.accessors: list[dict[str, object]] = []

    def add(self, raw: bytes, target: int | None = None) -> int:
        self.data += b"\0" * (-len(self.data) % 4)
        view: dict[str, object] = {"buffer": 0, "byteOffset": len(self.data), "byteLength": len(raw)}
        self.views.append(view | ({} if target is None else {"target": target}))
        self.data += raw
        return len(self.views) - 1

    def attribute(self, values: np.ndarray, *, bounds: bool = False) -> int:
        values = np.ascontiguousarray(values, dtype="<f4")
        accessor: dict[str, object] = {
            "bufferView": self.add(values.tobytes(), _ARRAY_BUFFER),
            "componentType": _FLOAT,
            "count": len(values),
            "type": f"VEC{values.shape[1]}",
        }
        if bounds:
            accessor |= {"min": values.min(0).tolist(), "max": values.max(0).tolist()}
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def indices(self, faces: np.ndarray, vertices: int) -> int:
        small = vertices < 65_535  # 65535 is the primitive restart index on some hardware
        raw = faces.astype("<u2" if small else "<u4").tobytes()
        self.accessors.append(
            {
                "bufferView": self.add(raw, _ELEMENT_ARRAY_BUFFER),
                "componentType": _UINT16 if small else _UINT32,
                "count": faces.size,
                "type": "SCALAR",
            }
        )
        return len(self.accessors) - 1


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
    tree, binary = _tree(mesh, height_meters, placement, name, extras or {}, maps, roughness)
    text = json.dumps(tree, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    body = binary + b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(body), b"BIN\0") + body
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)


def _tree(
    mesh: TriangleMesh,
    height: float | None,
    placement: Placement | None,
    name: str,
    extras: dict[str, object],
    maps: MaterialMaps | None,
    roughness: float,
) -> tuple[dict[str, object], bytes]:
    binary = _Binary()
    normals = vertex_normals(mesh.vertices, mesh.faces) if mesh.normals is None else mesh.normals
    positions, translation = _placed(mesh.vertices, height, placement)
    attributes = {
        "POSITION": binary.attribute(positions, bounds=True),
        "NORMAL": binary.attribute(_turned_back(normals, placement)),
    }
    surface: dict[str, object] = {"metallicFactor": 0.0, "roughnessFactor": roughness}
    material: dict[str, object] = {"name": name, "pbrMetallicRoughness": surface}
    textures: list[tuple[str, bytes]] = []
    if mesh.uvs is not None:
        attributes["TEXCOORD_0"] = binary.attribute(mesh.uvs.numpy())
    elif mesh.colors is not None:
        attributes["COLOR_0"] = binary.attribute(_linear(mesh.colors.numpy()))
    if mesh.texture is not None:
        surface["baseColorTexture"] = {"index": len(textures)}
        textures.append(("base_color", _png(to_bytes(mesh.texture.permute(1, 2, 0).numpy()))))
    if maps is not None:
        # The texture's own roughness is multiplied by the factor; a metallic factor of 0 ignores its metalness.
        surface |= {"roughnessFactor": 1.0, "metallicRoughnessTexture": {"index": len(textures)}}
        material["occlusionTexture"] = {"index": len(textures)}
        textures.append(("occlusion_roughness_metallic", _png(maps.occlusion_roughness_metallic)))
    if maps is not None and maps.normal is not None:
        tangents = maps.normal.tangents
        along = _turned_back(torch.from_numpy(tangents[:, :3]), placement)
        attributes["TANGENT"] = binary.attribute(np.concatenate([along, tangents[:, 3:]], 1))
        material["normalTexture"] = {"index": len(textures)}
        textures.append(("normal", _png(maps.normal.image)))
    primitive = {"attributes": attributes, "indices": binary.indices(mesh.faces.numpy(), len(mesh.vertices))}
    images = [
        {"name": f"{name}_{kind}", "mimeType": "image/png", "bufferView": binary.add(raw)} for kind, raw in textures
    ]
    tree: dict[str, object] = {
        "asset": {"version": "2.0", "generator": "steindreamer"} | ({"extras": extras} if extras else {}),
        "scene": 0,
        "scenes": [{"name": name, "nodes": [0]}],
        "nodes": [{"name": name, "mesh": 0} | ({"translation": translation} if any(translation) else {})],
        "meshes": [{"name": name, "primitives": [primitive | {"material": 0}]}],
        "materials": [material],
        "accessors": binary.accessors,
        "bufferViews": binary.views,
        "buffers": [{"byteLength": len(binary.data)}],
    }
    if images:
        tree["images"] = images
        tree["textures"] = [{"source": index, "sampler": 0} for index in range(len(images))]
        tree["samplers"] = [
            {
                "magFilter": _LINEAR,
                "minFilter": _LINEAR_MIPMAP_LINEAR,
                "wrapS": _CLAMP_TO_EDGE,
                "wrapT": _CLAMP_TO_EDGE,
            }
        ]
    return tree, bytes(binary.data)


def size_in_file(mesh: TriangleMesh, height_meters: float | None, placement: Placement | None) -> tuple[float, ...]:
    """Width, height and depth in meters of the mesh in the file that `write_glb` writes."""
    positions, _ = _placed(mesh.vertices, height_meters, placement)
    return tuple(float(f"{extent:.4g}") for extent in np.ptp(positions.astype(np.float64), axis=0))


def height_in_scene(mesh: TriangleMesh) -> float:
    """Height of the mesh in the scene's own unit, before `write_glb` scales it."""
    return float(f"{np.ptp(mesh.vertices[:, 1].double().numpy()):.6g}")


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


def _png(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=5)
    return buffer.getvalue()
