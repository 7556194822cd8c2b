"""A glTF document as a .glb file, or as .gltf, .bin and images."""

from __future__ import annotations

import copy
import json
from pathlib import Path

from ...export.gltf_builder import GltfBuilder
from ...files import write_atomically
from ..config import FinishConfig
from .compression import compressed
from .textures import TextureFiles
from .views import image_bytes, with_views
from .webp import with_webp

_SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}


def write_document(builder: GltfBuilder, path: Path, textures: TextureFiles, config: FinishConfig) -> list[Path]:
    """Write a document, with the compression and the images of the settings. Returns the paths, the main file first.

    Args:
        builder: the document.
        path: the file, .glb or .gltf; the latter has a .bin file and images beside it.
        textures: the textures of the package, to which the images are added.
        config: the settings.
    """
    if config.images == "webp":
        builder = with_webp(builder, config.webp_quality)
    if config.compression != "none":
        builder = compressed(builder, config.compression)
    if path.suffix == ".glb":
        builder.write(path)
        return [path]
    builder = _with_image_files(builder, path, textures)
    binary = path.with_suffix(".bin")
    tree = builder.finished_tree()
    tree["buffers"][0]["uri"] = binary.name
    write_atomically(binary, builder.binary)
    write_atomically(path, json.dumps(tree, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n")
    return [path, binary]


def _with_image_files(builder: GltfBuilder, path: Path, textures: TextureFiles) -> GltfBuilder:
    """The document with its images in files beside it."""
    tree, views = copy.deepcopy(builder.tree), dict[int, bytes | None]()
    for index, image in enumerate(tree.get("images", [])):
        views[image.pop("bufferView")] = None
        name = str(image.get("name") or f"{path.stem}_{index}").replace("/", "_").replace("\\", "_")
        image["uri"] = textures.add(name, image_bytes(builder, index), _SUFFIXES[image.pop("mimeType")])
    out = GltfBuilder(tree, builder.binary)
    out.fallback_bytes = builder.fallback_bytes
    return with_views(out, views)
