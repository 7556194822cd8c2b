"""The files that a mesh file names: only those in its own folder are read, and pictures only within bounds."""

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

from ..regular_file import read_regular_file

MAX_PIXELS = 1 << 28
"""Of all pictures of a mesh file together."""
PICTURES = ("PNG", "JPEG", "WEBP", "AVIF", "TGA", "BMP", "GIF", "TIFF", "DDS")
"""What is decoded, as Pillow calls it. Its other formats are rarer than their faults."""


def read_neighbor(folder: Path, name: str) -> bytes:
    """The content of the file called `name` (a relative path) in `folder` or below.

    Raises ValueError for an address, for a path that leads elsewhere and for what is no regular file, OSError for a
    missing one.
    """
    shown = name if len(name) <= 80 else f"{name[:77]}..."
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", name):
        raise ValueError(f"it names '{shown}', an address; only files beside it are read")
    try:
        path, root = (folder / name).resolve(), folder.resolve()
    except (ValueError, RuntimeError):  # a character that no path holds; links that go in a circle
        raise ValueError(f"it names {shown!r}, which is no file") from None
    if PurePosixPath(name).is_absolute() or not path.is_relative_to(root):
        raise ValueError(f"it names '{shown}', which is outside its folder; put the file beside it")
    return read_regular_file(path)


def read_uri(folder: Path, uri: str) -> bytes:
    """What a URI of a glTF file holds (data:) or names: see `read_neighbor`. Raises the same."""
    if not uri.startswith("data:"):
        return read_neighbor(folder, unquote(uri))
    head, comma, body = uri.partition(",")
    if not comma:
        raise ValueError("it holds a data URI without data")
    if not head.endswith(";base64"):
        return unquote(body).encode("latin-1")
    return base64.b64decode(unquote(body))


class PictureReader:
    """Decodes pictures as long as there is room for them."""

    def __init__(self) -> None:
        self._left = MAX_PIXELS

    def decode(self, data: bytes) -> UInt8[Tensor, "h w 3"]:
        """sRGB without its transparency. Raises ValueError for what is no picture, broken or too large."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's about sizes; the limit is our own
            try:
                with Image.open(io.BytesIO(data), formats=PICTURES) as image:
                    pixels = image.width * image.height
                    if pixels > self._left:
                        raise ValueError(f"{image.width} x {image.height} pixels are too many")
                    colors = _in_colors(image)
            except Exception as error:  # its decoders raise whatever they stumble over
                raise ValueError(" ".join(str(error).split())[:120] or type(error).__name__) from None
        self._left -= pixels
        return torch.from_numpy(np.array(colors))


def _in_colors(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers")
    if image.mode.startswith("I"):  # 16 bits, which a plain conversion would clip
        image = Image.fromarray((np.asarray(image, np.float64) / 257).clip(0, 255).round().astype(np.uint8))
    return image.convert("RGB")
