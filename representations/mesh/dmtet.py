"""A closed surface of any topology on a tetrahedral grid [Shen et al. 2021, DMTet], colored by a field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Interval
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from ..base import FieldSample, RenderOutput, Representation, SceneContext
from ..cameras import Cameras
from ..deferred_terms import DeferredTerms
from ..fields import ColorField, ColorFieldConfig
from ..ops import exponential_decay
from ..triangle_mesh import TriangleMesh
from .file import read_fitted_mesh
from .rasterization.dispatch import Backend
from .regularizers import edge_normal_consistency, laplacian, robust_normal_consistency
from .render import draw_mesh
from .sampling import sample_surface
from .signed_distance import signed_distance
from .smooth_normals import smooth_normals
from .tetrahedra import SurfaceBand, TetrahedralGrid, crossing_edges, zero_crossings
from .tetrahedra.conversion import fit_colors, nodes_on_surface
from .tetrahedra.grid import interpolate_lattice

REACH = 0.5
"""Maximum displacement of a node along every axis, in cells; every point can be reached by its nearest node."""
COARSENING = 4
"""Spacing of the coarse lattice of signed distances, in cells."""
_CHECKED_POINTS = 4096


@dataclass
class DmtetConfig:
    """Deformable mesh (DMTet): grid, initialization and learning rates."""

    resolution: Annotated[int, Interval(ge=4, le=256)] = 48
    """Number of nodes per axis of each of the grid's two lattices; the grid has 2 resolution^3 nodes."""
    extent: Annotated[float, Interval(gt=0, le=100)] = 1.05
    """Half the side of the grid's cube, in meters. The border nodes stay outside the surface, so 1 would cut the unit
    ball."""
    radius: Annotated[float, Interval(gt=0, le=100)] = 0.6
    """Radius in meters of the initial sphere."""
    bumps: Annotated[float, Interval(ge=0, le=10)] = 0.05
    """Approximate height in meters of random bumps on the initial sphere; 0: none. Images move a surface mainly at
    silhouettes; bumps create silhouettes everywhere, so that holes open sooner."""
    initial_mesh: str = ""
    """Mesh file (.glb, .gltf, .obj, .ply, .stl, .off) to start from, closed and +Y up; empty: start from the sphere. It
    is fitted into the unit ball, and the exported asset has the position and size of the file."""
    initial_yaw: Annotated[float, Interval(ge=-360, le=360)] = 0.0
    """Rotation of `initial_mesh` in degrees about +Y, from +Z toward +X, that brings its front to +Z."""
    backend: Backend = "auto"
    """Rasterization backend; see `rasterization.draw`."""
    sdf_rate: Annotated[float, Interval(ge=0, le=100)] = 1e-3
    """Adam learning rate of the signed distances (meters) at the start of a stage; it decays exponentially to
    `sdf_rate_end`."""
    sdf_rate_end: Annotated[float, Interval(ge=0, le=100)] = 3e-4
    """Adam learning rate of the signed distances at the end of a stage."""
    coarse_sdf_rate: Annotated[float, Interval(ge=0, le=100)] = 2e-2
    """Adam learning rate at the start of a stage of the coarse part of the signed distances, which opens holes and
    moves large parts of the surface; it decays exponentially to `coarse_sdf_rate_end`."""
    coarse_sdf_rate_end: Annotated[float, Interval(ge=0, le=100)] = 2e-3
    """Adam learning rate of the coarse part of the signed distances at the end of a stage."""
    deformation_rate: Annotated[float, Interval(ge=0, le=100)] = 2e-3
    """Adam learning rate of the displacements of the nodes, in units of half a cell."""
    color: ColorFieldConfig = field(default_factory=ColorFieldConfig)
    """Settings of the color field."""

    def build(self, generator: torch.Generator, device: torch.device | str = "cpu") -> DmtetMesh:
        """Create the scene.

        Args:
            generator: Source of the initial bumps and parameters.
            device: Device of the parameters.

        Raises:
            ValueError: A setting is out of range, or `initial_mesh` is broken.
            OSError: `initial_mesh` cannot be read.

        Example:
            >>> scene = DmtetConfig(resolution=32).build(torch.Generator().manual_seed(0))
        """
        if self.initial_mesh:
            return self._build_from_file(generator, device)
        if self.initial_yaw:
            raise ValueError(f"initial_yaw is {self.initial_yaw}, but needs an initial_mesh to rotate; set it or use 0")
        if self.radius <= 0 or self.bumps < 0:
            raise ValueError(f"need radius > 0 and bumps >= 0, got {self.radius} and {self.bumps}")
        grid = TetrahedralGrid(self.resolution, self.extent)
        positions = grid.positions
        sdf = positions.norm(dim=1) - self.radius
        if self.bumps:
            sdf = sdf + self.bumps * _smooth_noise(positions, self.radius, generator)
        return DmtetMesh(positions, sdf, self, generator).to(device)

    def from_scene(self, scene: Representation, context: SceneContext) -> DmtetMesh:
        """The surface of another scene on the grid, with its colors. Raises ValueError if the scene is empty."""
        surface = context.surface(scene)
        return DmtetMesh.from_surface(surface.mesh, surface.color, self, context.generator, context.device)

    def blank(self, device: torch.device | str = "cpu") -> DmtetMesh:
        """A plain sphere on the same grid, to be tried or loaded over."""
        plain = replace(self, initial_mesh="", initial_yaw=0.0, radius=DmtetConfig.radius, bumps=0.0)
        return plain.build(torch.Generator().manual_seed(0), device)

    def _build_from_file(self, generator: torch.Generator, device: torch.device | str) -> DmtetMesh:
        mesh, placement = read_fitted_mesh(Path(self.initial_mesh), self.initial_yaw)
        try:
            scene = DmtetMesh.from_surface(mesh, None, self, generator, device)
        except ValueError as error:
            raise ValueError(f"{self.initial_mesh}: {error}") from None
        scene.placement = placement
        return scene


@dataclass(frozen=True)
class SurfaceFit:
    """Accuracy of `DmtetMesh.from_surface`: root mean square errors at random points that were not used for fitting."""

    distance: float
    """Distance in meters of points on the given surface from the new one."""
    color: float
    """Color error in sRGB, on and near the given surface."""


class DmtetMesh(Representation):
    """A closed surface given by signed distances and displacements of grid nodes, with a color field.

    It implements `base.Meshable` and `base.Queryable`. A surface that has vanished renders as the background and cannot
    recover, since only rendered surfaces get gradients.

    Args:
        positions: Initial node positions, within half a cell of those of the grid.
        sdf: Initial signed distances of the nodes in meters, negative inside.
        config: Settings.
        generator: Source of the initial color field.
    """

    render_terms = ("laplacian", "edge_normal_consistency", "robust_normal_consistency")

    def __init__(
        self,
        positions: Float[Tensor, "n 3"],
        sdf: Float[Tensor, " n"],
        config: DmtetConfig,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.config = config
        self.grid = TetrahedralGrid(config.resolution, config.extent)
        # The argument of atanh is bounded so that nodes at their limit still get a gradient.
        displacement = ((positions - self.grid.positions) / self._reach).clamp(-0.99, 0.99)
        self.sdf = nn.Parameter(sdf.clone())
        """Fine part of the signed distances in meters, negative inside; see `distances`."""
        self.coarse_sdf = nn.Parameter(torch.zeros((-(-config.resolution // COARSENING) + 2,) * 3).to(sdf))
        """Coarse part of the signed distances in meters, on a cubic lattice with a spacing of `COARSENING` cells."""
        self.deformation = nn.Parameter(displacement.atanh())
        """Unbounded displacements of the nodes; their tanh is the displacement in units of half a cell."""
        self.color = ColorField(config.color, config.extent, generator)
        self._band = SurfaceBand(self.grid)
        self.fit: SurfaceFit | None = None
        """Accuracy of the fit, set by `from_surface`."""

    @classmethod
    def from_surface(
        cls,
        mesh: TriangleMesh,
        color: Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n 3"]] | None,
        config: DmtetConfig,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> DmtetMesh:
        """Convert a mesh to the grid representation; `fit` of the result is its accuracy.

        Args:
            mesh: A closed mesh with outward winding; parts may overlap. Parts outside the grid are cut off.
            color: Maps points on the surface to sRGB; None: the colors of the mesh, or gray.
            config: Settings.
            generator: Source of random samples and of the initial color field.
            device: Device of the result.

        Raises:
            ValueError: The mesh encloses no volume.
        """
        grid = TetrahedralGrid(config.resolution, config.extent)
        positions, sdf = nodes_on_surface(mesh, grid, 0.99 * REACH * grid.cell, generator)
        out = cls(positions, sdf, config, generator).to(device)
        residual = fit_colors(out.color, mesh, color, 0.1 * grid.cell, generator)
        samples = sample_surface(mesh, _CHECKED_POINTS, generator)
        distance = signed_distance(samples.points, out.mesh())
        out.fit = SurfaceFit(float(distance.square().mean().sqrt()), residual)
        return out

    @property
    def _reach(self) -> float:
        """Maximum displacement of a node along every axis, in meters."""
        return REACH * self.grid.cell

    @property
    def positions(self) -> Float[Tensor, "n 3"]:
        """Positions of the nodes in meters."""
        return _nodes(self.grid, self.sdf.device)[0] + self._reach * self.deformation.tanh()

    @property
    def distances(self) -> Float[Tensor, " n"]:
        """Signed distances in meters, with the border of the grid kept outside, so that the surface is closed.

        They are a sum over two scales. Adam changes every parameter by about its learning rate, independent of the size
        of the gradient: at the node scale this causes roughness, at the coarse scale it moves the whole surface. (A
        torus optimized from a sphere by images: 1 cm error after 300 steps, 5 cm without the coarse scale.)
        """
        return self._with_border(self.sdf + self._coarse_distances())

    def surface(self) -> tuple[Float[Tensor, "v 3"], Int64[Tensor, "f 3"]]:
        """Vertices (meters) and faces of the surface; the vertices are differentiable."""
        coarse = self._coarse_distances()
        with torch.no_grad():
            inside = self._with_border(self.sdf + coarse) < 0
        ends, faces = self._band.topology(inside)
        # Only a hundredth of the nodes are next to the surface, so that the others take no part in the gradient.
        used = torch.zeros_like(inside)
        used[ends.reshape(-1)] = True
        nodes = used.nonzero()[:, 0]
        place = torch.empty(len(used), dtype=nodes.dtype, device=nodes.device)
        place[nodes] = torch.arange(len(nodes), device=nodes.device)
        base = _nodes(self.grid, self.sdf.device)[0].index_select(0, nodes)
        positions = base + self._reach * self.deformation.index_select(0, nodes).tanh()
        distances = self._with_border(self.sdf.index_select(0, nodes) + coarse.index_select(0, nodes), nodes)
        return zero_crossings(positions, distances, place[ends]), faces

    def _coarse_distances(self) -> Float[Tensor, " n"]:
        """Coarse part of the signed distances at the nodes."""
        return interpolate_lattice(_nodes(self.grid, self.sdf.device)[2], self.coarse_sdf).reshape(-1)

    def _with_border(self, sdf: Float[Tensor, " k"], nodes: Int64[Tensor, " k"] | None = None) -> Float[Tensor, " k"]:
        """Signed distances with those of the grid's border outside."""
        border = _nodes(self.grid, self.sdf.device)[1]
        border = border if nodes is None else border[nodes]
        return torch.where(border, sdf.clamp_min(0.1 * self.grid.cell), sdf)

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        """Render by rasterization; see `Representation.render`.

        `terms` has `laplacian`, `edge_normal_consistency` and `robust_normal_consistency` of `mesh.regularizers`, with
        lengths in cells.
        """
        vertices, faces = self.surface()
        normals = smooth_normals(vertices, faces)
        mesh = TriangleMesh(vertices, faces, normals)
        output = draw_mesh(mesh, cameras, background, color=self.color, backend=self.config.backend)
        if not torch.is_grad_enabled():
            return output
        terms = {
            "laplacian": partial(laplacian, vertices, faces, self.grid.cell),
            "edge_normal_consistency": partial(edge_normal_consistency, normals, faces),
            "robust_normal_consistency": partial(robust_normal_consistency, normals, faces),
        }
        return replace(output, terms=DeferredTerms(terms))

    def learning_rates(self, progress: float) -> dict[str, float]:
        config = self.config
        return {
            "sdf": exponential_decay(config.sdf_rate, config.sdf_rate_end, progress),
            "coarse_sdf": exponential_decay(config.coarse_sdf_rate, config.coarse_sdf_rate_end, progress),
            "deformation": config.deformation_rate,
            **self.color.learning_rates("color."),
        }

    def regularizers(self) -> dict[str, Float[Tensor, ""]]:
        """Regularizers on the signed distances, by name.

        eikonal    mean of (|gradient| - 1)^2 on the undeformed grid [Gropp et al. 2020]
        sdf_sign   binary cross-entropy (nats) of the values (in cells) at both ends of crossing edges with the sign of
                   the other end, against floaters and cavities [Munkberg et al. 2022, nvdiffrec, eq. 2]
        """
        distances = self.distances
        values = distances.reshape(self.grid.shape)
        inner = values[:, :-1, :-1, :-1]
        slopes = torch.stack(
            [
                values[:, 1:, :-1, :-1] - inner,
                values[:, :-1, 1:, :-1] - inner,
                values[:, :-1, :-1, 1:] - inner,
            ]
        )
        length = (slopes.square().sum(0) / self.grid.cell**2 + 1e-12).sqrt()
        _, ends = crossing_edges(distances.detach() < 0, self.grid)
        logits = distances.index_select(0, ends.reshape(-1)).reshape(-1, 2) / self.grid.cell
        sign = (logits.detach().flip(1) > 0).to(logits)
        entropy = F.binary_cross_entropy_with_logits(logits, sign, reduction="sum")
        return {"eikonal": (length - 1).square().mean(), "sdf_sign": entropy / max(len(ends), 1)}

    @torch.no_grad()
    def mesh(self) -> TriangleMesh:
        """The current surface on the CPU, with vertex colors; see `base.Meshable`."""
        vertices, faces = self.surface()
        colors = self.color(vertices)
        return TriangleMesh(vertices.cpu(), faces.cpu(), colors=colors.cpu())

    @torch.no_grad()
    def field(self, points: Float[Tensor, "n 3"]) -> FieldSample:
        """Density (1/2 on the surface, approaching 1 inside and 0 outside within a cell) and color at points."""
        values = torch.cat([self.distances[None], self._reach * self.deformation.tanh().T])
        # To first order, the undeformed position of a point is the point minus the displacement there.
        start = points - self._interpolate(values[1:], points)
        sdf = self._interpolate(values[:1], start)[:, 0]
        return FieldSample((-4 / self.grid.cell * sdf).sigmoid(), self.color(points))

    def _interpolate(self, values: Float[Tensor, "c n"], points: Float[Tensor, "m 3"]) -> Float[Tensor, "m c"]:
        """Mean of the trilinear interpolations in the two lattices of the undeformed grid."""
        side, cell = self.grid.resolution, self.grid.cell
        total = torch.zeros(len(points), len(values)).to(values)
        for lattice, nodes in enumerate(values.reshape(-1, *self.grid.shape).unbind(1)):
            where = (points + self.grid.extent) / cell - 0.5 * lattice
            # grid_sample expects z, y, x in [-1, 1].
            where = (2 * where / (side - 1) - 1).flip(1)[None, :, None, None]
            picked = F.grid_sample(nodes[None], where, padding_mode="border", align_corners=True)
            total = total + 0.5 * picked[0, :, :, 0, 0].T
        return total


@lru_cache(maxsize=4)
def _nodes(
    grid: TetrahedralGrid, device: torch.device
) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"], Float[Tensor, "2 r k"]]:
    """Undeformed positions, border mask and coarse spline weights per lattice of a grid; cached, so read-only."""
    return grid.positions.to(device), grid.border.to(device), _splines(grid.resolution).to(device)


def _splines(resolution: int) -> Float[Tensor, "2 r k"]:
    """Weights of the coarse values at the nodes along one axis, per lattice: uniform quadratic B-splines."""
    where = (torch.arange(resolution) + torch.tensor([[0.0], [0.5]])) / COARSENING
    knots = torch.arange(-(-resolution // COARSENING) + 2) - 0.5
    distance = (where[:, :, None] - knots).abs()
    return torch.where(distance < 0.5, 0.75 - distance**2, 0.5 * (1.5 - distance).clamp_min(0) ** 2)


def _smooth_noise(
    points: Float[Tensor, "n 3"], wavelength: float, generator: torch.Generator, waves: int = 8
) -> Float[Tensor, " n"]:
    """A sum of random plane waves with unit variance at points (meters)."""
    draws = torch.randn(waves, 4, generator=generator, device=generator.device).to(points)
    directions = F.normalize(draws[:, :3], dim=1) * (2 * torch.pi / wavelength)
    return (2 / waves) ** 0.5 * (points @ directions.T + 4 * draws[:, 3]).cos().sum(1)
