"""Checks against the budgets of the engine: triangles, draw calls, memory, file size; and data that nothing uses."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..finding import Finding, checked, stated
from ..reading.asset_file import ImageFile, Part
from ..subject import Subject

MIPMAPS = 4 / 3
"""Memory of a texture with its mipmaps, relative to the texture."""
TEXEL_BYTES = 4
"""Memory of an uncompressed texel."""
TEXTURES = 3
"""Textures of the largest size that the memory budget holds: base color, normal, packed."""
WASTED_VERTICES = 0.01
"""Largest fraction of vertices that no triangle uses."""


def formats(subject: Subject) -> Iterator[Finding]:
    """File format and required extensions."""
    file, engine = subject.file, subject.engine
    if engine.formats:
        yield checked(
            "format",
            file.format,
            " or ".join(engine.formats),
            file.format in engine.formats,
            f"export as {engine.formats[0]}",
            severity="error",
        )
    known = engine.extensions
    if known is not None:
        unread = [name for name in file.required if not name.startswith(known)]
        yield checked(
            "extensions",
            len(unread),
            "no required extension that the importer does not read",
            not unread,
            f"export without these extensions for {engine.title}",
            severity="error",
            where=unread,
        )


def triangles(subject: Subject) -> Iterator[Finding]:
    """Triangles of the most detailed level."""
    count = sum(len(part.faces) for part in subject.file.surfaces)
    limit = subject.engine.max_triangles
    yield checked(
        "triangles",
        count,
        f"at most {limit:,}",
        count <= limit,
        "reduce the mesh and bake the detail into a normal map",
        severity="error",
        where=[part.label for part in sorted(subject.file.surfaces, key=lambda part: -len(part.faces))],
    )


def draws(subject: Subject) -> Iterator[Finding]:
    """Materials and draw calls."""
    file, limit = subject.file, subject.engine.max_materials
    yield checked(
        "material-count",
        len(file.used_materials),
        f"at most {limit}",
        len(file.used_materials) <= limit,
        "merge materials into one atlas",
        where=[file.materials[index].name for index in file.used_materials],
    )
    calls = len(file.surfaces)
    yield checked(
        "draw-calls",
        calls,
        f"at most {limit}",
        calls <= limit,
        "join objects that have one material and never move apart",
        where=[part.label for part in file.surfaces],
    )


def memory(subject: Subject) -> Iterator[Finding]:
    """Memory on the GPU, and size of the file."""
    file, engine = subject.file, subject.engine
    textures = sum(_texture_bytes(image) for image in file.images)
    meshes = sum(_mesh_bytes(part) for part in file.parts)
    limit = TEXTURES * TEXEL_BYTES * MIPMAPS * engine.max_texture_size**2
    yield checked(
        "gpu-memory",
        f"{(textures + meshes) / 1e6:.1f} MB ({textures / 1e6:.1f} MB textures, uncompressed with mipmaps)",
        f"at most {limit / 1e6:.0f} MB",
        textures + meshes <= limit,
        "use fewer or smaller textures, or compress them for the GPU (KTX2)",
        where=[image.name for image in sorted(file.images, key=_texture_bytes, reverse=True)],
    )
    yield checked(
        "file-size",
        f"{file.file_bytes / 1e6:.2f} MB",
        f"at most {engine.max_file_bytes / 1e6:.1f} MB",
        file.file_bytes <= engine.max_file_bytes,
        "store textures as JPEG or WebP, reduce their size, or compress the geometry",
        severity="error",
        where=[image.name for image in sorted(file.images, key=lambda image: -len(image.data))],
    )


def _texture_bytes(image: ImageFile) -> float:
    return image.header[1] * image.header[2] * TEXEL_BYTES * MIPMAPS


def _mesh_bytes(part: Part) -> int:
    width = 12 + 12 * (part.normals is not None) + 16 * (part.tangents is not None) + 8 * len(part.uvs)
    width += 16 * (part.colors is not None)
    index = 2 if len(part.positions) < 65_535 else 4
    return len(part.positions) * width + part.faces.size * index


def waste(subject: Subject) -> Iterator[Finding]:
    """Data that nothing uses."""
    file = subject.file
    yield checked(
        "unused-data",
        len(file.unused),
        "nothing that the scene does not use",
        not file.unused,
        "delete unused data (gltf-transform prune); it is loaded all the same",
        where=file.unused,
    )
    if file.format in ("stl", "obj"):  # their vertices are made from the corners of triangles
        return
    lost = {part.label: len(part.positions) - _used(part) for part in file.parts}
    total = sum(len(part.positions) for part in file.parts)
    yield checked(
        "unused-vertices",
        sum(lost.values()),
        f"at most {WASTED_VERTICES:.0%} of the vertices",
        sum(lost.values()) <= WASTED_VERTICES * total,
        "remove loose vertices",
        where=[name for name, count in lost.items() if count],
    )
    shared = total / max(sum(len(part.faces) for part in file.parts), 1)
    yield stated("vertices-per-triangle", round(shared, 2), "3 means that no vertex is shared")


def _used(part: Part) -> int:
    used = np.zeros(len(part.positions), bool)
    used[part.faces.reshape(-1)] = True
    return int(used.sum())


CHECKS = (formats, triangles, draws, memory, waste)
