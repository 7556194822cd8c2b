"""Checks of the images: readable, of sizes that GPUs compress and mipmap, none stored twice."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from ..finding import Finding, checked
from ..subject import Subject

SMALLEST = 16
"""Pixels along a side below which a texture is a plain color, which a factor stores better."""


def readable(subject: Subject) -> Iterator[Finding]:
    """Images and other side files that can be read."""
    broken = [_name(subject, index) for index, image in enumerate(subject.file.images) if not image.header[0]]
    lost = [*subject.file.missing, *broken]
    yield checked(
        "files",
        len(lost),
        "nothing missing or unreadable",
        not lost,
        "put the files beside the asset under the names that it refers to, or embed them (GLB)",
        severity="error",
        where=lost,
    )


def sizes(subject: Subject) -> Iterator[Finding]:
    """Width and height."""
    images = {_name(subject, i): image.header[1:] for i, image in enumerate(subject.file.images) if image.size}
    if not images:
        return
    odd = [name for name, sides in images.items() if any(side & (side - 1) for side in sides)]
    yield checked(
        "power-of-two",
        len(odd),
        "no side that is not a power of two",
        not odd,
        "resize to 512, 1024 or 2048; other sizes are rescaled at import, or not compressed and mipmapped",
        where=odd,
    )
    oblong = [name for name, (width, height) in images.items() if width != height]
    yield checked(
        "square-textures",
        len(oblong),
        "no texture that is not square",
        not oblong,
        "resize to a square; texel densities along u and v differ, and some compressors need squares",
        where=oblong,
    )
    largest = max(max(sides) for sides in images.values())
    limit = subject.engine.max_texture_size
    yield checked(
        "texture-size",
        largest,
        f"at most {limit} pixels",
        largest <= limit,
        f"resize to {limit} pixels",
        severity="error",
        where=[name for name, sides in images.items() if max(sides) > limit],
    )
    small = [name for name, sides in images.items() if max(sides) < SMALLEST]
    yield checked(
        "small-textures",
        len(small),
        f"no texture below {SMALLEST} pixels",
        not small,
        "replace the texture by a factor of the material",
        where=small,
    )


def copies(subject: Subject) -> Iterator[Finding]:
    """Images that are stored twice."""
    if len(subject.file.images) < 2:
        return
    seen: set[bytes] = set()
    twice: list[str] = []
    for index, image in enumerate(subject.file.images):
        digest = hashlib.sha256(image.data).digest()
        if image.data and digest in seen:
            twice.append(_name(subject, index))
        seen.add(digest)
    yield checked(
        "duplicate-images",
        len(twice),
        "no image stored twice",
        not twice,
        "let the materials share one image",
        where=twice,
    )


def _name(subject: Subject, index: int) -> str:
    return subject.file.images[index].name or f"image {index}"


CHECKS = (readable, sizes, copies)
