"""The base colors of a glTF file: factors, textures with samplers, and their texture coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from ..painted import CLAMP, MIRROR, REPEAT, Paint, SurfaceMaps, Texture
from .gltf_document import GltfDocument
from .neighbors import ImageReader, read_uri
from .parts import Warn

WRAPS = {10497: REPEAT, 33071: CLAMP, 33648: MIRROR}
NEAREST = 9728
BETTER_SOURCES = ("EXT_texture_webp", "EXT_texture_avif")
"""Extensions with a supported image that replaces the texture's own image."""
GLOSSY = "KHR_materials_pbrSpecularGlossiness"
"""An older material model whose diffuse color corresponds to the base color."""


@dataclass(frozen=True)
class GltfMaterial:
    """The base color of a material."""

    paint: Paint
    """Factor (linear RGB) and texture."""
    coordinate_set: int = 0
    """Number n of the attribute TEXCOORD_n."""
    transform: Float[np.ndarray, "2 3"] | None = None
    """Affine transform of the texture coordinates (KHR_texture_transform); None: identity."""

    @property
    def textured(self) -> bool:
        """Whether any texture was read."""
        maps = self.paint.maps
        return self.paint.texture is not None or (
            maps is not None and any((maps.metallic_roughness, maps.occlusion, maps.emissive_texture, maps.normal))
        )


class GltfMaterials:
    """Reads and caches the materials of a document; an unreadable image causes a warning and is omitted.

    Args:
        document: The document.
        view: Returns bytes and stride of a buffer view by index.
        warn: Logs warnings.
        maps: Whether to read the materials besides their color.
    """

    def __init__(self, document: GltfDocument, view: Any, warn: Warn, maps: bool = False) -> None:
        self._maps = maps
        self._document, self._view, self._warn = document, view, warn
        self._decoded = ImageReader()
        self._read: dict[int, GltfMaterial] = {}
        self._images: dict[int, UInt8[Tensor, "h w 3"] | None] = {}

    def material(self, index: int) -> GltfMaterial:
        """A material by index. Raises ValueError if it does not exist or violates the specification."""
        if index not in self._read:
            self._read[index] = self._material(self._document.item("materials", index))
        return self._read[index]

    def _material(self, material: dict[str, Any]) -> GltfMaterial:
        surface, factor_key, texture_key = base_color(material)
        red, green, blue = (float(value) for value in surface.get(factor_key, [1, 1, 1, 1])[:3])
        if not all(map(math.isfinite, (red, green, blue))):
            raise ValueError(f"a material's {factor_key} is {[red, green, blue]}")
        factor, info = (red, green, blue), surface.get(texture_key)
        texture = None if info is None else self._texture(info["index"])
        if self._maps:
            place = info if texture is not None else next(filter(None, other_textures(material).values()), None)
            maps = self._surface(material, place)
            return GltfMaterial(Paint(factor, texture, maps), *_coordinates(place))
        if texture is None:
            return GltfMaterial(Paint(factor))
        return GltfMaterial(Paint(factor, texture), *_coordinates(info))

    def _surface(self, material: dict[str, Any], place: dict[str, Any] | None) -> SurfaceMaps:
        """The material besides its color; textures with other coordinates than those of `place` are left out."""
        found: dict[str, Texture | None] = {}
        infos = other_textures(material)
        for name, info in infos.items():
            if info is not None and not _same(_coordinates(info), _coordinates(place)):
                self._warn(f"a material's {name.replace('_', ' ')} texture has coordinates of its own and is ignored")
                info = None
            found[name] = None if info is None else self._texture(info["index"])
        surface = material.get("pbrMetallicRoughness", {})
        strength = material.get("extensions", {}).get("KHR_materials_emissive_strength", {}).get("emissiveStrength", 1)
        red, green, blue = (float(value) * float(strength) for value in material.get("emissiveFactor", [0, 0, 0]))
        # The default of both factors is 1, but exporters that leave them out, without a texture, do not mean a metal.
        specified = "metallicRoughnessTexture" in surface
        rough = surface.get("roughnessFactor", 1.0 if specified else None)
        return SurfaceMaps(
            metallic=float(surface.get("metallicFactor", 1.0 if specified else 0.0)),
            roughness=None if rough is None else float(rough),
            emissive=(red, green, blue),
            occlusion_strength=float((infos["occlusion"] or {}).get("strength", 1)),
            normal_scale=float((infos["normal"] or {}).get("scale", 1)),
            **found,
        )

    def _texture(self, index: int) -> Texture | None:
        texture = self._document.item("textures", index)
        sources = image_sources(texture)
        if not sources:
            self._warn(f"textures[{index}] has no image of a supported format; its material's plain color is used")
            return None
        texels = next((image for image in map(self._image, sources) if image is not None), None)
        if texels is None:
            return None
        sampler = self._document.item("samplers", texture["sampler"]) if "sampler" in texture else {}
        wrap_u, wrap_v = (WRAPS[sampler.get(key, 10497)] for key in ("wrapS", "wrapT"))
        return Texture(texels, (wrap_u, wrap_v), sampler.get("magFilter") != NEAREST)

    def _image(self, index: int) -> UInt8[Tensor, "h w 3"] | None:
        if index not in self._images:
            image = self._document.item("images", index)
            try:
                if "bufferView" in image:
                    data = bytes(self._view(image["bufferView"])[0])
                else:
                    data = read_uri(self._document.folder, image["uri"])
                self._images[index] = self._decoded.decode(data)
            except (ValueError, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else error
                self._warn(f"images[{index}] cannot be read ({reason}); its material's plain color is used")
                self._images[index] = None
        return self._images[index]


def base_color(material: dict[str, Any]) -> tuple[dict[str, Any], str, str]:
    """The section of a material that has its base color, and the keys of the factor and of the texture in it."""
    extensions = material.get("extensions", {})
    if "pbrMetallicRoughness" not in material and GLOSSY in extensions:
        return extensions[GLOSSY], "diffuseFactor", "diffuseTexture"
    return material.get("pbrMetallicRoughness", {}), "baseColorFactor", "baseColorTexture"


def image_sources(texture: dict[str, Any]) -> list[int]:
    """Indices of the images of a texture in supported formats, the preferred one first."""
    extensions = texture.get("extensions", {})
    sources = [extensions[name]["source"] for name in BETTER_SOURCES if name in extensions]
    return sources + ([texture["source"]] if "source" in texture else [])


def other_textures(material: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
    """The references to textures other than the color, by name of `SurfaceMaps`."""
    return {
        "metallic_roughness": material.get("pbrMetallicRoughness", {}).get("metallicRoughnessTexture"),
        "occlusion": material.get("occlusionTexture"),
        "emissive_texture": material.get("emissiveTexture"),
        "normal": material.get("normalTexture"),
    }


def _coordinates(info: dict[str, Any] | None) -> tuple[int, Float[np.ndarray, "2 3"] | None]:
    """Coordinate set and transform of a reference to a texture."""
    if info is None:
        return 0, None
    moved = info.get("extensions", {}).get("KHR_texture_transform", {})
    return int(moved.get("texCoord", info.get("texCoord", 0))), texture_transform(moved) if moved else None


def _same(one: tuple[int, Any], other: tuple[int, Any]) -> bool:
    identity = np.eye(2, 3)
    first, second = (identity if each[1] is None else each[1] for each in (one, other))
    return one[0] == other[0] and np.allclose(first, second)


def texture_transform(moved: dict[str, Any]) -> Float[np.ndarray, "2 3"]:
    """The affine transform of KHR_texture_transform: scale, then rotation (counter-clockwise, v down), then offset."""
    scale, offset, turn = moved.get("scale", [1, 1]), moved.get("offset", [0, 0]), float(moved.get("rotation", 0))
    cosine, sine = math.cos(turn), math.sin(turn)
    return np.array(
        [
            [cosine * scale[0], sine * scale[1], offset[0]],
            [-sine * scale[0], cosine * scale[1], offset[1]],
        ],
        np.float64,
    )
