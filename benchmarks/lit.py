"""Images of exported GLB files as an engine shows them: unlit, under a key light with normal map, and as gray clay."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from glb import placed, read_glb
from jaxtyping import Float
from torch import Tensor

from steindreamer.pipelines.export.lighting import CLAY, shaded, toward_key_light
from steindreamer.representations import Cameras, TriangleMesh
from steindreamer.representations.mesh.formats.gltf_accessors import GltfAccessors
from steindreamer.representations.mesh.formats.gltf_document import GltfDocument
from steindreamer.representations.mesh.formats.neighbors import ImageReader
from steindreamer.representations.mesh.rasterization import interpolate, rasterize
from steindreamer.representations.mesh.render import sample_texture

Look = Literal["unlit", "lit", "clay"]


@dataclass(frozen=True)
class Asset:
    """An exported mesh with what a material adds to it."""

    mesh: TriangleMesh
    """Textured mesh, centered, with the size of the world's objects."""
    tangents: Float[Tensor, "v 4"] | None
    """Unit tangents and the sign of the bitangent, as in glTF."""
    normal_map: Float[Tensor, "3 th tw"] | None
    """Tangent-space normals as 0.5 + 0.5 n."""
    prompt: str | None
    """Prompt of the run that exported the file."""


def read_asset(path: Path) -> Asset:
    """Read a file with one textured mesh, and its normal map, tangents and prompt where it has them."""
    document, mesh = GltfDocument(path.read_bytes(), path.parent), placed(read_glb(path))
    prompt = document.tree["asset"].get("extras", {}).get("prompt")
    primitive = document.item("meshes", 0)["primitives"][0]
    normals = document.item("materials", primitive["material"]).get("normalTexture")
    if normals is None or "TANGENT" not in primitive["attributes"]:
        return Asset(mesh, None, None, prompt)
    accessors = GltfAccessors(document)
    tangents = torch.from_numpy(accessors.numbers(primitive["attributes"]["TANGENT"], 4)).float()
    image = document.item("images", document.item("textures", normals["index"])["source"])
    normal_map = ImageReader().decode(bytes(accessors.view(image["bufferView"])[0]))
    return Asset(mesh, tangents, normal_map.permute(2, 0, 1).float() / 255, prompt)


def render_asset(
    asset: Asset, cameras: Cameras, look: Look, *, background: float = 1.0, supersample: int = 2
) -> Float[Tensor, "b 3 h w"]:
    """Render sRGB images of an asset; the key light moves with the camera, so that no view shows only the dark side.

    Args:
        asset: The asset.
        cameras: The cameras; one at a time is rendered.
        look: `unlit`: base color; `lit`: base color under light; `clay`: gray under light.
        background: Gray value of the background.
        supersample: Samples per pixel side.
    """
    return torch.cat([_image(asset, cameras[i], look, background, supersample) for i in range(len(cameras))])


def _image(asset: Asset, camera: Cameras, look: Look, background: float, supersample: int) -> Float[Tensor, "1 3 h w"]:
    mesh = asset.mesh
    assert mesh.normals is not None and mesh.uvs is not None and mesh.texture is not None
    fine = camera.resized(camera.height * supersample, camera.width * supersample)
    fragments = rasterize(mesh.vertices, mesh.faces, fine)
    # Without a normal map the tangents are not used.
    tangents = F.pad(mesh.normals, (0, 1)) if asset.tangents is None else asset.tangents
    attributes = torch.cat([mesh.normals, mesh.uvs, tangents], 1)
    normal, uvs, tangent, sign = interpolate(fragments, mesh.faces, attributes).split([3, 2, 3, 1], 1)
    mask = (fragments.triangle >= 0)[:, None].float()
    color = torch.full_like(normal, CLAY) if look == "clay" else sample_texture(mesh.texture, uvs)
    if look != "unlit":
        normal = F.normalize(normal, dim=1)
        if asset.normal_map is not None:
            local = 2 * sample_texture(asset.normal_map, uvs) - 1
            bitangent = torch.linalg.cross(normal, tangent, dim=1) * sign
            normal = F.normalize(local[:, :1] * tangent + local[:, 1:2] * bitangent + local[:, 2:] * normal, dim=1)
        normal = torch.where(fragments.front[:, None], normal, -normal)
        color = shaded(color, normal, toward_key_light(camera))
    return F.avg_pool2d(color * mask + background * (1 - mask), supersample)
