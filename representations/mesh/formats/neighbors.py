"""Reading of the files to which a mesh file refers, restricted to its folder, and of images of bounded size."""

from __future__ import annotations

import base64
import io
import re
import warnings
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from ...files.regular import read_regular_file

MAX_PIXELS = 1 << 28
"""Maximum number of pixels of all images of a mesh file together."""
IMAGES = ("PNG", "JPEG", "WEBP", "AVIF", "TGA", "BMP", "GIF", "TIFF", "DDS")
"""Supported image formats, by their names in Pillow. Other formats are rare, and their decoders less reliable."""


def read_neighbor(folder: Path, name: str) -> bytes:
    """Read a file in `folder` or below.

    Args:
        folder: Folder of the mesh file.
        name: Relative path of the file.

    Raises:
        ValueError: The name is a URL or a path outside the folder, or the file is not a regular file.
        OSError: The file cannot be read.
    """
    shown = name if len(name) <= 80 else f"{name[:77]}..."
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", name):
        raise ValueError(f"it refers to '{shown}', a URL; only files in its folder are read")
    try:
        path, root = (folder / name).resolve(), folder.resolve()
    except (ValueError, RuntimeError):  # a character that is not allowed in a path; a cycle of links
        raise ValueError(f"it refers to {shown!r}, which is not a file") from None
    if PurePosixPath(name).is_absolute() or not path.is_relative_to(root):
        raise ValueError(f"it refers to '{shown}', which is outside its folder; move the file into the folder")
    return read_regular_file(path)


def read_uri(folder: Path, uri: str) -> bytes:
    """Read the data of a glTF URI: the content of a data URI, or a file, see `read_neighbor` (also for the errors)."""
    if not uri.startswith("data:"):
        return read_neighbor(folder, unquote(uri))
    head, comma, body = uri.partition(",")
    if not comma:
        raise ValueError("it has a data URI without data")
    if not head.endswith(";base64"):
        return unquote(body).encode("latin-1")
    return base64.b64decode(unquote(body))


class ImageReader:
    """Decodes images up to a total of `MAX_PIXELS` pixels."""

    def __init__(self) -> None:
        self._left = MAX_PIXELS

    def decode(self, data: bytes) -> UInt8[Tensor, "h w 3"]:
        """Decode an image to sRGB without alpha. Raises ValueError if it is broken, not supported or too large."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's warnings about sizes, which are limited here
            try:
                with Image.open(io.BytesIO(data), formats=IMAGES) as image:
                    pixels = image.width * image.height
                    if pixels > self._left:
                        raise ValueError(f"{image.width} x {image.height} pixels are too many")
                    colors = _in_colors(image)
            except Exception as error:  # Pillow's decoders may raise any type
                raise ValueError(" ".join(str(error).split())[:120] or type(error).__name__) from None
        self._left -= pixels
        return torch.from_numpy(np.array(colors))


def _in_colors(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if image.mode.startswith("I"):  # 16 bits, which a plain conversion would clip
        image = Image.fromarray((np.asarray(image, np.float64) / 257).clip(0, 255).round().astype(np.uint8))
    return image.convert("RGB")
