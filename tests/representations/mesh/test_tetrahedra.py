"""The tetrahedral grid, and surfaces extracted by marching tetrahedra."""

import math
from collections.abc import Callable

import pytest
import torch
from plain_marching_tetrahedra import plain_marching_tetrahedra
from torch import Tensor

from steindreamer.representations.mesh.tetrahedra import (
    SurfaceBand,
    TetrahedralGrid,
    crossing_edges,
    marching_tetrahedra,
    zero_crossings,
)
from steindreamer.representations.triangle_mesh import face_normals

Shape = Callable[[Tensor], Tensor]


def sphere(points: Tensor) -> Tensor:
    return points.norm(dim=1) - 0.7


def torus(points: Tensor) -> Tensor:
    return torch.hypot(torch.hypot(points[:, 0], points[:, 2]) - 0.6, points[:, 1]) - 0.22


def box(points: Tensor) -> Tensor:
    beyond = points.abs() - torch.tensor([0.5, 0.3, 0.6])
    return beyond.clamp_min(0).norm(dim=1) + beyond.amax(1).clamp_max(0)


def two_spheres(points: Tensor) -> Tensor:
    center = torch.tensor([0.45, 0.0, 0.0])
    return torch.minimum((points - center).norm(dim=1) - 0.35, (points + center).norm(dim=1) - 0.25)


def volume_and_area(vertices: Tensor, faces: Tensor) -> tuple[float, float]:
    a, b, c = vertices[faces].unbind(1)
    normals = torch.linalg.cross(b - a, c - a)
    return float((a * normals).sum() / 6), float(normals.norm(dim=1).sum() / 2)


def is_closed_manifold(vertices: Tensor, faces: Tensor) -> bool:
    """Check that every edge occurs once in each direction, and that every vertex has a single fan of triangles."""
    count = len(vertices)
    begin, end = faces.reshape(-1), faces.roll(-1, 1).reshape(-1)
    there, back = begin * count + end, end * count + begin
    if len(there.unique()) != len(there) or not torch.equal(there.sort().values, back.sort().values):
        return False
    # Around its first vertex: from each side to the side shared with the next triangle of the fan.
    side = torch.arange(len(there))
    order = there.argsort()
    following = order[torch.searchsorted(there[order], back[3 * (side // 3) + (side + 2) % 3])]
    fan, place = side, side
    for _ in range(64):
        place = following[place]
        fan = torch.minimum(fan, place)
    return len(fan.unique()) == count


def euler_number(vertices: Tensor, faces: Tensor) -> int:
    return len(vertices) - 3 * len(faces) // 2 + len(faces)


def random_sdf(grid: TetrahedralGrid, seed: int) -> Tensor:
    sdf = torch.rand(grid.nodes, generator=torch.Generator().manual_seed(seed)) - 0.5
    return torch.where(grid.border, sdf.abs() + 0.01, sdf)


def test_tetrahedra_fill_space() -> None:
    """All are congruent and positively oriented; each of their faces belongs to exactly two, except on the hull."""
    grid = TetrahedralGrid(6, extent=0.8)
    tetrahedra, positions = grid.tetrahedra, grid.positions.double()
    corners = positions[tetrahedra]
    volumes = torch.linalg.det(corners[:, 1:] - corners[:, :1]) / 6
    torch.testing.assert_close(volumes, torch.full_like(volumes, grid.cell**3 / 12))
    sides = torch.cat([tetrahedra[:, [j for j in range(4) if j != i]] for i in range(4)]).sort(1).values
    _, count = sides.unique(dim=0, return_counts=True)
    assert int(count.max()) == 2
    assert grid.border[sides.unique(dim=0)[count == 1]].all()


def test_nodes_are_in_the_cube_with_neighbors_one_cell_apart() -> None:
    grid = TetrahedralGrid(5, extent=0.8)
    positions = grid.positions.reshape(*grid.shape, 3)
    assert positions.amin().item() == pytest.approx(-0.8) and positions.amax().item() == pytest.approx(0.8)
    torch.testing.assert_close(positions[0, 1, 2, 4] - positions[0, 1, 2, 3], torch.tensor([0.0, 0.0, grid.cell]))
    torch.testing.assert_close(positions[1] - positions[0], torch.full((5, 5, 5, 3), 0.5 * grid.cell))


@pytest.mark.parametrize(
    ("shape", "volume", "area", "euler"),
    [
        pytest.param(sphere, 4 / 3 * math.pi * 0.7**3, 4 * math.pi * 0.49, 2, id="sphere"),
        pytest.param(torus, 2 * math.pi**2 * 0.6 * 0.22**2, 4 * math.pi**2 * 0.6 * 0.22, 0, id="torus"),
        pytest.param(box, 0.72, 2 * (0.6 + 1.2 + 0.72), 2, id="box"),
        pytest.param(
            two_spheres, 4 / 3 * math.pi * (0.35**3 + 0.25**3), 4 * math.pi * (0.35**2 + 0.25**2), 4, id="two spheres"
        ),
    ],
)
def test_known_shapes(shape: Shape, volume: float, area: float, euler: int) -> None:
    """Surfaces are closed, wound outward (positive volume), and have the right topology and size."""
    grid = TetrahedralGrid(40)
    sdf = shape(grid.positions)
    vertices, faces = marching_tetrahedra(grid.positions, sdf, grid)
    assert is_closed_manifold(vertices, faces)
    assert euler_number(vertices, faces) == euler
    measured = volume_and_area(vertices, faces)
    assert measured[0] == pytest.approx(volume, rel=0.015)
    # Sharp edges are beveled.
    assert measured[1] == pytest.approx(area, rel=0.025)
    assert shape(vertices).abs().max() < 0.25 * grid.cell


@pytest.mark.parametrize("seed", range(3))
def test_any_values_give_a_closed_manifold(seed: int) -> None:
    """Noise covers all cases of the table."""
    grid = TetrahedralGrid(9)
    inside = random_sdf(grid, seed)
    vertices, faces = marching_tetrahedra(grid.positions, inside, grid)
    assert is_closed_manifold(vertices, faces)
    assert volume_and_area(vertices, faces)[0] > 0
    assert len(faces.sort(1).values.unique(dim=0)) == len(faces)
    assert len(vertices.unique(dim=0)) == len(vertices)


def test_triangles_face_outward() -> None:
    """Every triangle does, not only on average."""
    grid = TetrahedralGrid(12)
    vertices, faces = marching_tetrahedra(grid.positions, sphere(grid.positions), grid)
    middle = vertices[faces].mean(1)
    assert ((face_normals(vertices, faces) * middle).sum(1) > 0).all()


def test_vertices_are_the_zero_crossings_of_the_edges() -> None:
    grid = TetrahedralGrid(7)
    sdf = random_sdf(grid, 3)
    _, ends = crossing_edges(sdf < 0, grid)
    edges = torch.combinations(torch.arange(4))
    pairs = grid.tetrahedra[:, edges].reshape(-1, 2).sort(1).values.unique(dim=0)
    expected = pairs[(sdf[pairs] < 0).sum(1) == 1]
    assert torch.equal(ends.sort(1).values.unique(dim=0), expected)
    vertices, _ = marching_tetrahedra(grid.positions, sdf, grid)
    fraction = (vertices - grid.positions[ends[:, 0]]).norm(dim=1) / grid.positions[ends].diff(dim=1)[:, 0].norm(dim=1)
    values = sdf[ends]
    at_vertices = values[:, 0] + fraction * values.diff(dim=1)[:, 0]
    torch.testing.assert_close(at_vertices, torch.zeros(len(ends)), atol=1e-5, rtol=0)


def test_gradients_are_finite_differences() -> None:
    grid = TetrahedralGrid(4)
    generator = torch.Generator().manual_seed(0)
    sdf = random_sdf(grid, 1).double()
    # Away from 0, where the topology changes.
    sdf = (sdf + 0.1 * sdf.sign()).requires_grad_()
    positions = grid.positions.double().requires_grad_()
    weights = torch.randn(10**4, 3, generator=generator).double()

    def total(positions: Tensor, sdf: Tensor) -> Tensor:
        vertices, _ = marching_tetrahedra(positions, sdf, grid)
        return (vertices * weights[: len(vertices)]).sum()

    assert torch.autograd.gradcheck(total, (positions, sdf))


def test_values_of_exactly_zero_count_as_outside() -> None:
    grid = TetrahedralGrid(8)
    sdf = random_sdf(grid, 5)
    sdf[~grid.border & (sdf.abs() < 0.1)] = 0
    sdf.requires_grad_()
    vertices, faces = marching_tetrahedra(grid.positions, sdf, grid)
    assert is_closed_manifold(vertices, faces)
    vertices.square().sum().backward()
    assert vertices.isfinite().all() and sdf.grad is not None and sdf.grad.isfinite().all()


def test_values_close_to_zero_have_bounded_gradients() -> None:
    grid = TetrahedralGrid(6)
    sdf = (1e-30 * random_sdf(grid, 5)).requires_grad_()
    vertices, faces = marching_tetrahedra(grid.positions, sdf, grid)
    vertices.square().sum().backward()
    assert len(faces) and vertices.abs().max() <= grid.extent
    assert sdf.grad is not None and sdf.grad.abs().max() < 1e11


def test_nothing_inside() -> None:
    grid = TetrahedralGrid(5)
    sdf = torch.ones(grid.nodes).requires_grad_()
    vertices, faces = marching_tetrahedra(grid.positions, sdf, grid)
    assert vertices.shape == (0, 3) and faces.shape == (0, 3)
    vertices.sum().backward()
    assert sdf.grad is not None and not sdf.grad.any()


def test_everything_inside_but_the_border() -> None:
    grid = TetrahedralGrid(5)
    vertices, faces = marching_tetrahedra(grid.positions, torch.where(grid.border, 1.0, -1.0), grid)
    assert is_closed_manifold(vertices, faces)
    assert volume_and_area(vertices, faces)[0] > (2 - 2.5 * grid.cell) ** 3


def test_wrong_sizes_are_refused() -> None:
    grid = TetrahedralGrid(5)
    with pytest.raises(ValueError, match="250 nodes"):
        marching_tetrahedra(grid.positions[1:], torch.ones(grid.nodes - 1), grid)
    with pytest.raises(ValueError, match="resolution >= 4"):
        TetrahedralGrid(3)


def test_locate_finds_the_tetrahedron_of_a_point() -> None:
    grid = TetrahedralGrid(7, extent=0.8)
    middle = (2 * torch.rand(2000, 3, generator=torch.Generator().manual_seed(0)) - 1) * (grid.extent - grid.cell)
    corners, weights = grid.locate(middle)
    assert weights.min() > -1e-5
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))
    torch.testing.assert_close((grid.positions[corners] * weights[:, :, None]).sum(1), middle)
    known = {tuple(sorted(tetrahedron)) for tetrahedron in grid.tetrahedra.tolist()}
    assert {tuple(sorted(tetrahedron)) for tetrahedron in corners.tolist()} <= known


def test_nearest_nodes_of_each_lattice() -> None:
    grid = TetrahedralGrid(5, extent=0.8)
    points = 3 * torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) - 1.5
    distances = torch.cdist(points, grid.positions).reshape(len(points), 2, -1)
    found = distances.reshape(len(points), -1).gather(1, grid.nearest(points))
    torch.testing.assert_close(found, distances.amin(2))


@pytest.mark.parametrize("seed", range(3))
def test_a_grid_of_noise_equals_the_reference(seed: int) -> None:
    grid = TetrahedralGrid(9)
    sdf = random_sdf(grid, seed)
    found, expected = (march(grid.positions, sdf, grid) for march in (marching_tetrahedra, plain_marching_tetrahedra))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_moving_surface_equals_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sphere that shrinks and grows across its band, a second one that appears far away, and one that vanishes."""
    grid, finds = TetrahedralGrid(24), []
    band, find = SurfaceBand(grid), SurfaceBand._find
    monkeypatch.setattr(SurfaceBand, "_find", lambda self, inside: (finds.append(None), find(self, inside)))
    lone = (grid.positions - torch.tensor([0.7, 0.7, 0.7])).norm(dim=1) - 0.15
    spheres = [grid.positions.norm(dim=1) - radius for radius in (0.5, 0.505, 0.52, 0.46, 0.4, 0.3, 0.32, 0.5, 0.6)]
    for sdf in [*spheres, torch.minimum(spheres[-1], lone), spheres[-1], lone, lone + 1, spheres[0]]:
        ends, faces = band.topology(sdf < 0)
        vertices, expected = plain_marching_tetrahedra(grid.positions, sdf, grid)
        assert torch.equal(faces, expected)
        assert torch.equal(zero_crossings(grid.positions, sdf, ends), vertices)
    # Small movements keep the band.
    assert 2 < len(finds) < 8


@pytest.mark.parametrize("seed", range(3))
def test_compiled_faces_equal_those_of_the_reference(seed: int) -> None:
    grid = TetrahedralGrid(9)
    band, inside = SurfaceBand(grid), random_sdf(grid, seed) < 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SurfaceBand, "_faces_compiled", SurfaceBand._faces)
        expected = band.topology(inside)
    assert all(torch.equal(a, b) for a, b in zip(band.topology(inside), expected, strict=True))
