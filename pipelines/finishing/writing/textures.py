"""Texture files of a package, with the channels that the engine expects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ...files import write_atomically
from ..bake import ORM

__all__ = ["ORM", "TextureFiles", "engine_image"]


class TextureFiles:
    """The textures of a package, each a file that other files refer to.

    Args:
        folder: the folder of the package.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written: dict[str, bytes] = {}

    @property
    def paths(self) -> list[Path]:
        """The files in the order in which they were written."""
        return [self._folder / name for name in self._written]

    def add(self, name: str, data: bytes, suffix: str = ".png") -> str:
        """Write a texture, unless a file of that name has the same content. Returns the name of its file.

        A texture that differs from one with its name (a normal map whose green is up instead of down) gets the suffix
        `_GL`.
        """
        if self._written.get(name + suffix, data) != data:
            name = f"{name}_GL"
        if name + suffix not in self._written:
            write_atomically(self._folder / (name + suffix), data)
            self._written[name + suffix] = data
        return name + suffix


def engine_image(kind: str, image: UInt8[np.ndarray, "h w 3"], packing: str, green: str) -> UInt8[np.ndarray, "h w c"]:
    """A texture as the engine wants it beside the glTF file, see `Engine.packing` and `Engine.green`."""
    if kind == "normal" and green == "down":
        return np.stack([image[..., 0], 255 - image[..., 1], image[..., 2]], -1)
    if kind == ORM and packing == "mask_map":
        occlusion, roughness, metallic = np.moveaxis(image, -1, 0)
        return np.stack([metallic, occlusion, np.zeros_like(occlusion), 255 - roughness], -1)
    return image
