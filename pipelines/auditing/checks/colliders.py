"""Checks of the colliders: present, convex and simple, around the asset."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from ..finding import Finding, checked, stated
from ..reading.asset_file import Part
from ..reading.beside import parts_beside
from ..reading.roles import generates_collider
from ..subject import Subject

MOST_HULLS = 16
"""Hulls of one prop."""
MOST_VERTICES = 32
"""Vertices of a hull (PhysX's GPU hulls have at most 64; Unity's convex colliders 255 triangles)."""
CONVEX = 0.02
"""Distance of a vertex inside the hull, relative to the hull's size, up to which a part counts as convex."""
AROUND = 0.1
"""Difference of the colliders' bounding box from the asset's, as a fraction of its diagonal."""
REMEDIES = {
    "ucx": "add convex hulls as nodes UCX_X_00, UCX_X_01",
    "convcolonly": "add convex hulls as nodes X_00-convcolonly",
    "file": "add convex hulls in a file X_collider beside this one",
    "none": "",
}


def colliders(subject: Subject) -> Iterator[Finding]:
    """Convex hulls, in this file or in a file beside it."""
    file, engine = subject.file, subject.engine
    hulls = [part for part in file.parts if part.collider] or list(parts_beside(file.path, "collider"))
    if not hulls and any(node.collides or generates_collider(node.name) for node in file.nodes):
        yield stated(
            "collider", "made at import", "from an extension or the suffix of a name; its shape is not checked"
        )
        return
    if not hulls:
        if engine.collider == "none":
            yield stated("collider", "none", f"{engine.title} needs none")
            return
        yield checked("collider", "none", "one, of convex hulls", False, REMEDIES[engine.collider])
        return
    vertices = [len(np.unique(hull.vertices[hull.faces.reshape(-1)], axis=0)) for hull in hulls]
    yield checked(
        "collider",
        f"{len(hulls)} hulls, at most {max(vertices)} vertices",
        f"at most {MOST_HULLS} hulls of {MOST_VERTICES} vertices",
        len(hulls) <= MOST_HULLS and max(vertices) <= MOST_VERTICES,
        "simplify the colliders; physics costs more than drawing",
        where=[hull.label for hull, count in zip(hulls, vertices, strict=True) if count > MOST_VERTICES],
    )
    hollow = [hull.label for hull in hulls if not _convex(hull)]
    yield checked(
        "convex-collider",
        len(hollow),
        "no part that is not convex",
        not hollow,
        "decompose the collider into convex hulls; engines take the hull of each part",
        severity="error",
        where=hollow,
    )
    bounds = _bounds(hulls)
    away = float(np.abs(bounds - subject.surface.bounds).max() / max(subject.surface.diagonal, 1e-300))
    yield checked(
        "collider-fit",
        round(away, 4),
        f"bounding box within {AROUND:.0%} of the diagonal",
        away <= AROUND,
        "compute the collider from this mesh, in its coordinates",
    )


def _bounds(parts: list[Part]) -> np.ndarray:
    used = np.concatenate([part.vertices[part.faces.reshape(-1)] for part in parts])
    used = used[np.isfinite(used).all(1)]
    return np.stack([used.min(0), used.max(0)]) if len(used) else np.zeros((2, 3))


def _convex(part: Part) -> bool:
    """Whether all vertices are on the part's convex hull."""
    points = np.unique(part.vertices[part.faces.reshape(-1)], axis=0)
    extent = float(np.ptp(points, axis=0).max(initial=0))
    if not np.isfinite(points).all() or extent <= 0:
        return False
    try:
        hull = ConvexHull((points - points.mean(0)) / extent)
    except QhullError:  # a flat part
        return False
    # Distance below the nearest face of the hull; 0 on the hull.
    depth = -(hull.points @ hull.equations[:, :3].T + hull.equations[:, 3]).max(1)
    return bool(depth.max() <= CONVEX)


CHECKS = (colliders,)
