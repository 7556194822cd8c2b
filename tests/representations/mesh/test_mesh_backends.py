"""The compiled backend against the torch reference, and the calls of the optional packages."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from mesh_samples import bumpy_sphere, cube, sphere, square, triangle_soup
from torch import Tensor

from steindreamer.representations import Cameras, TriangleMesh, vertex_normals
from steindreamer.representations.mesh.rasterization import Raster
from steindreamer.representations.mesh.rasterization.cpu import CpuRaster
from steindreamer.representations.mesh.rasterization.nvdiffrast import clip_positions, shows_outer_side
from steindreamer.representations.mesh.rasterization.raster import to_screen
from steindreamer.representations.mesh.rasterization.reference import TorchRaster
from steindreamer.representations.mesh.rasterization.topology import edges_torch, outline_edges, weld
from steindreamer.representations.mesh.render import draw_mesh

CAMERAS = Cameras.orbit([20.0, 140.0, 260.0], [10.0, -50.0, 88.0], distance=3.0, height=60, width=84)
MESHES = {"bumpy": bumpy_sphere(), "fine": bumpy_sphere(5), "cube": cube(), "square": square(0.9)}
MESHES["soup"] = triangle_soup(torch.Generator().manual_seed(3), 200, 0.2)


@pytest.fixture(params=list(MESHES))
def mesh(request: pytest.FixtureRequest) -> TriangleMesh:
    return MESHES[request.param]


def relative(actual: Tensor | None, expected: Tensor | None) -> float:
    assert actual is not None and expected is not None
    return float((actual - expected).norm() / expected.norm())


def test_gradients_of_values_against_float64_autograd(mesh: TriangleMesh, generator: torch.Generator) -> None:
    screen = to_screen(mesh.vertices, CAMERAS).detach()
    attributes = torch.randn(len(mesh.vertices), 9, generator=generator)
    inputs = [[screen.clone(), attributes.clone()], [screen.double(), attributes.double()]]
    rasters: list[Raster] = []
    for kind, leaves in zip((CpuRaster, TorchRaster), inputs, strict=True):
        raster = kind(leaves[0].requires_grad_(), mesh.faces, (60, 84))
        values = raster.values(leaves[1].requires_grad_())
        weights = torch.randn(values.shape, generator=torch.Generator().manual_seed(1)).to(values)
        (values * weights).sum().backward()
        rasters.append(raster)
    ours, reference = rasters
    assert torch.equal(ours.pixels, reference.pixels) and torch.equal(ours.front, reference.front)
    assert len(ours.pixels) > 1000
    for actual, expected in zip(*inputs, strict=True):
        assert relative(actual.grad, expected.grad) < 1e-5


def test_images_and_gradients_agree(mesh: TriangleMesh, generator: torch.Generator) -> None:
    """Agreement in float32 up to rounding."""
    colors = torch.rand(len(mesh.vertices), 3, generator=generator)
    outputs, gradients = [], []
    for backend in ("cpu", "torch"):
        leaves = [mesh.vertices.clone().requires_grad_(), colors.clone().requires_grad_()]
        drawn = TriangleMesh(leaves[0], mesh.faces, colors=leaves[1])
        out = draw_mesh(drawn, CAMERAS, torch.ones(3, 3), backend=backend)
        images = torch.cat([out.rgb, out.opacity, out.depth, out.normal], 1)
        weights = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
        outputs.append(images)
        gradients.append(torch.autograd.grad((images * weights).sum(), leaves))
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)
    for actual, expected in zip(*gradients, strict=True):
        assert relative(actual, expected) < 1e-4


def test_compiled_normals(mesh: TriangleMesh, generator: torch.Generator) -> None:
    weights = torch.randn(mesh.vertices.shape, generator=generator)
    ours, reference = mesh.vertices.clone().requires_grad_(), mesh.vertices.double().requires_grad_()
    actual = CpuRaster(to_screen(ours, CAMERAS), mesh.faces, (60, 84)).normals(ours)
    expected = vertex_normals(reference, mesh.faces)
    torch.testing.assert_close(actual.double(), expected, atol=1e-4, rtol=0)
    (actual * weights).sum().backward()
    (expected * weights).sum().backward()
    assert relative(ours.grad, reference.grad) < 1e-3


def test_edges_of_compiled_and_torch(mesh: TriangleMesh) -> None:
    """Both contain every edge once, in any order, also edges of three or four faces."""
    fan = torch.tensor([[0, 1, 2], [0, 1, 3], [1, 0, 4], [0, 1, 5]])
    for faces, count in ((mesh.faces, len(mesh.vertices)), (fan, 6), (fan[:3], 6), (fan[:0], 6), (fan[:0], 0)):
        vertices = torch.arange(3.0 * count).reshape(-1, 3)
        ours, reference = outline_edges(vertices, faces), edges_torch(faces, count)
        assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, reference.tolist()))
    closed = outline_edges(sphere(1.0).vertices, sphere(1.0).faces)
    assert len(closed) == 1.5 * len(sphere(1.0).faces) and int(closed.min()) >= 0


def test_welding_joins_open_edges_only() -> None:
    mesh = sphere(1.0, 2)
    corners = mesh.faces.flatten()
    loose, cut = mesh.vertices[corners], torch.arange(len(corners)).reshape(-1, 3)
    welded = weld(loose, cut)
    assert torch.equal(loose[welded], loose[cut]) and len(welded.unique()) == len(mesh.vertices)
    assert weld(mesh.vertices, mesh.faces) is mesh.faces


def test_clip_positions_follow_opengl() -> None:
    """After the division by w: x and y run from -1 to 1 over the image, z from -1 at the near plane to 1."""
    screen = torch.tensor([[[0.0, 0, 0.01], [20, 10, 1000.0], [10, 5, 1.0]]])
    clip = clip_positions(screen, (10, 20))
    expected = torch.tensor([[[-1.0, -1, -1], [1, 1, 1], [0, 0, 0.98]]])
    torch.testing.assert_close(clip[..., :3] / clip[..., 3:], expected, atol=1e-4, rtol=0)


def test_the_side_of_a_triangle_around_the_camera(generator: torch.Generator) -> None:
    """nvdiffrast clips triangles with corners behind the camera; the visible side is that of the camera."""
    corners = torch.randn(500, 3, 3, generator=generator, dtype=torch.float64)
    cameras = Cameras.orbit([20.0], [10.0], distance=0.3, height=40, width=64)
    pixels, depth = cameras.project(corners.reshape(-1, 3).float())
    visible_side = shows_outer_side(torch.cat([pixels[0], depth[0, :, None]], 1).reshape(-1, 3, 3))
    a, b, c = corners.unbind(1)
    height = ((cameras.position[0].double() - a) * torch.linalg.cross(b - a, c - a)).sum(1)
    clear = height.abs() > 1e-3
    behind = (depth[0].reshape(-1, 3) < 0).sum(1)
    assert torch.equal(visible_side[clear], height[clear] > 0)
    assert {0, 1, 2} <= set(behind[clear].tolist())


@pytest.mark.parametrize("backend", ["nvdiffrast", "pytorch3d"])
def test_a_missing_package_is_named(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nvdiffrast.torch", "pytorch3d.structures"):
        monkeypatch.setitem(sys.modules, name, None)
    expected = "on a CUDA device" if backend == "nvdiffrast" else "pip install --no-build-isolation 'git.https"
    with pytest.raises(ValueError, match=expected):
        draw_mesh(square(), CAMERAS, torch.ones(3, 3), backend=backend)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (40, 64), (64, 40)])
def test_pytorch3d_is_called_in_its_own_conventions(height: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake rasterizer with the documented axes: x left, y up, -1 to 1 over the shorter side."""

    def meshes(verts: list[Tensor], faces: list[Tensor]) -> SimpleNamespace:
        return SimpleNamespace(vertices=verts[0], faces=faces[0])

    def rasterize_meshes(mesh: SimpleNamespace, image_size: tuple[int, int], **options: object) -> tuple[Tensor, ...]:
        assert options == {"blur_radius": 0.0, "faces_per_pixel": 1, "perspective_correct": True}
        short = min(image_size)
        y, x = ((n / short) * (1 - (2 * torch.arange(n) + 1) / n) for n in image_size)
        a, b, c = mesh.vertices[mesh.faces].unbind(1)
        point = torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)[:, :, None]

        def edge(u: Tensor, v: Tensor) -> Tensor:
            d, p = (v - u)[:, :2], point - u[:, :2]
            return d[:, 0] * p[..., 1] - d[:, 1] * p[..., 0]

        weights = torch.stack([edge(b, c), edge(c, a), edge(a, b)], -1)
        weights = weights / weights.sum(-1, keepdim=True)
        inverse = (weights / torch.stack([a[:, 2], b[:, 2], c[:, 2]], -1)).sum(-1)
        inverse = torch.where((weights >= 0).all(-1), inverse, 0)
        nearest, index = inverse.max(-1)
        return torch.where(nearest > 0, index, -1)[None, :, :, None], nearest

    for name, function in (
        ("pytorch3d.structures.Meshes", meshes),
        ("pytorch3d.renderer.mesh.rasterize_meshes.rasterize_meshes", rasterize_meshes),
    ):
        path, _, attribute = name.rpartition(".")
        module = ModuleType(path)
        setattr(module, attribute, function)
        monkeypatch.setitem(sys.modules, path, module)
    cameras = Cameras.orbit([20.0, 200.0], [10.0, -40.0], height=height, width=width)
    mesh = bumpy_sphere(2)
    ours, theirs = (draw_mesh(mesh, cameras, torch.ones(2, 3), backend=name) for name in ("cpu", "pytorch3d"))
    assert float(((ours.rgb - theirs.rgb).abs() > 1e-3).float().mean()) < 1e-3
    torch.testing.assert_close(ours.opacity, theirs.opacity, atol=1e-3, rtol=0)
