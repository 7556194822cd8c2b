"""The base colors of a glTF file: factors, textures with samplers, and their texture coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from ..painted import CLAMP, MIRROR, REPEAT, Paint, Texture
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


class GltfMaterials:
    """Reads and caches the materials of a document; an unreadable image causes a warning and is omitted.

    Args:
        document: The document.
        view: Returns bytes and stride of a buffer view by index.
        warn: Logs warnings.
    """

    def __init__(self, document: GltfDocument, view: Any, warn: Warn) -> None:
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
        extensions = material.get("extensions", {})
        if "pbrMetallicRoughness" not in material and GLOSSY in extensions:
            surface, names = extensions[GLOSSY], ("diffuseFactor", "diffuseTexture")
        else:
            surface, names = material.get("pbrMetallicRoughness", {}), ("baseColorFactor", "baseColorTexture")
        red, green, blue = (float(value) for value in surface.get(names[0], [1, 1, 1, 1])[:3])
        if not all(map(math.isfinite, (red, green, blue))):
            raise ValueError(f"a material's {names[0]} is {[red, green, blue]}")
        factor, info = (red, green, blue), surface.get(names[1])
        texture = None if info is None else self._texture(info["index"])
        if info is None or texture is None:
            return GltfMaterial(Paint(factor))
        moved = info.get("extensions", {}).get("KHR_texture_transform", {})
        number = moved.get("texCoord", info.get("texCoord", 0))
        return GltfMaterial(Paint(factor, texture), int(number), texture_transform(moved) if moved else None)

    def _texture(self, index: int) -> Texture | None:
        texture = self._document.item("textures", index)
        extensions = texture.get("extensions", {})
        sources = [extensions[name]["source"] for name in BETTER_SOURCES if name in extensions]
        sources += [texture["source"]] if "source" in texture else []
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
