"""Baking of the old surface's materials onto a new atlas: color, normals, occlusion, roughness, metalness, emission."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from steindreamer.representations import ClosestPoints, SurfaceIndex, TriangleMesh, sphere_of_cameras
from steindreamer.representations.mesh.painted import PaintedMesh, SurfaceMaps, to_display, to_linear

from ..meshing.bake import ambient_occlusion, to_bytes
from ..meshing.maps import LEAST_DETAIL, vertex_tangents
from ..meshing.normals import corner_normals
from ..meshing.texels import Texels, rasterize_uvs
from .config import FinishConfig

Image = UInt8[np.ndarray, "s s 3"]
Color = tuple[float, float, float]
ORM = "occlusion_roughness_metallic"
_AO_VIEWS, _AO_SIZE = 64, 256
_LEAST_TURNED = 0.01
_SPREAD = 2
"""Range of the values of a channel, in steps of 1/255, up to which they are one value."""
_LARGEST_TURN = 0.3
"""Cosine between the normals of both surfaces below which the old one belongs to another part."""


@dataclass(frozen=True)
class BakedMaterial:
    """The textures of a finished mesh."""

    base_color: Image
    """Display sRGB."""
    occlusion_roughness_metallic: Image
    """Linear."""
    normal: Image | None
    """Normals in tangent space, linear, +Y up."""
    tangents: Float[np.ndarray, "v 4"]
    """Tangents of the vertices, see `meshing.maps.NormalMap`."""
    emissive: Image | None
    """Display sRGB; None: nothing emits light."""
    metallic: bool
    """Whether any texel is a metal."""
    normal_detail: float
    """95th percentile of the angle between the normal map and the mesh's own normals, in degrees."""
    factors: dict[str, Color] = field(default_factory=dict)
    """The values, in [0, 1] and in the encoding of the texture, of the kinds that are numbers of the material instead
    of textures."""

    def images(self) -> dict[str, Image]:
        """The textures by kind, see `Engine.texture_names`, without those that are factors."""
        images = {"base_color": self.base_color, ORM: self.occlusion_roughness_metallic}
        images |= {} if self.normal is None else {"normal": self.normal}
        images |= {} if self.emissive is None else {"emissive": self.emissive}
        return {kind: image for kind, image in images.items() if kind not in self.factors}

    def linear_color(self, kind: str) -> Color | None:
        """The factor of a color in linear RGB; None if it has a texture, or if the material has none."""
        factor = self.factors.get(kind)
        if factor is None:
            return None
        red, green, blue = to_linear(torch.tensor(factor)).tolist()
        return red, green, blue

    @property
    def roughness_metallic(self) -> tuple[float, float]:
        """Factors of roughness and metalness, with which a texture is multiplied."""
        _, roughness, metallic = self.factors.get(ORM, (1.0, 1.0, float(self.metallic)))
        return roughness, metallic


def bake_material(source: PaintedMesh, mesh: TriangleMesh, size: int, config: FinishConfig) -> BakedMaterial:
    """Transfer the materials of the closest points of the old surface that face the same way.

    Args:
        source: the old surface.
        mesh: the new mesh, with normals and uvs.
        size: size of the textures.
        config: settings of the normal map, creases and roughness.
    """
    assert mesh.normals is not None
    texels = rasterize_uvs(mesh, size)
    points = torch.from_numpy(texels.interpolate(mesh.vertices))
    normals = F.normalize(torch.from_numpy(texels.interpolate(mesh.normals)).float(), dim=1)
    index = SurfaceIndex(source)
    nearest = index.closest(points, normals)
    occlusion = torch.from_numpy(ambient_occlusion(mesh, texels, sphere_of_cameras(_AO_VIEWS, height=_AO_SIZE)))
    baked = _old_occlusion(source, nearest)
    roughness, metallic = _roughness_metallic(source, nearest, config.roughness)
    orm = torch.stack([torch.minimum(occlusion, baked), roughness, metallic], 1)
    emissive = _emissive(source, nearest)
    tangents = vertex_tangents(mesh)
    local, detail = _tangent_space(source, nearest, normals, texels, tangents, config.crease_angle)
    with_normals = config.normal_map == "always" or (config.normal_map == "auto" and _has_detail(local))
    material = BakedMaterial(
        to_bytes(texels.image(source.colors_at(nearest.face, nearest.weights).numpy())),
        to_bytes(texels.image(orm.numpy())),
        to_bytes(texels.image(local * 0.5 + 0.5)) if with_normals else None,
        tangents,
        None if emissive is None else to_bytes(texels.image(emissive.numpy())),
        bool((metallic > 0.5 / 255).any()),
        detail,
    )
    return material if config.constant_maps == "always" else replace(material, factors=constant_values(material))


def constant_values(material: BakedMaterial) -> dict[str, Color]:
    """The values of the textures that have one value everywhere, by kind; the normal map is none of them.

    Occlusion has no factor: the packed texture counts only if nothing is occluded.
    """
    found: dict[str, Color] = {}
    for kind, image in material.images().items():
        low, high = image.min((0, 1)).astype(int), image.max((0, 1)).astype(int)
        if kind == "normal" or (high - low).max() > _SPREAD or (kind == ORM and high[0] < 255):
            continue
        red, green, blue = ((low + high) / 510).tolist()
        found[kind] = (red, green, blue)
    return found


def _old_occlusion(source: PaintedMesh, at: ClosestPoints) -> Float[Tensor, " t"]:
    values = source.map_values(at.face, at.weights, "occlusion")
    if values is None:
        return torch.ones(len(at.face))
    strength = _per_face(source, lambda maps: maps.occlusion_strength, 0.0)[at.face]
    return 1 + strength * (values[:, 0] - 1)


def _roughness_metallic(
    source: PaintedMesh, at: ClosestPoints, usual: float
) -> tuple[Float[Tensor, " t"], Float[Tensor, " t"]]:
    roughness = _per_face(source, lambda maps: usual if maps.roughness is None else maps.roughness, usual)[at.face]
    metallic = _per_face(source, lambda maps: maps.metallic, 0.0)[at.face]
    values = source.map_values(at.face, at.weights, "metallic_roughness")
    return (roughness, metallic) if values is None else (roughness * values[:, 1], metallic * values[:, 2])


def _emissive(source: PaintedMesh, at: ClosestPoints) -> Float[Tensor, "t 3"] | None:
    """Emitted color in display sRGB; None if there is none."""
    factor = torch.stack([_per_face(source, lambda maps, c=c: maps.emissive[c], 0.0) for c in range(3)], 1)[at.face]
    if not bool((factor > 0).any()):
        return None
    values = source.map_values(at.face, at.weights, "emissive_texture")
    return to_display(factor if values is None else to_linear(values) * factor)


def _tangent_space(
    source: PaintedMesh,
    at: ClosestPoints,
    normals: Float[Tensor, "t 3"],
    texels: Texels,
    tangents: Float[np.ndarray, "v 4"],
    crease_angle: float,
) -> tuple[Float[np.ndarray, "t 3"], float]:
    """Normals of the old surface in the tangent space of the new one, and the 95th percentile of their angle to its."""
    detail = _old_normals(source, at, crease_angle).numpy()
    normal = normals.numpy()
    frame = texels.interpolate(torch.from_numpy(tangents))
    tangent = _unit(frame[:, :3] - normal * (normal * frame[:, :3]).sum(1, keepdims=True))
    bitangent = np.cross(normal, tangent) * np.sign(frame[:, 3:])
    detail = np.where((detail * normal).sum(1, keepdims=True) > _LARGEST_TURN, detail, normal)
    local = _unit(np.stack([(detail * axis).sum(1) for axis in (tangent, bitangent, normal)], 1))
    angle = float(np.degrees(np.arccos(np.clip(np.percentile(local[:, 2], 5), -1, 1))))
    return local, angle


def _has_detail(local: Float[np.ndarray, "t 3"]) -> bool:
    """Whether a normal map is not flat: at least `_LEAST_TURNED` of its texels differ by `LEAST_DETAIL` degrees."""
    return bool((local[:, 2] < np.cos(np.radians(LEAST_DETAIL))).mean() >= _LEAST_TURNED)


def _old_normals(source: PaintedMesh, at: ClosestPoints, crease_angle: float) -> Float[Tensor, "t 3"]:
    """World normals of the old surface: its vertex normals, turned by its normal maps."""
    given = source.normals
    corners = corner_normals(source, crease_angle) if given is None else given[source.faces]
    normal = F.normalize((corners[at.face] * at.weights[:, :, None].float()).sum(1), dim=1)
    values = source.map_values(at.face, at.weights, "normal")
    if values is None:
        return normal
    place, uvs = source.vertices[source.faces].double(), source.coordinates[source.faces]
    edge_1, edge_2 = (place[:, 1] - place[:, 0])[at.face], (place[:, 2] - place[:, 0])[at.face]
    uv_1, uv_2 = (uvs[:, 1] - uvs[:, 0])[at.face], (uvs[:, 2] - uvs[:, 0])[at.face]
    area = uv_1[:, :1] * uv_2[:, 1:] - uv_2[:, :1] * uv_1[:, 1:]
    along_u = (edge_1 * uv_2[:, 1:] - edge_2 * uv_1[:, 1:]) * area.sign()
    along_v = (edge_2 * uv_1[:, :1] - edge_1 * uv_2[:, :1]) * area.sign()
    across = normal.double()
    tangent = F.normalize(along_u - across * (across * along_u).sum(1, keepdim=True), dim=1)
    side = torch.linalg.cross(across, tangent)
    # Texture coordinates have v down, and +Y of the map is up.
    side = side * torch.where((side * -along_v).sum(1, keepdim=True) < 0, -1.0, 1.0)
    scale = _per_face(source, lambda maps: maps.normal_scale, 1.0)[at.face].double()[:, None]
    has_map = _per_face(source, lambda maps: float(maps.normal is not None), 0.0)[at.face] > 0
    local = values.double() * 2 - 1
    turned = F.normalize(
        tangent * local[:, :1] * scale + side * local[:, 1:2] * scale + across * local[:, 2:].clamp(min=0.05), dim=1
    )
    usable = has_map & (area[:, 0] != 0)
    return torch.where(usable[:, None], turned.float(), normal)


def _per_face(source: PaintedMesh, value: Callable[[SurfaceMaps], float], default: float) -> Float[Tensor, " f"]:
    """A number of each face's material; `default` where the material was not read."""
    numbers = [default if paint.maps is None else value(paint.maps) for paint in source.paints]
    return torch.tensor(numbers, dtype=torch.float32)[source.paint_of_face]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
