"""nvdiffrast and the torch reference on CUDA against the compiled CPU backend: values and gradients."""

import pytest
import torch
from mesh_samples import bumpy_sphere, cube, square
from torch import Tensor, nn

from steindreamer.representations import Cameras, RenderOutput, TriangleMesh
from steindreamer.representations.mesh.render import draw_mesh

pytestmark = pytest.mark.gpu

IMAGES = ("rgb", "opacity", "depth", "normal")
BACKENDS = ["nvdiffrast", "torch", "pytorch3d"]


def draw(
    mesh: TriangleMesh, cameras: Cameras, backend: str, antialias: bool, images: tuple[str, ...] = IMAGES
) -> tuple[RenderOutput, list[Tensor]]:
    """Images and gradients in vertices and colors, computed on the CPU for `cpu`, else on CUDA; returned on the CPU."""
    if backend in ("nvdiffrast", "pytorch3d"):
        pytest.importorskip(backend, reason=f"needs the {backend} package")
    device = "cpu" if backend == "cpu" else "cuda"
    assert mesh.colors is not None
    leaves = [tensor.to(device).clone().requires_grad_() for tensor in (mesh.vertices, mesh.colors)]
    drawn = TriangleMesh(leaves[0], mesh.faces.to(device), colors=leaves[1])
    background = torch.ones(len(cameras), 3, device=device)
    out = draw_mesh(drawn, cameras.to(device), background, backend=backend, antialias=antialias)
    generator = torch.Generator().manual_seed(1)
    total = torch.zeros((), device=device)
    for name in images:
        image = getattr(out, name)
        total = total + (image * torch.rand(image.shape, generator=generator).to(device)).sum()
    return out, [gradient.cpu() for gradient in torch.autograd.grad(total, leaves)]


def colored(mesh: TriangleMesh) -> TriangleMesh:
    return TriangleMesh(mesh.vertices, mesh.faces, colors=mesh.vertices * 0.5 + 0.5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("height", "width"), [(64, 64), (40, 96), (97, 51)])
@pytest.mark.parametrize("antialias", [False, True])
def test_equal_to_the_cpu_backend(backend: str, height: int, width: int, antialias: bool) -> None:
    """Off-center images must not be flipped. Triangles are larger than pixels: nvdiffrast misses edges of smaller ones.

    With antialiasing nvdiffrast may choose another edge where outlines meet, hence the quantiles.
    """
    mesh = colored(bumpy_sphere(2))
    cameras = Cameras.orbit([20.0, 200.0], [10.0, -50.0], distance=3.2, height=height, width=width)
    intrinsics = cameras.intrinsics.clone()
    intrinsics[:, :2, 2] += torch.tensor([3.3, -2.2])
    cameras = Cameras(cameras.camera_to_world, intrinsics, height, width)
    expected, expected_gradients = draw(mesh, cameras, "cpu", antialias)
    actual, gradients = draw(mesh, cameras, backend, antialias)
    for name in IMAGES:
        error = (getattr(actual, name).cpu() - getattr(expected, name)).abs()
        assert error.quantile(0.98 if antialias else 0.995) < 2e-3, name
    for gradient, reference in zip(gradients, expected_gradients, strict=True):
        assert (gradient - reference).norm() < (0.15 if antialias else 0.02) * reference.norm()


@pytest.mark.parametrize("backend", BACKENDS)
def test_silhouette_derivative_of_a_cube(backend: str) -> None:
    """d(opacity)/d(scale), which depends on the outline only; straight edges make it unambiguous."""
    mesh = colored(cube())
    cameras = Cameras.orbit([25.0], [20.0], height=128)
    slopes = []
    for name in ("cpu", backend):
        _, (gradient, _) = draw(mesh, cameras, name, True, ("opacity",))
        slopes.append(float((gradient * mesh.vertices).sum()))
    assert slopes[1] == pytest.approx(slopes[0], rel=0.02)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_a_colored_mesh_trains_on_cuda(backend: str) -> None:
    if backend in ("nvdiffrast", "pytorch3d"):
        pytest.importorskip(backend, reason=f"needs the {backend} package")
    mesh, layer = bumpy_sphere(3), nn.Linear(3, 3, device="cuda")
    vertices = mesh.vertices.cuda().requires_grad_()
    cameras = Cameras.orbit([0.0, 90.0], [0.0, 0.0], height=48).to("cuda")
    background = torch.zeros(2, 3, device="cuda")
    optimizer = torch.optim.Adam([vertices, *layer.parameters()], lr=5e-3)
    losses = []
    for _ in range(30):
        out = draw_mesh(
            TriangleMesh(vertices, mesh.faces.cuda()), cameras, background, color=lambda p: layer(p).sigmoid(),
            backend=backend,
        )  # fmt: skip
        loss = (out.rgb - 0.9 * out.opacity.detach()).square().mean() - 0.1 * out.opacity.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] and bool(vertices.isfinite().all())


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_an_empty_mesh_on_cuda(backend: str) -> None:
    if backend in ("nvdiffrast", "pytorch3d"):
        pytest.importorskip(backend, reason=f"needs the {backend} package")
    vertices = square().vertices.cuda().requires_grad_()
    mesh = TriangleMesh(vertices, torch.zeros(0, 3, dtype=torch.long, device="cuda"))
    cameras = Cameras.orbit([0.0], [0.0], height=8).to("cuda")
    out = draw_mesh(mesh, cameras, torch.ones(1, 3, device="cuda"), backend=backend)
    out.rgb.sum().backward()
    assert bool((out.rgb == 1).all()) and vertices.grad is not None and not bool(vertices.grad.any())
