"""A closed surface of any topology on a tetrahedral grid [Shen et al. 2021, DMTet], coloured by a field."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Interval
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from .base import FieldSample, RenderOutput, Representation
from .cameras import Cameras
from .dmtet import TetrahedralGrid, crossing_edges, marching_tetrahedra
from .dmtet.conversion import fit_colours, nodes_on_surface
from .fields import ColourField, ColourFieldConfig
from .mesh import TriangleMesh, vertex_normals
from .mesh_file import read_fitted_mesh
from .mesh_penalties import edge_normal_consistency, laplacian
from .mesh_render import draw_mesh
from .rasterization.dispatch import BACKENDS
from .signed_distance import signed_distance
from .surface_samples import sample_surface

REACH = 0.5
"""How far a node may move along every axis, in cells: so every point of space is in reach of the node nearest to it."""
COARSENING = 4
"""Cells from one coarse value to the next."""
_CHECKED_POINTS = 4096


@dataclass
class DmtetConfig:
    """Deformable mesh: how the surface starts and how fast it learns."""

    resolution: Annotated[int, Interval(ge=4, le=256)] = 48
    """Nodes per axis of each of the grid's two lattices; twice its cube are trained."""
    extent: Annotated[float, Interval(gt=0, le=100)] = 1.05
    """Half the side of the grid's cube (metres); its outermost nodes stay outside, so 1 would cut the unit ball."""
    radius: Annotated[float, Interval(gt=0, le=100)] = 0.6
    """It starts as a sphere of this radius (metres),"""
    bumps: Annotated[float, Interval(ge=0, le=10)] = 0.05
    """with random bumps about this high (metres). Pictures move a surface mainly at its outlines; bumps give it some
    everywhere, so that holes open sooner."""
    initial_mesh: str = ""
    """Start from this mesh file (.glb, .gltf, .obj, .ply, .stl, .off) instead, closed and +Y up. Whatever its size, it
    is fitted into the unit ball, and the export puts the asset back where it was."""
    initial_yaw: Annotated[float, Interval(ge=-360, le=360)] = 0.0
    """Degrees by which it is turned about +Y for that, from +Z towards +X, so that its front faces +Z."""
    backend: Annotated[str, ("auto", *BACKENDS)] = "auto"
    """See `mesh_render.draw_mesh`."""
    sdf_rate: Annotated[float, Interval(ge=0, le=100)] = 1e-3
    """Adam's learning rate of the signed distances (metres) at the start of a stage,"""
    sdf_rate_end: Annotated[float, Interval(ge=0, le=100)] = 3e-4
    """and at its end; exponential in between."""
    coarse_sdf_rate: Annotated[float, Interval(ge=0, le=100)] = 2e-2
    """The same for the coarse part of the signed distances, which opens holes and moves the surface as a whole."""
    coarse_sdf_rate_end: Annotated[float, Interval(ge=0, le=100)] = 2e-3
    deformation_rate: Annotated[float, Interval(ge=0, le=100)] = 2e-3
    """Of the nodes' displacements, in units of half a cell."""
    colour: ColourFieldConfig = field(default_factory=ColourFieldConfig)

    def build(self, generator: torch.Generator, device: torch.device | str = "cpu") -> DmtetMesh:
        """Raises ValueError for a setting outside its range or a broken `initial_mesh`, OSError for a missing one."""
        if self.initial_mesh:
            return self._build_from_file(generator, device)
        if self.initial_yaw:
            raise ValueError(f"initial_yaw is {self.initial_yaw}, but there is no initial_mesh that it could turn")
        if self.radius <= 0 or self.bumps < 0:
            raise ValueError(f"need radius > 0 and bumps >= 0, got {self.radius} and {self.bumps}")
        grid = TetrahedralGrid(self.resolution, self.extent)
        positions = grid.positions
        sdf = positions.norm(dim=1) - self.radius
        if self.bumps:
            sdf = sdf + self.bumps * _smooth_noise(positions, self.radius, generator)
        return DmtetMesh(positions, sdf, self, generator).to(device)

    def without_file(self) -> DmtetConfig:
        """The same kind of scene, quickly, for what is only tried or loaded over."""
        return replace(self, initial_mesh="", initial_yaw=0.0, radius=DmtetConfig.radius, bumps=0.0)

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
    """How well `DmtetMesh.from_surface` did; root mean squares over random points that it was not fitted to."""

    distance: float
    """Metres, of points of the given surface from the new one."""
    colour: float
    """sRGB, on and close to the given surface."""


class DmtetMesh(Representation):
    """Signed distances and displacements of the grid's nodes, and a colour field.

    See `base.Meshable`, `base.Queryable`. A surface that has vanished draws as the background and stays so: only what
    is drawn can be moved by pictures.
    """

    render_terms = ("laplacian", "edge_normal_consistency")

    def __init__(
        self,
        positions: Float[Tensor, "n 3"],
        sdf: Float[Tensor, " n"],
        config: DmtetConfig,
        generator: torch.Generator,
    ) -> None:
        """`positions`: where the nodes are, within half a cell of the grid's; `generator` draws the colour field."""
        super().__init__()
        self.config = config
        self.grid = TetrahedralGrid(config.resolution, config.extent)
        # Bounds of the arctangent's argument: nodes at their limit must still feel a gradient.
        share = ((positions - self.grid.positions) / self._reach).clamp(-0.99, 0.99)
        self.sdf = nn.Parameter(sdf.clone())
        """Metres, negative inside; see `distances`."""
        self.coarse_sdf = nn.Parameter(torch.zeros((-(-config.resolution // COARSENING) + 2,) * 3).to(sdf))
        """Metres, of a cubic lattice with a spacing of `COARSENING` cells."""
        self.deformation = nn.Parameter(share.atanh())
        """Unbounded; its tanh is the displacement in units of half a cell."""
        self.colour = ColourField(config.colour, config.extent, generator)
        self.fit: SurfaceFit | None = None
        """Set by `from_surface`."""

    @classmethod
    def from_surface(
        cls,
        mesh: TriangleMesh,
        colour: Callable[[Float[Tensor, "n 3"]], Float[Tensor, "n 3"]] | None,
        config: DmtetConfig,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ) -> DmtetMesh:
        """The same surface on the grid, with the colours (sRGB) of `colour`, else of the mesh itself, else grey.

        The mesh must be closed and wound outwards; parts may overlap. What lies beyond the grid is cut off. `fit` of
        the result says how close it came. Raises ValueError for a mesh without an inside.
        """
        grid = TetrahedralGrid(config.resolution, config.extent)
        positions, sdf = nodes_on_surface(mesh, grid, 0.99 * REACH * grid.cell, generator)
        out = cls(positions, sdf, config, generator).to(device)
        residual = fit_colours(out.colour, mesh, colour, 0.1 * grid.cell, generator)
        samples = sample_surface(mesh, _CHECKED_POINTS, generator)
        distance = signed_distance(samples.points, out.mesh())
        out.fit = SurfaceFit(float(distance.square().mean().sqrt()), residual)
        return out

    @property
    def _reach(self) -> float:
        """Metres."""
        return REACH * self.grid.cell

    @property
    def positions(self) -> Float[Tensor, "n 3"]:
        """Of the nodes, metres."""
        return _nodes(self.grid, self.sdf.device)[0] + self._reach * self.deformation.tanh()

    @property
    def distances(self) -> Float[Tensor, " n"]:
        """Signed distances with the grid's border held outside, so that the surface is closed.

        They are a sum over two scales. Adam moves every number by about its rate, whatever the size of its gradient: at
        the scale of the nodes that is roughness, at the coarse one it is a movement of the surface as a whole. (A torus
        learned from pictures, from a sphere: 1 cm away after 300 steps, 5 cm without the coarse scale.)
        """
        _, border, splines = _nodes(self.grid, self.sdf.device)
        coarse = torch.einsum("lxi,ijk->lxjk", splines, self.coarse_sdf)
        coarse = torch.einsum("lyj,lxjk->lxyk", splines, coarse)
        coarse = torch.einsum("lzk,lxyk->lxyz", splines, coarse)
        sdf = self.sdf + coarse.reshape(-1)
        return torch.where(border, sdf.clamp_min(0.1 * self.grid.cell), sdf)

    def surface(self) -> tuple[Float[Tensor, "v 3"], Int64[Tensor, "f 3"]]:
        """Vertices (metres) and faces, differentiable."""
        return marching_tetrahedra(self.positions, self.distances, self.grid)

    def render(self, cameras: Cameras, background: Float[Tensor, "b 3"]) -> RenderOutput:
        """Terms: see `mesh_penalties`; lengths in cells."""
        vertices, faces = self.surface()
        normals = vertex_normals(vertices, faces)
        mesh = TriangleMesh(vertices, faces, normals)
        output = draw_mesh(mesh, cameras, background, colour=self.colour, backend=self.config.backend)
        if not torch.is_grad_enabled():
            return output
        terms = {
            "laplacian": laplacian(vertices, faces, self.grid.cell),
            "edge_normal_consistency": edge_normal_consistency(normals, faces),
        }
        return replace(output, terms=terms)

    def learning_rates(self, progress: float) -> dict[str, float]:
        config = self.config
        return {
            "sdf": config.sdf_rate ** (1 - progress) * config.sdf_rate_end**progress,
            "coarse_sdf": config.coarse_sdf_rate ** (1 - progress) * config.coarse_sdf_rate_end**progress,
            "deformation": config.deformation_rate,
            **self.colour.learning_rates("colour."),
        }

    def regularisers(self) -> dict[str, Float[Tensor, ""]]:
        """eikonal: (|gradient of the signed distance| - 1)^2 on the undeformed grid [Gropp et al. 2020].

        sdf_sign: binary cross-entropy (nats) of the values, in cells, on both sides of the surface with each other's
        sign, against floaters and cavities [Munkberg et al. 2022, nvdiffrec, eq. 2].
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
        """See `base.Meshable`: on the CPU, with vertex colours."""
        vertices, faces = self.surface()
        colours = self.colour(vertices)
        return TriangleMesh(vertices.cpu(), faces.cpu(), colours=colours.cpu())

    @torch.no_grad()
    def field(self, points: Float[Tensor, "n 3"]) -> FieldSample:
        """density: 1/2 on the surface, towards 1 inside and 0 outside within a cell."""
        values = torch.cat([self.distances[None], self._reach * self.deformation.tanh().T])
        # What stands at a point has been moved there; to first order, from the point less the displacement around it.
        start = points - self._interpolate(values[1:], points)
        sdf = self._interpolate(values[:1], start)[:, 0]
        return FieldSample((-4 / self.grid.cell * sdf).sigmoid(), self.colour(points))

    def _interpolate(self, values: Float[Tensor, "c n"], points: Float[Tensor, "m 3"]) -> Float[Tensor, "m c"]:
        """The mean of trilinear interpolation in the two lattices, on the undeformed grid."""
        side, cell = self.grid.resolution, self.grid.cell
        total = torch.zeros(len(points), len(values)).to(values)
        for lattice, nodes in enumerate(values.reshape(-1, *self.grid.shape).unbind(1)):
            where = (points + self.grid.extent) / cell - 0.5 * lattice
            # grid_sample wants z, y, x in [-1, 1].
            where = (2 * where / (side - 1) - 1).flip(1)[None, :, None, None]
            picked = F.grid_sample(nodes[None], where, padding_mode="border", align_corners=True)
            total = total + 0.5 * picked[0, :, :, 0, 0].T
        return total


@lru_cache(maxsize=4)
def _nodes(
    grid: TetrahedralGrid, device: torch.device
) -> tuple[Float[Tensor, "n 3"], Bool[Tensor, " n"], Float[Tensor, "2 r k"]]:
    """Undeformed positions, which are on the border, the coarse lattice's splines per lattice and axis; read only."""
    return grid.positions.to(device), grid.border.to(device), _splines(grid.resolution).to(device)


def _splines(resolution: int) -> Float[Tensor, "2 r k"]:
    """Weights of the coarse lattice's values at the nodes along one axis: uniform quadratic B-splines."""
    where = (torch.arange(resolution) + torch.tensor([[0.0], [0.5]])) / COARSENING
    knots = torch.arange(-(-resolution // COARSENING) + 2) - 0.5
    distance = (where[:, :, None] - knots).abs()
    return torch.where(distance < 0.5, 0.75 - distance**2, 0.5 * (1.5 - distance).clamp_min(0) ** 2)


def _smooth_noise(
    points: Float[Tensor, "n 3"], wavelength: float, generator: torch.Generator, waves: int = 8
) -> Float[Tensor, " n"]:
    """A sum of random plane waves, of unit variance."""
    draws = torch.randn(waves, 4, generator=generator, device=generator.device).to(points)
    directions = F.normalize(draws[:, :3], dim=1) * (2 * torch.pi / wavelength)
    return (2 / waves) ** 0.5 * (points @ directions.T + 4 * draws[:, 3]).cos().sum(1)
