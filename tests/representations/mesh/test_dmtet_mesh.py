"""The DMTet mesh: initialization, conversion and optimization. Its contract is tested in test_contracts.py."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from plain_marching_tetrahedra import plain_marching_tetrahedra
from torch import Tensor

from steindreamer.representations import Cameras, DmtetConfig, DmtetMesh, TriangleMesh, render_mesh, sphere_of_cameras
from steindreamer.representations.mesh.regularizers import (
    edge_normal_consistency,
    laplacian,
    robust_normal_consistency,
)
from steindreamer.representations.mesh.signed_distance import SignedDistance, signed_distance
from steindreamer.representations.mesh.tetrahedra import TetrahedralGrid
from steindreamer.representations.mesh.tetrahedra import conversion as conversion_module
from steindreamer.representations.mesh.tetrahedra.conversion import EXACT, node_distances


def build(config: DmtetConfig, seed: int = 0) -> DmtetMesh:
    return config.build(torch.Generator().manual_seed(seed))


def as_trimesh(mesh: TriangleMesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)


def as_mesh(shape: trimesh.Trimesh) -> TriangleMesh:
    vertices, faces = np.asarray(shape.vertices, np.float32), np.asarray(shape.faces, np.int64)
    return TriangleMesh(torch.from_numpy(vertices), torch.from_numpy(faces))


def joined(parts: list[TriangleMesh]) -> TriangleMesh:
    starts = np.cumsum([0, *(len(part.vertices) for part in parts)])
    faces = [part.faces + int(start) for part, start in zip(parts, starts, strict=False)]
    return TriangleMesh(torch.cat([part.vertices for part in parts]), torch.cat(faces))


def stripes(points: Tensor) -> Tensor:
    return torch.stack([(6 * points[:, 0]).sin(), (6 * points[:, 1]).cos(), (5 * points[:, 2]).sin()], 1) * 0.4 + 0.5


@pytest.fixture(scope="module")
def striped_torus() -> TriangleMesh:
    mesh = as_mesh(trimesh.creation.torus(0.6, 0.2, major_sections=128, minor_sections=64))
    return TriangleMesh(mesh.vertices, mesh.faces, colors=stripes(mesh.vertices))


@pytest.fixture(scope="module")
def converted(striped_torus: TriangleMesh) -> DmtetMesh:
    generator = torch.Generator().manual_seed(0)
    return DmtetMesh.from_surface(striped_torus, None, DmtetConfig(resolution=32), generator)


def test_surface_equals_that_of_the_whole_grid() -> None:
    """Bit for bit, over steps that move the surface by several cells; gradients up to the order of their sums."""
    scene = build(DmtetConfig(resolution=24))
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        results = []
        for whole in (False, True):
            scene.zero_grad()
            vertices, faces = (
                plain_marching_tetrahedra(scene.positions, scene.distances, scene.grid) if whole else scene.surface()
            )
            (vertices[faces].diff(dim=1).square().sum() + (vertices**3).sum()).backward()
            grads = [p.grad.clone() for p in (scene.sdf, scene.coarse_sdf, scene.deformation) if p.grad is not None]
            results.append([vertices.detach(), faces, *grads])
        assert len(results[0]) == 5
        assert all(torch.equal(found, expected) for found, expected in zip(results[0][:2], results[1][:2], strict=True))
        torch.testing.assert_close(results[0][2:], results[1][2:])
        with torch.no_grad():
            scene.sdf.add_(0.1 * scene.grid.cell * torch.randn(scene.sdf.shape, generator=generator))
            scene.coarse_sdf.add_(2 * scene.grid.cell * torch.randn(scene.coarse_sdf.shape, generator=generator))
            scene.deformation.add_(0.2 * torch.randn(scene.deformation.shape, generator=generator))


def test_starts_as_a_sphere() -> None:
    mesh = as_trimesh(build(DmtetConfig(resolution=32, radius=0.5, bumps=0.0)).mesh())
    assert mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.5**3, rel=0.02)


def test_bumps_have_about_their_height_and_a_seed() -> None:
    config = DmtetConfig(resolution=32, radius=0.5, bumps=0.05)
    one, again, other = (build(config, seed).mesh() for seed in (0, 0, 1))
    assert torch.equal(one.vertices, again.vertices)
    heights = one.vertices.norm(dim=1) - 0.5
    assert 0.02 < heights.std() < 0.1
    assert one.vertices.shape != other.vertices.shape


@pytest.mark.parametrize("config", [DmtetConfig(radius=0.0), DmtetConfig(bumps=-0.1), DmtetConfig(resolution=2)])
def test_settings_out_of_range_are_refused(config: DmtetConfig) -> None:
    with pytest.raises(ValueError, match="need"):
        build(config)


def test_starts_from_a_file(tmp_path: Path, striped_torus: TriangleMesh) -> None:
    colors = (stripes(striped_torus.vertices) * 255).byte().numpy()
    faces = striped_torus.faces.numpy()
    shape = trimesh.Trimesh(striped_torus.vertices.numpy(), faces, vertex_colors=colors, process=False)
    shape.export(tmp_path / "torus.ply")
    scene = build(DmtetConfig(resolution=32, initial_mesh=str(tmp_path / "torus.ply")))
    assert scene.placement is not None
    mesh = scene.mesh()
    mesh = replace(mesh, vertices=scene.placement.undo(mesh.vertices))
    assert as_trimesh(mesh).volume == pytest.approx(shape.volume, rel=0.03)
    assert mesh.colors is not None
    assert (mesh.colors - stripes(mesh.vertices)).square().mean().sqrt() < 0.05


def test_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.obj"):
        build(DmtetConfig(initial_mesh=str(tmp_path / "nowhere.obj")))
    (tmp_path / "scene.fbx").write_bytes(b"?")
    with pytest.raises(ValueError, match=r"supported formats: \.glb"):
        build(DmtetConfig(initial_mesh=str(tmp_path / "scene.fbx")))
    (tmp_path / "broken.glb").write_bytes(b"not a mesh")
    with pytest.raises(ValueError, match="cannot read"):
        build(DmtetConfig(initial_mesh=str(tmp_path / "broken.glb")))
    inverted = trimesh.creation.icosphere(radius=3.0)
    inverted.invert()
    inverted.export(tmp_path / "inverted.obj")
    with pytest.raises(ValueError, match=r"inverted\.obj: the mesh has no inside"):
        build(DmtetConfig(resolution=12, initial_mesh=str(tmp_path / "inverted.obj")))


def test_conversion_keeps_the_surface(converted: DmtetMesh, striped_torus: TriangleMesh) -> None:
    mesh = converted.mesh()
    shape = as_trimesh(mesh)
    assert shape.is_watertight and shape.euler_number == 0
    assert shape.volume == pytest.approx(2 * math.pi**2 * 0.6 * 0.04, rel=0.02)
    assert signed_distance(mesh.vertices, striped_torus).abs().max() < 0.1 * converted.grid.cell


def test_conversion_looks_the_same(converted: DmtetMesh, striped_torus: TriangleMesh) -> None:
    cameras, background = sphere_of_cameras(8, height=96), torch.zeros(8, 3)
    before, after = (render_mesh(mesh, cameras, background) for mesh in (striped_torus, converted.mesh()))
    assert -10 * (before.rgb - after.rgb).square().mean().log10() > 26


def test_conversion_reports_its_residuals(converted: DmtetMesh) -> None:
    assert converted.fit is not None
    assert 0 < converted.fit.distance < 0.05 * converted.grid.cell
    assert 0 < converted.fit.color < 0.03


def test_conversion_takes_colors_from_a_function(striped_torus: TriangleMesh) -> None:
    config, generator = DmtetConfig(resolution=16), torch.Generator().manual_seed(0)
    out = DmtetMesh.from_surface(striped_torus, lambda points: 1 - stripes(points), config, generator)
    points = striped_torus.vertices
    assert (out.color(points) - 1 + stripes(points)).square().mean().sqrt() < 0.05


def test_conversion_without_gradients_or_from_a_trained_field(striped_torus: TriangleMesh) -> None:
    """The fit works with gradients disabled, and does not change the gradients of the given color field."""
    config = DmtetConfig(resolution=12)
    with torch.no_grad():
        out = DmtetMesh.from_surface(striped_torus, None, config, torch.Generator().manual_seed(0))
    again = DmtetMesh.from_surface(out.mesh(), out.color, config, torch.Generator().manual_seed(0))
    assert out.fit is not None and again.fit is not None
    assert out.fit.color < 0.03 and again.fit.color < 0.03
    assert all(parameter.grad is None for parameter in out.parameters())


def test_residual_is_that_of_points_not_fitted(striped_torus: TriangleMesh) -> None:
    """Noise can be fitted at the training points only, so the held-out error is at least its standard deviation."""
    noise = torch.Generator().manual_seed(1)
    config = DmtetConfig(resolution=12)
    out = DmtetMesh.from_surface(
        striped_torus,
        lambda points: torch.rand(points.shape, generator=noise),
        config,
        torch.Generator().manual_seed(0),
    )
    assert out.fit is not None and out.fit.color > 12**-0.5


def open_box() -> TriangleMesh:
    """A box without its lid, through whose opening the winding number changes gradually."""
    box = as_mesh(trimesh.creation.box([1.5, 1.3, 1.4]))
    return TriangleMesh(box.vertices, box.faces[(box.vertices[box.faces][:, :, 1] < 0.6).any(1)])


@pytest.mark.parametrize("shape", ["torus", "plate", "two", "open"])
def test_node_distances_against_exact_ones(shape: str, striped_torus: TriangleMesh) -> None:
    """Exact close to the surface, and everywhere with the right sign."""
    ball = as_mesh(trimesh.creation.icosphere(2, 0.5))
    mesh = {
        "torus": lambda: striped_torus,
        "plate": lambda: as_mesh(trimesh.creation.box([1.2, 0.03, 1.0])),
        "two": lambda: joined([ball, TriangleMesh(ball.vertices + 0.3, ball.faces)]),
        "open": open_box,
    }[shape]()
    grid = TetrahedralGrid(26, 1.05)
    found, exact = node_distances(SignedDistance(mesh), grid), signed_distance(grid.positions, mesh)
    close = exact.abs() < EXACT * grid.cell
    assert close.any() and torch.equal(found[close], exact[close])
    assert torch.equal(found < 0, exact < 0)
    assert 0.1 * len(found) < (found != exact).sum()
    assert (found - exact).abs().max() < 2 * grid.cell


def test_points_missed_by_the_surface(monkeypatch: pytest.MonkeyPatch) -> None:
    """By interpolation and, next to displaced nodes, by the distance to the surface."""
    generator = torch.Generator().manual_seed(0)
    grid = TetrahedralGrid(20)
    sdf, positions = grid.positions.norm(dim=1) - 0.6, grid.positions
    moved = grid.positions[:, 0] > 0.55
    positions[moved] += 0.4 * grid.cell * (2 * torch.rand(int(moved.sum()), 3, generator=generator) - 1)
    points = torch.nn.functional.normalize(torch.randn(3000, 3, generator=generator), dim=1)
    points = points * (0.6 + 0.3 * grid.cell * torch.randn(3000, 1, generator=generator))
    surface = TriangleMesh(*plain_marching_tetrahedra(positions, sdf, grid))
    expected = signed_distance(points, surface)
    asked = []

    def counted(points: Tensor, mesh: TriangleMesh) -> Tensor:
        asked.append(len(points))
        return signed_distance(points, mesh)

    monkeypatch.setattr(conversion_module, "signed_distance", counted)
    clear = expected.abs() > 1e-6
    for side in (1.0, -1.0):
        found = conversion_module._is_missed(points, positions, sdf, grid, side)
        assert torch.equal(found[clear], (side * expected > 0)[clear])
    assert all(0 < count < 1500 for count in asked)


def test_thin_parts_survive_the_conversion() -> None:
    """A plate and a rod, and a slit through a block, all thinner than half a cell."""
    plate = trimesh.creation.box([1.2, 0.02, 1.0])
    rod = trimesh.creation.cylinder(0.012, 1.2)
    rod.apply_translation([0.1, 0.4, 0.0])
    halves = [trimesh.creation.box([0.8, 0.3, 0.3]) for _ in range(2)]
    for half, side in zip(halves, (-1, 1), strict=True):
        half.apply_translation([0, -0.5, 0.013 + side * 0.1575])
    shape = joined([as_mesh(part) for part in (plate, rod, *halves)])
    config, generator = DmtetConfig(resolution=40), torch.Generator().manual_seed(0)
    out = DmtetMesh.from_surface(shape, None, config, generator)
    assert out.grid.cell > 0.05
    mesh = as_trimesh(out.mesh())
    assert mesh.is_watertight
    inside = torch.cat(
        [
            torch.tensor([[x, 0.0, z] for x in np.linspace(-0.5, 0.5, 21) for z in np.linspace(-0.4, 0.4, 17)]),
            torch.tensor([[0.1, 0.4, z] for z in np.linspace(-0.55, 0.55, 23)]),
        ]
    ).float()
    assert (signed_distance(inside, out.mesh()) < 0.002).float().mean() > 0.97
    slit = torch.tensor([[x, y, 0.013] for x in np.linspace(-0.3, 0.3, 13) for y in (-0.6, -0.5, -0.4)]).float()
    assert (signed_distance(slit, out.mesh()) > -0.002).float().mean() > 0.9


def test_a_mesh_without_inside_is_refused(striped_torus: TriangleMesh) -> None:
    inverted = TriangleMesh(striped_torus.vertices, striped_torus.faces.flip(1))
    with pytest.raises(ValueError, match="point outward"):
        DmtetMesh.from_surface(inverted, None, DmtetConfig(resolution=16), torch.Generator())


def test_the_surface_stays_closed_for_any_values() -> None:
    scene = build(DmtetConfig(resolution=12))
    with torch.no_grad():
        scene.sdf.fill_(-1)
        scene.deformation.normal_(generator=torch.Generator().manual_seed(0))
    mesh = as_trimesh(scene.mesh())
    assert mesh.is_watertight and mesh.volume > 0.5 * (2 * 1.05) ** 3


def test_nodes_move_at_most_half_a_cell() -> None:
    scene = build(DmtetConfig(resolution=8))
    with torch.no_grad():
        scene.deformation.fill_(50)
    moved = scene.positions - scene.grid.positions
    torch.testing.assert_close(moved, torch.full_like(moved, 0.5 * scene.grid.cell))


def test_an_empty_surface_is_background() -> None:
    scene = build(DmtetConfig(resolution=8))
    with torch.no_grad():
        scene.sdf.fill_(1)
    output = scene.render(Cameras.orbit([0.0], [0.0], height=8), torch.tensor([[0.2, 0.4, 0.6]]))
    assert not output.opacity.any() and not output.depth.any()
    torch.testing.assert_close(output.rgb, torch.tensor([0.2, 0.4, 0.6])[None, :, None, None].expand(1, 3, 8, 8))
    terms = [*output.terms.values(), *scene.regularizers().values()]
    (output.rgb.sum() + torch.stack(terms).sum()).backward()
    assert scene.sdf.grad is not None and scene.sdf.grad.isfinite().all()
    assert len(scene.mesh().faces) == 0


def test_field_is_one_half_on_the_surface(converted: DmtetMesh) -> None:
    """Also for displaced nodes: if they are shifted by 0.4 cells, the surface is, too."""
    vertices = converted.mesh().vertices
    assert (converted.field(vertices).density - 0.5).abs().max() < 0.2
    shifted = build(DmtetConfig(resolution=24, bumps=0.0))
    with torch.no_grad():
        shifted.deformation[:, 0] = math.atanh(0.8)
    surface = shifted.mesh().vertices
    assert surface[:, 0].mean() == pytest.approx(0.4 * shifted.grid.cell, abs=1e-3)
    assert (shifted.field(surface).density - 0.5).abs().max() < 0.1


def test_eikonal_is_zero_for_distances() -> None:
    scene = build(DmtetConfig(resolution=24, bumps=0.0))
    sphere = scene.regularizers()["eikonal"].detach()
    with torch.no_grad():
        scene.sdf.mul_(2)
    assert sphere < 0.01
    assert float(scene.regularizers()["eikonal"].detach()) == pytest.approx(1, abs=0.1)


def test_sign_entropy_removes_floaters() -> None:
    """The gradient moves an isolated inner node outside, and does not move its neighbors inside."""
    scene = build(DmtetConfig(resolution=12))
    with torch.no_grad():
        scene.sdf.fill_(0.5)
        lone = int(scene.grid.positions.norm(dim=1).argmin())
        scene.sdf[lone] = -0.01
    scene.regularizers()["sdf_sign"].backward()
    assert scene.sdf.grad is not None
    assert scene.sdf.grad[lone] < 0
    assert scene.sdf.grad[lone].abs() > 5 * scene.sdf.grad[torch.arange(len(scene.sdf)) != lone].abs().max()


def test_mesh_regularizers_against_neighbor_lists() -> None:
    shape = trimesh.creation.torus(0.6, 0.2, major_sections=12, minor_sections=8)
    mesh = as_mesh(shape)
    around = [mesh.vertices[list(neighbors)].mean(0) for neighbors in shape.vertex_neighbors]
    expected = ((torch.stack(around) - mesh.vertices) / 0.1).square().sum(1).mean()
    torch.testing.assert_close(laplacian(mesh.vertices, mesh.faces, 0.1), expected)
    normals = torch.nn.functional.normalize(torch.randn(len(mesh.vertices), 3), dim=1)
    ends = torch.from_numpy(np.array(shape.edges_unique))
    difference = 1 - (normals[ends[:, 0]] * normals[ends[:, 1]]).sum(1)
    torch.testing.assert_close(edge_normal_consistency(normals, mesh.faces), difference.mean())
    robust = (difference / (difference + 1 - math.cos(math.radians(20)))).mean()
    torch.testing.assert_close(robust_normal_consistency(normals, mesh.faces), robust)
    assert robust_normal_consistency(normals, mesh.faces[:0]) == 0
    assert laplacian(mesh.vertices, mesh.faces[:0], 0.1) == 0 == edge_normal_consistency(normals, mesh.faces[:0])


@pytest.mark.slow
def test_a_sphere_grows_into_a_torus(striped_torus: TriangleMesh) -> None:
    """Optimization from images opens the hole, which displaced vertices alone could not."""
    cameras, background = sphere_of_cameras(12, height=64), torch.zeros(12, 3)
    target = render_mesh(striped_torus, cameras, background, supersample=4)
    scene = build(DmtetConfig(resolution=24))
    optimizer = torch.optim.Adam(scene.optimizer_groups())
    generator, difference = torch.Generator().manual_seed(9), torch.ones(())
    for step in range(500):
        views = torch.tensor([step % 12, (step * 5 + 3) % 12])
        behind = torch.rand(2, 3, generator=generator)
        output = scene.render(cameras[views], behind)
        shown = target.rgb[views] + (1 - target.opacity[views]) * behind[:, :, None, None]
        loss = (output.opacity - target.opacity[views]).square().mean() + (output.rgb - shown).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 49:
            with torch.no_grad():
                difference = (scene.render(cameras, background).opacity - target.opacity).abs().mean()
            if difference < 0.006:
                break
    assert difference < 0.006
    mesh = scene.mesh()
    assert as_trimesh(mesh).is_watertight
    assert signed_distance(torch.zeros(1, 3), mesh) > 0.2
    assert signed_distance(mesh.vertices, striped_torus).abs().mean() < 0.03
