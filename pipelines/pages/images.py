"""Images as data URIs."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image


def data_uri(content: bytes, kind: str) -> str:
    """A data URI of an encoded image.

    Args:
        content: Content of the image file.
        kind: Format, such as `png`.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def reduced_image(path: Path, width: int) -> str:
    """A data URI of an image as WebP, reduced to at most `width` pixels.

    Raises OSError, ValueError, SyntaxError or Image.DecompressionBombError for a file that Pillow cannot read.
    """
    with Image.open(path) as image:
        image = image.convert("RGB")
        if image.width > width:
            image = image.resize((width, max(1, round(image.height * width / image.width))))
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=85)
    return data_uri(buffer.getvalue(), "webp")
