"""Checks of the texture coordinates: present, inside the texture, without overlaps, evenly dense, separated."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from steindreamer.representations.mesh.painted import REPEAT

from ..atlas import Atlas, atlas_of
from ..finding import Finding, checked, stated
from ..subject import Subject

OVERLAP = 0.002
"""Largest fraction of the covered texels that several triangles cover, beyond folds of single texels."""
NO_AREA = 1e-12
"""Area in the unit square below which a triangle has none."""
STRETCHED = 0.001
"""Largest fraction of triangles without an area in the texture."""
MIRRORED = 0.01
"""Largest fraction of the covered texture that is mirrored; slivers fold over at the borders of charts."""
SPREAD = 4.0
"""Largest ratio of texel densities, 95th to 5th percentile of the area: two mipmap levels."""
GUTTER = 2.0
"""Fewest empty texels between charts, which one mipmap level keeps apart."""
LIGHTMAP_SET = 1
"""Texture coordinate set of lightmaps: Unity's Mesh.uv2, Godot's UV2, Unreal's light map coordinate index."""


def present(subject: Subject) -> Iterator[Finding]:
    """Texture coordinates of every part."""
    file = subject.file
    if subject.printed:
        yield stated("uvs", "not needed", "printing uses no textures")
        return
    needed = {index: {use.uv_set for use in file.materials[index].textures.values()} for index in file.used_materials}
    textured = [part for part in file.surfaces if not needed.get(part.material, set()) <= part.uvs.keys()]
    lacking = textured or [part for part in file.surfaces if not part.uvs]
    yield checked(
        "uvs",
        len(lacking),
        "no part without texture coordinates",
        not lacking,
        "unwrap the mesh; textures, normal maps and lightmaps need texture coordinates",
        severity="error" if textured else "warning",
        where=[part.label for part in lacking],
    )


def layout(subject: Subject) -> Iterator[Finding]:
    """Range, overlaps and orientation in the texture."""
    if not subject.atlases:
        return
    tiled = [atlas for atlas in subject.atlases if atlas.outside and _tiles(subject, atlas)]
    packed = [atlas for atlas in subject.atlases if atlas not in tiled]
    for atlas in tiled:
        yield stated("uv-range", f"{atlas.name} is tiled", "its texture repeats; overlaps are intended")
    if not packed:
        return
    outside = {atlas.name: atlas.outside for atlas in packed if atlas.outside}
    yield checked(
        "uv-range",
        sum(outside.values()),
        "no triangle of an atlas outside [0, 1]",
        not outside,
        "move the charts into the unit square; beyond it the texture is clamped, or its baked maps repeat",
        severity="error",
        where=outside,
    )
    overlap = {atlas.name: atlas.overlap for atlas in packed}
    yield checked(
        "uv-overlap",
        round(max(overlap.values()), 4),
        f"at most {OVERLAP:.1%} of the covered texels",
        max(overlap.values()) <= OVERLAP,
        "unwrap again; overlapping charts share baked normals, occlusion and light",
        severity="error" if any(_baked(subject, atlas) for atlas in packed) else "warning",
        where=[name for name, value in overlap.items() if value > OVERLAP],
    )
    flat = {atlas.name: int(_stretched(subject, atlas).sum()) for atlas in packed}
    triangles = sum(len(atlas.faces) for atlas in packed)
    yield checked(
        "uv-area",
        sum(flat.values()),
        f"at most {STRETCHED:.1%} of the triangles without an area in the texture",
        sum(flat.values()) <= STRETCHED * triangles,
        "unwrap these faces; each shows one texel or a line of texels",
        where=[name for name, value in flat.items() if value],
    )
    mirrored = {atlas.name: _mirrored(atlas) for atlas in packed}
    yield checked(
        "uv-mirrored",
        round(max(mirrored.values()), 4),
        f"at most {MIRRORED:.0%} of the covered texture",
        max(mirrored.values()) <= MIRRORED,
        "flip these charts; text is mirrored, and normal maps without tangents are inverted",
        where=[name for name, value in mirrored.items() if value > MIRRORED],
    )


def _mirrored(atlas: Atlas) -> float:
    """Fraction of the area in the texture that is mirrored."""
    areas = np.abs(atlas.signed_areas)
    return float(areas[atlas.signed_areas < 0].sum() / max(float(areas.sum()), 1e-300))


def _tiles(subject: Subject, atlas: Atlas) -> bool:
    """Whether all textures of the material repeat, and none is baked for its place."""
    uses = subject.file.materials[atlas.material].textures if atlas.material >= 0 else {}
    return bool(uses) and not _baked(subject, atlas) and all(use.wrap == (REPEAT, REPEAT) for use in uses.values())


def _baked(subject: Subject, atlas: Atlas) -> bool:
    return atlas.material >= 0 and "occlusion" in subject.file.materials[atlas.material].textures


def _stretched(subject: Subject, atlas: Atlas) -> np.ndarray:
    return (np.abs(atlas.signed_areas) < NO_AREA) & ~subject.surface.degenerate[atlas.faces]


def density(subject: Subject) -> Iterator[Finding]:
    """Texels per meter."""
    if not subject.atlases:
        return
    values = np.concatenate([atlas.texel_density for atlas in subject.atlases]) / subject.unit
    weights = np.concatenate([atlas.areas for atlas in subject.atlases])
    known = (weights > 0) & (values > 0)
    if not known.any():
        return
    low, middle, high = _percentiles(values[known], weights[known], (0.05, 0.5, 0.95))
    yield stated("texel-density", f"{middle:.0f} px/m")
    yield checked(
        "texel-density-spread",
        round(high / low, 2),
        f"at most {SPREAD:g} between the 5th and the 95th percentile",
        high / low <= SPREAD,
        "scale the charts to one texel density; sharp and blurred areas stand side by side",
        where=[atlas.name for atlas in subject.atlases],
    )


def _percentiles(values: np.ndarray, weights: np.ndarray, fractions: tuple[float, ...]) -> list[float]:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    places = np.searchsorted(total, np.array(fractions) * total[-1])
    return [float(values[order][min(place, len(order) - 1)]) for place in places]


def gutters(subject: Subject) -> Iterator[Finding]:
    """Empty texels between charts."""
    # Charts that overlap are reported as such.
    packed = [atlas for atlas in subject.atlases if not atlas.outside and atlas.overlap <= OVERLAP]
    if not packed:
        return
    gaps = {atlas.name: atlas.gutter for atlas in packed}
    smallest = min(gaps.values())
    if smallest == np.inf:
        yield stated("uv-gutter", "one chart")
        return
    yield checked(
        "uv-gutter",
        round(smallest, 1),
        f"at least {GUTTER:g} texels between charts",
        smallest >= GUTTER,
        "pack with more padding; colors of neighboring charts bleed over in mipmaps",
        where=[name for name, gap in gaps.items() if gap < GUTTER],
    )


def lightmap(subject: Subject) -> Iterator[Finding]:
    """The second set, for lightmaps: unique and inside the unit square."""
    parts = [index for index, part in enumerate(subject.surface.parts) if LIGHTMAP_SET in part.uvs]
    lacking = len(subject.surface.parts) - len(parts)
    if lacking:
        if not subject.engine.lightmap:
            yield stated("lightmap-uvs", "none", f"{subject.engine.title} needs none")
            return
        yield checked(
            "lightmap-uvs",
            lacking,
            "no part without a second texture coordinate set",
            False,
            "add a second set without overlaps, or let the engine generate one at import",
            where=[part.label for part in subject.surface.parts if LIGHTMAP_SET not in part.uvs],
        )
        return
    for atlas in atlas_of(subject.surface, parts, LIGHTMAP_SET, (1024, 1024)):
        valid = atlas.outside == 0 and atlas.overlap <= OVERLAP
        value = f"{atlas.outside} triangles outside, {atlas.overlap:.1%} overlap"
        yield checked(
            "lightmap-uvs",
            value,
            f"inside [0, 1], at most {OVERLAP:.1%} overlap",
            valid,
            "unwrap the second set uniquely; baked light would be shared",
            severity="error",
            where=[part.label for part in subject.surface.parts],
        )


CHECKS = (present, layout, density, gutters, lightmap)
