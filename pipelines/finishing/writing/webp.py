"""WebP images in a glTF document, by its extension EXT_texture_webp."""

from __future__ import annotations

import copy
import io

from PIL import Image

from ...export.gltf_builder import GltfBuilder
from .views import image_bytes, with_views

EXTENSION = "EXT_texture_webp"


def with_webp(builder: GltfBuilder, quality: int) -> GltfBuilder:
    """The document with WebP images, which its readers then need.

    Args:
        builder: the document.
        quality: quality of colors, 1 to 99; 100: they are lossless. Normals, occlusion, roughness and metalness always
            are, because lossy WebP halves the resolution of two channels.
    """
    tree = copy.deepcopy(builder.tree)
    colors = {
        tree["textures"][texture["index"]]["source"]
        for material in tree.get("materials", [])
        for texture in (material["pbrMetallicRoughness"].get("baseColorTexture"), material.get("emissiveTexture"))
        if texture is not None
    }
    views = {}
    for index, image in enumerate(tree.get("images", [])):
        with Image.open(io.BytesIO(image_bytes(builder, index))) as texels:
            views[image["bufferView"]] = _webp(texels, 100 if index not in colors else quality)
        image["mimeType"] = "image/webp"
    for texture in tree.get("textures", []):
        texture["extensions"] = {EXTENSION: {"source": texture.pop("source")}}
    out = with_views(GltfBuilder(tree, builder.binary), views)
    if views:
        out.use_extension(EXTENSION, required=True)
    return out


def _webp(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=quality == 100, quality=quality, method=4, exact=True)
    return buffer.getvalue()
