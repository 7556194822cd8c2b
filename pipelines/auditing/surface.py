"""The drawn triangles of an asset as one surface, whose corners at one position are one point."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from steindreamer.representations.mesh.formats.orientation import inward_faces

from .reading.asset_file import Part
from .rows import distinct_rows

_WELD = 1e-6
"""Distance, as a fraction of the diagonal, below which two points of an object are one."""
_NO_AREA = 1e-12
"""Area, as a fraction of the squared diagonal, below which a triangle is degenerate."""


@dataclass(frozen=True, eq=False)
class Surface:
    """The triangles of several parts, in the scene. Triangles with a corner that is not finite are left out."""

    parts: tuple[Part, ...]
    points: Float[np.ndarray, "n 3"]
    """Distinct positions; those of different objects are different points."""
    faces: Int[np.ndarray, "f 3"]
    """Points of each triangle, wound as drawn."""
    part: Int[np.ndarray, " f"]
    """Index of the part of each triangle, ascending."""
    corners: Int[np.ndarray, "f 3"]
    """Vertices of each triangle in its part, in the order of `faces`."""

    @classmethod
    def join(cls, parts: tuple[Part, ...]) -> Surface:
        """Weld the parts, each object separately."""
        finite = [np.isfinite(part.vertices[part.outward]).all((1, 2)) for part in parts]
        corners = [part.outward[kept] for part, kept in zip(parts, finite, strict=True)]
        vertices = [np.nan_to_num(part.vertices, nan=0.0, posinf=0.0, neginf=0.0) for part in parts]
        start = np.cumsum([0, *map(len, vertices)])
        faces = [corner + first for corner, first in zip(corners, start, strict=False)]
        all_vertices, all_faces = np.concatenate(vertices), np.concatenate(faces)
        used = all_vertices[all_faces.reshape(-1)]
        low = used.min(0) if len(used) else np.zeros(3)
        grid = _WELD * max(float(np.linalg.norm(np.ptp(used, axis=0))) if len(used) else 0.0, 1e-30)
        instance = np.repeat([part.instance for part in parts], [len(each) for each in vertices])
        # Far points of unused vertices are clipped: they weld with nothing that is drawn.
        cells = np.clip(np.round((all_vertices - low) / grid), -(2.0**40), 2.0**40).astype(np.int64)
        first, joined = distinct_rows(np.column_stack([instance, cells]))
        return cls(
            parts,
            all_vertices[first],
            joined[all_faces],
            np.repeat(np.arange(len(parts)), [len(each) for each in faces]),
            np.concatenate(corners),
        )

    @cached_property
    def triangles(self) -> Float[np.ndarray, "f 3 3"]:
        """Positions of the corners."""
        return self.points[self.faces]

    @cached_property
    def bounds(self) -> Float[np.ndarray, "2 3"]:
        """Lowest and highest coordinates."""
        used = self.triangles.reshape(-1, 3)
        return np.stack([used.min(0), used.max(0)]) if len(used) else np.zeros((2, 3))

    @cached_property
    def diagonal(self) -> float:
        """Length of the bounding box's diagonal."""
        return float(np.linalg.norm(self.bounds[1] - self.bounds[0]))

    @cached_property
    def crosses(self) -> Float[np.ndarray, "f 3"]:
        """Face normals whose length is twice the area."""
        a, b, c = self.triangles.transpose(1, 0, 2)
        return np.cross(b - a, c - a)

    @cached_property
    def areas(self) -> Float[np.ndarray, " f"]:
        """Areas of the triangles."""
        return 0.5 * np.linalg.norm(self.crosses, axis=1)

    @cached_property
    def collapsed(self) -> Bool[np.ndarray, " f"]:
        """Triangles with two corners at one point."""
        a, b, c = self.faces.T
        return (a == b) | (b == c) | (c == a)

    @cached_property
    def degenerate(self) -> Bool[np.ndarray, " f"]:
        """Triangles without an area."""
        return self.collapsed | (self.areas <= _NO_AREA * self.diagonal**2)

    @cached_property
    def edges(self) -> Edges:
        """The edges of all triangles that are not collapsed."""
        return Edges.of(self.faces, ~self.collapsed, len(self.points))

    @cached_property
    def components(self) -> Int[np.ndarray, " f"]:
        """Index of the connected component of each triangle."""
        a, b, c = self.faces.T
        links = np.concatenate([np.stack([a, b], 1), np.stack([b, c], 1)])
        graph = coo_matrix((np.ones(len(links), bool), (links[:, 0], links[:, 1])), (len(self.points),) * 2)
        return np.unique(connected_components(graph, directed=False)[1][a], return_inverse=True)[1]

    @cached_property
    def inverted(self) -> Bool[np.ndarray, " f"]:
        """Triangles of closed components that are inside out."""
        solid = ~self.collapsed
        out = np.zeros(len(self.faces), bool)
        if not solid.any():
            return out
        a, b, c = (self.triangles[:, k] - self.points.mean(0) for k in range(3))
        volumes = np.bincount(self.components, np.einsum("fc,fc->f", a, np.cross(b, c)))
        is_open = np.bincount(self.components, self.edges.open_faces) > 0
        if not ((volumes < 0) & ~is_open).any():
            return out
        if (is_open | (volumes < 0)).all():
            return (~is_open)[self.components]
        out[solid] = inward_faces(self.points, self.faces[solid])
        return out

    def rows(self, part: int) -> slice:
        """The triangles of a part."""
        return slice(*np.searchsorted(self.part, (part, part + 1)).tolist())

    def names(self, faces: Bool[np.ndarray, " f"]) -> list[str]:
        """Names of the objects with any of these triangles."""
        return [self.parts[index].label for index in np.unique(self.part[faces])]


@dataclass(frozen=True, eq=False)
class Edges:
    """The edges of a surface, by how many triangles share them."""

    open_faces: Bool[np.ndarray, " f"]
    """Triangles with an edge that no other triangle shares."""
    crowded_faces: Bool[np.ndarray, " f"]
    """Triangles with an edge of more than two triangles."""
    opposed_faces: Bool[np.ndarray, " f"]
    """Triangles with an edge that another triangle runs along in the same direction."""
    open: int
    """Number of edges of one triangle."""
    crowded: int
    """Number of edges of more than two triangles."""
    opposed: int
    """Number of edges of two triangles with opposite windings."""

    @classmethod
    def of(cls, faces: Int[np.ndarray, "f 3"], kept: Bool[np.ndarray, " f"], points: int) -> Edges:
        """The edges of the kept triangles; the others have none."""
        chosen = faces[kept]
        start, end = chosen.reshape(-1), np.roll(chosen, -1, axis=1).reshape(-1)
        low, high = np.minimum(start, end), np.maximum(start, end)
        _, edge, count = np.unique(low * points + high, return_inverse=True, return_counts=True)
        forward = np.bincount(edge, start < end, minlength=len(count))
        opposed = (count == 2) & (forward != 1)

        def touched(edges: np.ndarray) -> np.ndarray:
            out = np.zeros(len(faces), bool)
            out[kept] = edges[edge].reshape(-1, 3).any(1)
            return out

        return cls(
            touched(count == 1),
            touched(count > 2),
            touched(opposed),
            int((count == 1).sum()),
            int((count > 2).sum()),
            int(opposed.sum()),
        )
