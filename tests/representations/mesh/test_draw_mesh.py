"""Differentiable rendering of meshes against invariants, closed forms and finite differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import numba
import pytest
import torch
from jaxtyping import Float
from mesh_samples import bumpy_sphere, cube, joined, sphere, square, triangle_soup
from torch import Tensor, nn

from steindreamer.representations import Cameras, RenderOutput, TriangleMesh, render_mesh, vertex_normals
from steindreamer.representations.mesh.render import draw_mesh

WHITE = torch.ones(1, 3)
BACKENDS = ["cpu", "torch"]
IMAGES = ("rgb", "opacity", "depth", "normal")
Measure = Callable[[RenderOutput], Float[Tensor, ""]]


def weighted_sum(output: RenderOutput) -> Float[Tensor, ""]:
    """A scalar that depends on every pixel of every image."""
    generator = torch.Generator().manual_seed(5)
    images = [getattr(output, name) for name in IMAGES]
    return torch.stack([(p * torch.randn(p.shape, generator=generator)).sum() for p in images]).sum()


def ramp(image: Float[Tensor, "b 1 h w"]) -> Float[Tensor, ""]:
    """Mean over the batch of the sum of all pixels, weighted by their position from 0 (left) to 1 (right)."""
    return (image * (torch.arange(image.shape[3]) + 0.5) / image.shape[3]).sum() / len(image)


def area(output: RenderOutput) -> Float[Tensor, ""]:
    return output.opacity.sum() / len(output.opacity)


def shifted(azimuth: float, elevation: float, count: int = 8) -> Cameras:
    """Cameras of one view with images shifted by various fractions of a pixel.

    Antialiasing samples an outline once per row or column, so that one image's derivative is only good to 2 or 3 %.
    """
    cameras = Cameras.orbit([azimuth] * count, [elevation] * count, distance=3.0, height=128)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[:, :2, 2] += torch.arange(count)[:, None] * torch.tensor([0.618, 0.755]) % 1
    return Cameras(cameras.camera_to_world, intrinsics, 128, 128)


def slopes(
    mesh: TriangleMesh, move: Float[Tensor, "v 3"], cameras: Cameras, measure: Measure, backend: str = "cpu"
) -> tuple[float, float]:
    """The derivative d(measure)/d(x), where the vertices are v + x * move, by autograd and by a central difference."""
    step = 0.02

    def drawn(x: Tensor) -> Tensor:
        moved = TriangleMesh(mesh.vertices + x * move, mesh.faces, colors=mesh.colors)
        return measure(draw_mesh(moved, cameras, torch.zeros(len(cameras), 3), backend=backend))

    x = torch.zeros((), requires_grad=True)
    (gradient,) = torch.autograd.grad(drawn(x), x)
    with torch.no_grad():
        difference = (drawn(torch.tensor(step)) - drawn(torch.tensor(-step))) / (2 * step)
    return gradient.item(), difference.item()


@pytest.mark.parametrize("subdivisions", [3, 4, 5])
@pytest.mark.parametrize("backend", BACKENDS)
def test_area_of_a_sphere_and_its_derivative(backend: str, subdivisions: int) -> None:
    """From distance d, the outline is a circle of radius f r / sqrt(d^2 - r^2) pixels.

    The polyhedron's own outline is smaller: by 0.4, 0.1 and 0.03 %.
    """
    radius, distance = 0.8, 3.0
    mesh, cameras = sphere(radius, subdivisions), shifted(20.0, 10.0)
    focal = cameras.intrinsics[0, 0, 0].item()
    expected = math.pi * focal**2 * radius**2 / (distance**2 - radius**2)
    areas = draw_mesh(mesh, cameras, WHITE.expand(8, 3), backend=backend).opacity.sum((1, 2, 3))
    tolerance = 6e-3 if subdivisions == 3 else 2e-3
    torch.testing.assert_close(areas, torch.full((8,), expected), rtol=tolerance, atol=0)
    derivative = 2 * expected * distance**2 / (distance**2 - radius**2)
    ours, difference = slopes(mesh, mesh.vertices, cameras, area, backend)
    assert ours == pytest.approx(derivative, rel=0.01)
    assert ours == pytest.approx(difference, rel=0.01)


SOLIDS = {"sphere": sphere(0.8), "coarse sphere": sphere(0.8, 2), "cube": cube(), "bumpy": bumpy_sphere()}


@pytest.mark.parametrize("solid", list(SOLIDS))
@pytest.mark.parametrize("angle", [0.0, 25.0, 160.0])
def test_silhouette_derivatives_are_finite_differences(solid: str, angle: float) -> None:
    """Derivatives of the area by the scale, and of the weighted area by translations to the right and down."""
    mesh, cameras = SOLIDS[solid], shifted(angle, angle / 3)
    right, down = cameras.camera_to_world[0, :3, 0], cameras.camera_to_world[0, :3, 1]
    cases: list[tuple[Tensor, Measure]] = [
        (mesh.vertices, area),
        (right.expand_as(mesh.vertices), lambda out: ramp(out.opacity)),
        (down.expand_as(mesh.vertices), lambda out: ramp(out.opacity.transpose(2, 3))),
    ]
    for move, measure in cases:
        ours, difference = slopes(mesh, move, cameras, measure)
        assert abs(difference) > 1000
        assert ours == pytest.approx(difference, rel=0.02)


@pytest.mark.parametrize("backend", BACKENDS)
def test_color_derivative_across_an_occlusion_edge(backend: str) -> None:
    """A red part moves in front of a blue one in the same mesh: the red area moves, the blue area changes with it."""
    front, back = sphere(0.35, 3), square(0.9, -0.5)
    mesh = joined(front, back, colors=torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]))
    cameras = shifted(0.0, 0.0)
    move = torch.zeros_like(mesh.vertices)
    move[: len(front.vertices), 0] = 1.0
    for channel, sign in ((0, 1), (2, -1)):
        ours, difference = slopes(mesh, move, cameras, lambda out, c=channel: ramp(out.rgb[:, c : c + 1]), backend)
        assert sign * difference > 500
        assert ours == pytest.approx(difference, rel=0.02)
    green = torch.tensor([[0.0, 1.0, 0.0]]).expand(8, 3)
    out = draw_mesh(mesh, cameras, green, backend=backend)
    covered = (render_mesh(square(0.85, -0.5), cameras, green).opacity > 0)[:, 0]
    assert float(out.rgb[:, 1][covered].max()) < 1e-6, "the background must not shine through between two parts"
    assert bool((out.opacity[:, 0][covered] == 1).all())
    torch.testing.assert_close(out.rgb[:, 0][covered], 1 - out.rgb[:, 2][covered])


@pytest.mark.parametrize("backend", BACKENDS)
def test_depth_derivative_of_a_plane(backend: str) -> None:
    """Moved by t toward the camera, a plane n p = c is nearer by t n_z / (n r) along every ray r of unit depth."""
    mesh = square(0.8)
    turn = torch.tensor([[0.8, 0, 0.6], [0, 1, 0], [-0.6, 0, 0.8]])
    vertices = (mesh.vertices @ turn.T).requires_grad_()
    camera = Cameras.orbit([0.0], [0.0], distance=3.0, height=48)
    out = draw_mesh(TriangleMesh(vertices, mesh.faces), camera, WHITE, backend=backend)
    inside = out.opacity[:, 0] == 1
    rays, normal = camera.rays().permute(0, 2, 3, 1)[inside], turn @ torch.tensor([0.0, 0, 1])
    out.depth[:, 0][inside].sum().backward()
    assert vertices.grad is not None
    expected = (normal[2] / (rays @ normal)).sum()
    torch.testing.assert_close(vertices.grad[:, 2].sum(), expected, rtol=2e-3, atol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_normals_rotate_with_the_surface(backend: str) -> None:
    """Under a rotation by a small angle about y, the normal of a square (0, 0, 1) moves by that angle toward +x."""
    mesh, camera = square(0.6), Cameras.orbit([0.0], [0.0], height=24)
    angle = torch.zeros((), requires_grad=True)
    sine, cosine, zero = angle.sin(), angle.cos(), torch.zeros(())
    turn = torch.stack([cosine, zero, sine, zero, zero + 1, zero, -sine, zero, cosine]).reshape(3, 3)
    out = draw_mesh(TriangleMesh(mesh.vertices @ turn.T, mesh.faces), camera, WHITE, backend=backend)
    (slope,) = torch.autograd.grad(out.normal[0, 0, 12, 12], angle)
    torch.testing.assert_close(slope, torch.ones(()), rtol=1e-4, atol=0)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bits_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    mesh = bumpy_sphere()
    cameras = Cameras.orbit([10.0, 200.0, 300.0], [10.0, -70.0, 5.0], height=70)

    def draw() -> list[Tensor]:
        vertices = mesh.vertices.clone().requires_grad_()
        colors = (mesh.vertices * 0.5 + 0.5).requires_grad_()
        out = draw_mesh(TriangleMesh(vertices, mesh.faces, colors=colors), cameras, WHITE.expand(3, 3))
        gradients = torch.autograd.grad(weighted_sum(out), [vertices, colors])
        return [*(getattr(out, name) for name in IMAGES), *gradients]

    reference = draw()
    available, limit = torch.get_num_threads(), numba.get_num_threads()
    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, limit))
    try:
        assert all(torch.equal(one, other) for one, other in zip(draw(), reference, strict=True))
    finally:
        torch.set_num_threads(available)
        numba.set_num_threads(limit)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [0.03, 0.1, 0.5])
def test_values_stay_in_range_for_random_triangles(backend: str, size: float, generator: torch.Generator) -> None:
    """Triangles smaller and larger than a pixel, with holes and slivers: pixels are means of visible colors."""
    mesh = triangle_soup(generator, 400, size)
    mesh = TriangleMesh(mesh.vertices, mesh.faces, colors=torch.rand(len(mesh.vertices), 3, generator=generator))
    cameras = Cameras.orbit([0.0, 100.0], [20.0, -40.0], distance=5.0, height=40, width=56)
    out = draw_mesh(mesh, cameras, torch.tensor([[1.0, 1, 1], [0, 0, 0]]), backend=backend)
    assert out.opacity.min() >= 0 and out.opacity.max() <= 1 + 1e-6
    assert out.rgb.min() >= -1e-6 and out.rgb.max() <= 1 + 1e-6
    drawn = out.opacity > 0
    assert float(out.depth[drawn & (out.depth > 0)].min()) > 1.5 and float(out.depth.max()) < 8
    lengths = out.normal.norm(dim=1, keepdim=True)
    assert bool((((lengths - 1).abs() < 1e-4) | (lengths == 0)).all())
    assert not bool((lengths[~drawn] > 0).any()) and not bool((out.depth[~drawn] > 0).any())


@pytest.mark.parametrize("backend", BACKENDS)
def test_antialiasing_approximates_supersampling(backend: str) -> None:
    mesh, camera = bumpy_sphere(), Cameras.orbit([40.0], [20.0], height=64)
    exact = render_mesh(mesh, camera, WHITE, supersample=8)
    smooth, sharp = (draw_mesh(mesh, camera, WHITE, backend=backend, antialias=aa) for aa in (True, False))
    assert torch.equal(sharp.opacity, (sharp.opacity > 0).float())

    def error(output: RenderOutput) -> float:
        return float((output.opacity - exact.opacity).square().sum() + (output.rgb - exact.rgb).square().sum())

    assert error(smooth) < 0.1 * error(sharp)
    edge = (smooth.opacity > 0.05) & (smooth.opacity < 1) & (exact.opacity > 0)
    assert int(edge.sum()) > 50
    wrong = (smooth.depth - exact.depth)[edge].abs()
    assert float(wrong.quantile(0.9)) < 0.1 and float(wrong.max()) < 0.5, "where folds meet, the mean is another one"
    cosine = (smooth.normal * exact.normal).sum(1, keepdim=True)[edge]
    assert float(cosine.median()) > 0.97 and float(cosine.min()) > 0.5


@pytest.mark.parametrize("backend", BACKENDS)
def test_texture_seams_are_not_silhouettes(backend: str) -> None:
    """If every corner of every face is a separate vertex, the image and the derivative do not change."""
    mesh, camera = bumpy_sphere(3), Cameras.orbit([40.0], [20.0], height=64)
    normals, colors = vertex_normals(mesh.vertices, mesh.faces), torch.rand(len(mesh.vertices), 3)
    vertices = mesh.vertices.clone().requires_grad_()
    corners = mesh.faces.flatten()
    cut = torch.arange(len(corners)).reshape(-1, 3)
    whole = TriangleMesh(vertices, mesh.faces, normals, colors)
    loose = TriangleMesh(vertices[corners], cut, normals[corners], colors[corners])
    one, other = (draw_mesh(m, camera, WHITE, backend=backend) for m in (whole, loose))
    for name in IMAGES:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-5, rtol=0)
    (expected,), (actual,) = (torch.autograd.grad(weighted_sum(out), vertices) for out in (one, other))
    assert (actual - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize("backend", BACKENDS)
def test_color_is_called_once_with_the_visible_points(backend: str) -> None:
    mesh, cameras = sphere(0.8), Cameras.orbit([0.0, 90.0], [0.0, 30.0], height=32)
    asked: list[Tensor] = []
    layer = nn.Linear(3, 3)

    def color(points: Tensor) -> Tensor:
        asked.append(points.detach())
        return layer(points).sigmoid()

    out = draw_mesh(mesh, cameras, torch.zeros(2, 3), color=color, backend=backend, antialias=False)
    assert len(asked) == 1 and len(asked[0]) == int(out.opacity.sum())
    torch.testing.assert_close(asked[0].norm(dim=1), torch.full((len(asked[0]),), 0.8), atol=5e-3, rtol=0)
    shown = out.rgb.permute(0, 2, 3, 1)[out.opacity[:, 0] > 0]
    torch.testing.assert_close(shown, layer(asked[0]).sigmoid(), atol=1e-5, rtol=0)
    out.rgb.sum().backward()
    value = layer(asked[0]).sigmoid()
    assert layer.bias.grad is not None
    torch.testing.assert_close(layer.bias.grad, (value * (1 - value)).sum(0).detach(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_texture_gradient(backend: str, generator: torch.Generator) -> None:
    """The image is linear in the texture, so the gradient predicts it exactly."""
    uvs = torch.tensor([[0.0, 0], [0, 1], [1, 1], [1, 0]])
    texture = torch.rand(3, 12, 9, generator=generator).requires_grad_()
    camera = Cameras.orbit([30.0], [15.0], height=40)
    out = draw_mesh(square(0.8, uvs=uvs, texture=texture), camera, torch.zeros(1, 3), backend=backend)
    weights = torch.rand(out.rgb.shape, generator=generator)
    (gradient,) = torch.autograd.grad((out.rgb * weights).sum(), texture)
    torch.testing.assert_close((gradient * texture).sum(), (out.rgb * weights).sum(), rtol=1e-4, atol=0)
    assert bool((gradient > 0).any(dim=0).float().mean() > 0.9)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_an_empty_mesh_is_background_with_zero_gradients(backend: str) -> None:
    vertices, layer = torch.rand(4, 3).requires_grad_(), nn.Linear(3, 3)
    mesh = TriangleMesh(vertices, torch.zeros(0, 3, dtype=torch.long))
    background = torch.tensor([[0.2, 0.4, 0.6], [1.0, 0, 0]])
    out = draw_mesh(
        mesh, Cameras.orbit([0.0, 9.0], [0.0, 0.0], height=8), background, color=lambda p: layer(p), backend=backend
    )
    torch.testing.assert_close(out.rgb, background[:, :, None, None].expand(2, 3, 8, 8))
    assert not any(bool(p.any()) for p in (out.opacity, out.depth, out.normal))
    weighted_sum(out).backward()
    assert vertices.grad is not None and not bool(vertices.grad.any())
    assert layer.weight.grad is not None and not bool(layer.weight.grad.any())


def test_an_edge_half_way_between_pixels_has_a_derivative() -> None:
    """Opacity is continuous: the outline of the square is exactly on pixel borders, and d(area)/d(scale) = 2 area."""
    camera = Cameras.orbit([0.0], [0.0], distance=2.0, field_of_view=90.0, height=32)
    mesh = square(1.0)
    ours, difference = slopes(mesh, mesh.vertices, camera, area)
    assert ours == pytest.approx(2 * 16**2, rel=0.03) and difference == pytest.approx(2 * 16**2, rel=0.03)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_part_behind_the_camera_does_not_affect_the_rest(backend: str) -> None:
    """Faces that extend behind the camera are dropped; the others keep their outline and finite gradients."""
    mesh = square(0.5)
    vertices = torch.cat([mesh.vertices, torch.tensor([[0.0, 0.0, 9.0]])]).requires_grad_()
    faces = torch.cat([mesh.faces, torch.tensor([[0, 1, 4], [3, 0, 4]])])
    camera = Cameras.orbit([20.0], [0.0], height=32)
    out = draw_mesh(TriangleMesh(vertices, faces), camera, WHITE, backend=backend)
    whole = draw_mesh(mesh, camera, WHITE, backend=backend)
    torch.testing.assert_close(out.opacity, whole.opacity)
    (gradient,) = torch.autograd.grad(out.opacity.sum(), vertices)
    assert bool(gradient.isfinite().all()) and bool(gradient.any())


def test_bad_input_is_named() -> None:
    camera = Cameras.orbit([0.0], [0.0], height=8)
    with pytest.raises(ValueError, match=r"unknown rasterization backend 'opengl'; choose one of \['auto', 'cpu'"):
        draw_mesh(square(), camera, WHITE, backend="opengl")
    with pytest.raises(ValueError, match="but there are 4"):
        draw_mesh(TriangleMesh(square().vertices, torch.tensor([[0, 1, 7]])), camera, WHITE)
    with pytest.raises(ValueError, match="both `uvs` and `texture`"):
        draw_mesh(square(uvs=torch.zeros(4, 2)), camera, WHITE)
    with pytest.raises(ValueError, match="needs tensors on a CUDA device, got cpu"):
        draw_mesh(square(), camera, WHITE, backend="nvdiffrast")
    with pytest.raises(ValueError, match="needs CPU tensors, got meta"):
        draw_mesh(TriangleMesh(torch.zeros(0, 3, device="meta"), square().faces[:0]), camera, WHITE, backend="cpu")
