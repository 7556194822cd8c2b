"""Checks of the triangles: closed, oriented, without waste, with valid normals and tangents."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..finding import Finding, checked, stated
from ..reading.asset_file import Part
from ..rows import distinct_rows
from ..subject import Subject

UNIT = 0.01
"""Largest difference of a normal's length from 1; the glTF validator accepts 0.00674 for 8-bit normals."""
AGAINST = 0.02
"""Fraction of corners whose normal may point away from the triangle's outer side, as at folds of smooth normals."""
RIGHT_ANGLE = 0.1
"""Largest cosine between a tangent and its normal."""


def finite(subject: Subject) -> Iterator[Finding]:
    """NaN and infinite numbers."""
    bad = [part for part in subject.file.parts if _not_finite(part)]
    count = sum(_not_finite(part) for part in bad)
    yield checked(
        "finite",
        count,
        "no value that is NaN or infinite",
        count == 0,
        "find the operation that divides by zero (often a normal of a degenerate triangle), and export again",
        severity="error",
        where=[part.label for part in bad],
    )


def _not_finite(part: Part) -> int:
    arrays = [part.positions, part.normals, part.tangents, part.colors, *part.uvs.values()]
    return sum(int((~np.isfinite(array)).any(1).sum()) for array in arrays if array is not None)


def triangles(subject: Subject) -> Iterator[Finding]:
    """Degenerate and duplicate triangles."""
    surface = subject.surface
    yield checked(
        "degenerate-faces",
        int(surface.degenerate.sum()),
        "none without an area",
        not surface.degenerate.any(),
        "merge vertices by distance and dissolve degenerate faces; they break tangents and tessellation",
        where=surface.names(surface.degenerate),
    )
    copies = np.ones(len(surface.faces), bool)
    copies[distinct_rows(np.sort(surface.faces, axis=1))[0]] = False
    copies &= ~surface.collapsed
    yield checked(
        "duplicate-faces",
        int(copies.sum()),
        "none at the same three points",
        not copies.any(),
        "delete duplicate faces; they flicker and cost twice. Back sides belong to a double-sided material",
        where=surface.names(copies),
    )


def topology(subject: Subject) -> Iterator[Finding]:
    """Edges of a closed, oriented surface: every edge is shared by two triangles of the same winding."""
    surface, edges = subject.surface, subject.surface.edges
    strict = "error" if subject.printed else "warning"
    yield checked(
        "manifold",
        edges.crowded,
        "no edge of more than two triangles",
        edges.crowded == 0,
        "split or delete the extra faces (inner walls, overlapping parts)",
        severity=strict,
        where=surface.names(edges.crowded_faces),
    )
    yield checked(
        "watertight",
        edges.open,
        "no open edge",
        edges.open == 0,
        "fill the holes, or give open sheets a double-sided material",
        severity=strict,
        where=surface.names(edges.open_faces),
    )
    yield checked(
        "winding",
        edges.opposed,
        "no neighbors of opposite winding",
        edges.opposed == 0,
        "recalculate the normals to the outside; single-sided materials show holes there",
        severity="error",
        where=surface.names(edges.opposed_faces),
    )
    yield checked(
        "inside-out",
        int(surface.inverted.sum()),
        "no closed part with faces to the inside",
        not surface.inverted.any(),
        "flip these faces; single-sided materials show the inner wall instead",
        severity="error",
        where=surface.names(surface.inverted),
    )


def normals(subject: Subject) -> Iterator[Finding]:
    """Vertex normals."""
    if subject.file.format in ("stl", "ply") or subject.printed:
        yield stated("normals", "not used", "the reader computes normals from the triangles")
        return
    parts = subject.file.surfaces
    lacking = [part.label for part in parts if part.normals is None]
    yield checked(
        "normals",
        len(lacking),
        "no part without vertex normals",
        not lacking,
        "export vertex normals; without them a glTF viewer must shade flat",
        where=lacking,
    )
    wrong = [(part, _not_unit(part.normals)) for part in parts if part.normals is not None]
    count = sum(number for _, number in wrong)
    yield checked(
        "unit-normals",
        count,
        f"no normal whose length differs from 1 by more than {UNIT}",
        count == 0,
        "normalize the normals",
        severity="error",
        where=[part.label for part, number in wrong if number],
    )
    against = _against(subject)
    yield checked(
        "normal-direction",
        against,
        f"at most {AGAINST:.0%} of the corners against their triangle",
        against <= AGAINST,
        "recalculate the normals; the light comes from the wrong side",
        where=lacking,
    )


def _not_unit(directions: np.ndarray) -> int:
    length = np.linalg.norm(directions, axis=1)
    return int((np.abs(length - 1) > UNIT).sum())


def _against(subject: Subject) -> float:
    """Fraction of the corners, by area, whose normal is on the inner side of the triangle."""
    surface, total, wrong = subject.surface, 0.0, 0.0
    for index, part in enumerate(surface.parts):
        directions = part.directions
        if directions is None:
            continue
        rows = surface.rows(index)
        cosine = np.einsum("fkc,fc->fk", directions[surface.corners[rows]], surface.crosses[rows])
        weights = np.where(surface.degenerate[rows], 0.0, surface.areas[rows])
        total += 3 * float(weights.sum())
        wrong += float((weights[:, None] * (cosine < 0)).sum())
    return wrong / total if total else 0.0


def tangents(subject: Subject) -> Iterator[Finding]:
    """Tangents of surfaces with a normal map."""
    file = subject.file
    mapped = [
        part for part in file.surfaces if part.material >= 0 and "normal" in file.materials[part.material].textures
    ]
    if not mapped or not file.materials[mapped[0].material].physical:
        yield stated("tangents", "not needed", "no glTF material has a normal map")
        return
    lacking = [part.label for part in mapped if part.tangents is None]
    yield checked(
        "tangents",
        len(lacking),
        "no part with a normal map and without tangents",
        not lacking,
        "export tangents, or bake the normal map for MikkTSpace, which readers then compute",
        where=lacking,
    )
    wrong = [(part, _wrong_tangents(part)) for part in mapped if part.tangents is not None]
    count = sum(number for _, number in wrong)
    yield checked(
        "tangent-frame",
        count,
        "unit tangents, orthogonal to the normals, with w = 1 or -1",
        count == 0,
        "compute the tangents after the final normals (MikkTSpace)",
        severity="error",
        where=[part.label for part, number in wrong if number],
    )


def _wrong_tangents(part: Part) -> int:
    assert part.tangents is not None
    along, sign = part.tangents[:, :3], part.tangents[:, 3]
    wrong = (np.abs(np.linalg.norm(along, axis=1) - 1) > UNIT) | (np.abs(np.abs(sign) - 1) > UNIT)
    if part.normals is not None:
        wrong |= np.abs((along * part.normals).sum(1)) > RIGHT_ANGLE
    return int(wrong.sum())


CHECKS = (finite, triangles, topology, normals, tangents)
