"""Visibility and interpolation against closed forms and a brute-force reference; images of meshes."""

from __future__ import annotations

import math

import numba
import pytest
import torch
from jaxtyping import Float
from mesh_samples import sphere, square, triangle_soup
from torch import Tensor

from steindreamer.representations import Cameras, TriangleMesh, face_normals, render_mesh, vertex_normals
from steindreamer.representations.mesh.rasterization import Fragments, interpolate, rasterize

WHITE = torch.ones(1, 3)


def rasterize_reference(mesh: TriangleMesh, cameras: Cameras) -> Fragments:
    """Brute-force rasterization in float64, with barycentrics from ray-plane intersections in 3D."""
    corners = mesh.vertices[mesh.faces].double()
    origin = cameras.position.double()[:, None, None, None]
    rays = cameras.rays().double().permute(0, 2, 3, 1)[:, :, :, None]
    a, b, c = corners.unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    depth = ((a - origin) * normal).sum(-1) / (rays * normal).sum(-1)
    point = origin + depth[..., None] * rays
    weights = [
        (torch.linalg.cross((v - u).expand_as(point), point - u) * normal).sum(-1) / normal.square().sum(-1)
        for u, v in ((b, c), (c, a), (a, b))
    ]
    barycentrics = torch.stack(weights, -1)
    depth = torch.where((barycentrics >= 0).all(-1) & (depth > 0.01), depth, math.inf)
    nearest, index = depth.min(-1)
    hit = nearest < math.inf
    chosen = barycentrics.gather(3, index[..., None, None].expand(*index.shape, 1, 3))[..., 0, :]
    front = ((rays * normal).sum(-1) < 0).gather(3, index[..., None])[..., 0]
    return Fragments(
        torch.where(hit, index, -1).int(),
        torch.where(hit[..., None], chosen, 0).float(),
        torch.where(hit, nearest, 0).float(),
        front & hit,
    )


def test_agrees_with_the_reference(generator: torch.Generator) -> None:
    mesh = triangle_soup(generator)
    cameras = Cameras.orbit([0.0, 70.0, 200.0], [10.0, -30.0, 85.0], distance=4.0, height=40, width=56)
    ours, reference = rasterize(mesh.vertices, mesh.faces, cameras), rasterize_reference(mesh, cameras)
    same = ours.triangle == reference.triangle
    assert same.float().mean() > 0.999, "only pixels on an edge may differ (coordinates are snapped)"
    assert 0.2 < (reference.triangle >= 0).float().mean() < 0.95
    torch.testing.assert_close(ours.barycentrics[same], reference.barycentrics[same], atol=2e-2, rtol=0)
    torch.testing.assert_close(ours.depth[same], reference.depth[same], atol=5e-3, rtol=0)
    assert torch.equal(ours.front[same], reference.front[same])
    assert (ours.barycentrics[same] - reference.barycentrics[same]).abs().mean() < 1e-4


@pytest.mark.parametrize("count", [1, 3])
def test_bits_do_not_depend_on_the_number_of_threads(count: int, generator: torch.Generator) -> None:
    """One image is split into rows, several are distributed as a whole."""
    mesh = triangle_soup(generator)
    cameras = Cameras.orbit(torch.arange(count) * 70.0, torch.arange(count) * 30.0, height=33)
    attributes = torch.randn(len(mesh.vertices), 4, generator=generator)

    available = numba.get_num_threads()

    def draw(threads: int) -> list[Tensor]:
        numba.set_num_threads(threads)
        try:
            fragments = rasterize(mesh.vertices, mesh.faces, cameras)
            return [*vars(fragments).values(), interpolate(fragments, mesh.faces, attributes)]
        finally:
            numba.set_num_threads(available)

    for one, many in zip(draw(1), draw(available), strict=True):
        assert torch.equal(one, many)


@pytest.mark.parametrize("radius", [0.5, 0.9])
def test_silhouette_area_of_a_sphere(radius: float) -> None:
    """From distance d, the outline is a circle of radius f r / sqrt(d^2 - r^2) pixels."""
    cameras = Cameras.orbit([30.0], [0.0], distance=3.0, height=200)
    area = render_mesh(sphere(radius), cameras, WHITE).opacity.sum().item()
    focal = cameras.intrinsics[0, 0, 0].item()
    assert area == pytest.approx(math.pi * focal**2 * radius**2 / (3.0**2 - radius**2), rel=4e-3)


def test_a_closed_surface_has_no_gaps() -> None:
    opacity = render_mesh(sphere(2.0, 5), Cameras.orbit([11.0, 47.0], [5.0, 33.0], height=128), WHITE.expand(2, 3))
    assert bool((opacity.opacity == 1).all())


def test_depth_and_normal_of_a_plane() -> None:
    out = render_mesh(square(z=0.25), Cameras.orbit([0.0], [0.0], distance=3.0, height=64), WHITE)
    inside = out.opacity[:, 0] == 1
    torch.testing.assert_close(out.depth[:, 0][inside], torch.full_like(out.depth[:, 0][inside], 2.75))
    normals = out.normal.permute(0, 2, 3, 1)
    torch.testing.assert_close(normals[inside], torch.tensor([0.0, 0, 1]).expand_as(normals[inside]))
    assert bool((out.depth[:, 0][~inside] == 0).all()) and bool((normals[~inside] == 0).all())


def test_interpolation_is_perspective_correct() -> None:
    """World position, interpolated as an attribute of a slanted square, equals the unprojected depth."""
    mesh = square(0.9)
    cameras = Cameras.orbit([65.0, -20.0], [20.0, 50.0], height=64)
    fragments = rasterize(mesh.vertices, mesh.faces, cameras)
    hit = (fragments.triangle >= 0)[:, None]
    position = interpolate(fragments, mesh.faces, mesh.vertices)
    torch.testing.assert_close(
        position, torch.where(hit, cameras.unproject(fragments.depth[:, None]), 0), atol=2e-3, rtol=0
    )
    on_plane = (
        Cameras.rays(cameras)
        * (-cameras.position[:, 2] / cameras.rays()[:, 2].permute(1, 2, 0)).permute(2, 0, 1)[:, None]
    )
    expected = torch.where(hit, cameras.position[:, :, None, None] + on_plane, 0)
    torch.testing.assert_close(position, expected, atol=2e-3, rtol=0)


def test_the_nearer_surface_wins_in_any_order() -> None:
    red, blue = torch.tensor([1.0, 0, 0]), torch.tensor([0, 0, 1.0])
    near, far = square(0.5, 0.5), square(0.9, -0.5)
    for first, second, colors in ((near, far, (red, blue)), (far, near, (blue, red))):
        mesh = TriangleMesh(
            torch.cat([first.vertices, second.vertices]),
            torch.cat([first.faces, second.faces + 4]),
            colors=torch.stack(colors).repeat_interleave(4, 0),
        )
        rgb = render_mesh(mesh, Cameras.orbit([0.0], [0.0], height=32), WHITE).rgb
        torch.testing.assert_close(rgb[0, :, 16, 16], red)
        torch.testing.assert_close(rgb[0, :, 16, 7], blue)
        torch.testing.assert_close(rgb[0, :, 0, 0], torch.ones(3))


def test_the_texture_is_upright() -> None:
    """v points down: uv (0, 0) at the top left of the square shows the first row and column of the texture there."""
    uvs = torch.tensor([[0.0, 0], [0, 1], [1, 1], [1, 0]])
    texture = torch.tensor([[[1.0, 0], [0, 1]], [[0, 1.0], [0, 1]], [[0, 0], [1.0, 1]]])  # red green / blue white
    camera = Cameras.orbit([0.0], [0.0], distance=3.0, height=64)
    rgb = render_mesh(square(uvs=uvs, texture=texture), camera, torch.zeros(1, 3)).rgb[0]
    expected = {(14, 14): (1, 0, 0), (14, 49): (0, 1, 0), (49, 14): (0, 0, 1), (49, 49): (1, 1, 1)}
    for (y, x), color in expected.items():
        assert rgb[:, y, x].round().tolist() == list(color), (y, x)


def test_images_of_a_trained_mesh_carry_no_gradient() -> None:
    texture, background = torch.rand(3, 2, 2, requires_grad=True), torch.zeros(1, 3, requires_grad=True)
    uvs = torch.tensor([[0.0, 0], [0, 1], [1, 1], [1, 0]])
    output = render_mesh(square(uvs=uvs, texture=texture), Cameras.orbit([0.0], [0.0], height=8), background)
    assert not output.rgb.requires_grad


def test_bilinear_lookup_is_exact_on_a_linear_texture() -> None:
    size = 16
    ramp = (torch.arange(size) + 0.5) / size
    texture = torch.stack([ramp.expand(size, size), ramp[:, None].expand(size, size), torch.zeros(size, size)])
    uvs = torch.tensor([[0.0, 0], [0, 1], [1, 1], [1, 0]])
    mesh, cameras = square(uvs=uvs, texture=texture), Cameras.orbit([40.0, 0.0], [10.0, 60.0], height=48)
    fragments = rasterize(mesh.vertices, mesh.faces, cameras)
    uv = interpolate(fragments, mesh.faces, uvs).clamp(0.5 / size, 1 - 0.5 / size)
    rgb = render_mesh(mesh, cameras, torch.zeros(2, 3)).rgb
    torch.testing.assert_close(rgb[:, :2], uv * (fragments.triangle >= 0)[:, None], atol=1e-4, rtol=0)


def test_both_sides_are_rendered_and_normals_face_the_camera() -> None:
    mesh = sphere(0.8, 2)
    inside_out = TriangleMesh(mesh.vertices, mesh.faces.flip(1), normals=-vertex_normals(mesh.vertices, mesh.faces))
    cameras = Cameras.orbit([0.0, 130.0], [0.0, 40.0], height=48)
    ours, flipped = (render_mesh(m, cameras, WHITE.expand(2, 3)) for m in (mesh, inside_out))
    for one, other in zip(vars(ours).values(), vars(flipped).values(), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
    assert float((ours.normal * cameras.rays()).sum(1).max()) < 1e-5
    length = ours.normal.norm(dim=1, keepdim=True)
    torch.testing.assert_close(length, (ours.opacity > 0).float(), atol=1e-5, rtol=0)


def test_smooth_normals_of_a_sphere() -> None:
    mesh, cameras = sphere(0.8), Cameras.orbit([25.0], [35.0], height=64)
    out = render_mesh(mesh, cameras, WHITE)
    position = cameras.unproject(out.depth)
    cosine = (out.normal * position / 0.8).sum(1)[out.opacity[:, 0] > 0]
    assert float(cosine.min()) > 0.98


def test_supersampling_averages() -> None:
    mesh = sphere(0.8)
    cameras = Cameras.orbit([0.0], [0.0], height=32)
    fine, coarse = render_mesh(mesh, cameras.resized(96), WHITE), render_mesh(mesh, cameras, WHITE, supersample=3)
    torch.testing.assert_close(coarse.rgb, torch.nn.functional.avg_pool2d(fine.rgb, 3), atol=1e-5, rtol=0)
    edge = (coarse.opacity > 0) & (coarse.opacity < 1)
    assert bool(edge.any())
    assert 2.3 < float(coarse.depth[edge].min()) and float(coarse.depth[edge].max()) < 3.2, "not pre-multiplied"
    torch.testing.assert_close(coarse.opacity * 9, (coarse.opacity * 9).round(), atol=1e-4, rtol=0)


def test_a_triangle_that_crosses_the_near_plane_is_dropped() -> None:
    behind = TriangleMesh(torch.tensor([[0.0, 0.5, 0], [-0.5, -0.5, 0], [0, 0, 5.0]]), torch.tensor([[0, 1, 2]]))
    out = render_mesh(behind, Cameras.orbit([0.0], [0.0], height=16), WHITE)
    assert float(out.opacity.max()) == 0 and bool((out.rgb == 1).all())


@pytest.mark.parametrize("invalid", [math.nan, math.inf, 1e30])
def test_invalid_vertices_do_not_affect_other_triangles(invalid: float) -> None:
    mesh = square(0.5)
    vertices = torch.cat([mesh.vertices, torch.tensor([[invalid, 0.0, 0.0]])])
    faces = torch.cat([mesh.faces, torch.tensor([[0, 1, 4], [2, 2, 3]])])
    camera = Cameras.orbit([0.0], [0.0], height=24)
    fragments = rasterize(vertices, faces, camera)
    whole = rasterize(mesh.vertices, mesh.faces, camera)
    hit = whole.triangle >= 0
    assert torch.equal(fragments.triangle[hit], whole.triangle[hit])


def test_no_faces_is_an_empty_image() -> None:
    out = render_mesh(TriangleMesh(torch.zeros(0, 3), torch.zeros(0, 3).long()), Cameras.orbit([0.0], [0.0]), WHITE)
    assert float(out.opacity.sum()) == 0 and bool((out.rgb == 1).all())


def test_bad_input_is_named() -> None:
    camera = Cameras.orbit([0.0], [0.0], height=8)
    with pytest.raises(ValueError, match="but there are 4"):
        rasterize(square().vertices, torch.tensor([[0, 1, 7]]), camera)
    with pytest.raises(ValueError, match="supersample is 0"):
        render_mesh(square(), camera, WHITE, supersample=0)
    with pytest.raises(ValueError, match="both `uvs` and `texture`"):
        render_mesh(square(uvs=torch.zeros(4, 2)), camera, WHITE)


def test_normals_of_faces_and_vertices() -> None:
    corner = TriangleMesh(
        torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 3]]), torch.tensor([[0, 1, 2], [0, 3, 1], [1, 1, 2]])
    )
    expected: Float[Tensor, "3 3"] = torch.tensor([[0.0, 0, 1], [0, 1, 0], [0, 0, 0]])
    torch.testing.assert_close(face_normals(corner.vertices, corner.faces), expected)
    at_origin = torch.tensor([0.0, 3, 1]) / math.sqrt(10)  # weighted by area: 1/2 and 3/2
    torch.testing.assert_close(vertex_normals(corner.vertices, corner.faces)[0], at_origin)
