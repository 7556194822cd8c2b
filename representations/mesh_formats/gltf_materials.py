"""Base colors of a glTF file: factors, textures with their samplers, and which coordinates they are looked up with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from ..painted_mesh import CLAMP, MIRROR, REPEAT, Paint, Texture
from .gltf_document import GltfDocument
from .neighbors import PictureReader, read_uri
from .parts import Tell

WRAPS = {10497: REPEAT, 33071: CLAMP, 33648: MIRROR}
NEAREST = 9728
BETTER_SOURCES = ("EXT_texture_webp", "EXT_texture_avif")
"""Extensions that name a picture we can read, in place of the texture's own."""
GLOSSY = "KHR_materials_pbrSpecularGlossiness"
"""The older kind of material; its diffuse color stands where the base color does today."""


@dataclass(frozen=True)
class GltfMaterial:
    """The base color of a material."""

    paint: Paint
    """Its factor is linear light."""
    coordinate_set: int = 0
    """n of the attribute TEXCOORD_n."""
    transform: Float[np.ndarray, "2 3"] | None = None
    """Of those coordinates (KHR_texture_transform)."""


class GltfMaterials:
    """Reads the materials of a document, each once; a picture that cannot be read is told, and left out."""

    def __init__(self, document: GltfDocument, view: Any, tell: Tell) -> None:
        """`view(index)`: bytes and stride of a buffer view."""
        self._document, self._view, self._tell = document, view, tell
        self._pictures = PictureReader()
        self._read: dict[int, GltfMaterial] = {}
        self._images: dict[int, UInt8[Tensor, "h w 3"] | None] = {}

    def material(self, index: int) -> GltfMaterial:
        """Raises ValueError for one that does not exist or contradicts the specification."""
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
        return GltfMaterial(Paint(factor, texture), int(number), _transform(moved) if moved else None)

    def _texture(self, index: int) -> Texture | None:
        texture = self._document.item("textures", index)
        extensions = texture.get("extensions", {})
        sources = [extensions[name]["source"] for name in BETTER_SOURCES if name in extensions]
        sources += [texture["source"]] if "source" in texture else []
        if not sources:
            self._tell(f"textures[{index}] has no picture of a kind that is read; its material's plain color is taken")
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
                self._images[index] = self._pictures.decode(data)
            except (ValueError, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else error
                self._tell(f"images[{index}] cannot be read ({reason}); its material's plain color is taken")
                self._images[index] = None
        return self._images[index]


def _transform(moved: dict[str, Any]) -> Float[np.ndarray, "2 3"]:
    """offset + rotation (counter-clockwise, v downwards) of scaled coordinates, as the extension has it."""
    scale, offset, turn = moved.get("scale", [1, 1]), moved.get("offset", [0, 0]), float(moved.get("rotation", 0))
    cosine, sine = math.cos(turn), math.sin(turn)
    return np.array(
        [
            [cosine * scale[0], sine * scale[1], offset[0]],
            [-sine * scale[0], cosine * scale[1], offset[1]],
        ],
        np.float64,
    )
