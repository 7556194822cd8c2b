"""Conversions to PyTorch3D, checked on what it computes from them; skipped where it cannot be imported."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import trimesh
from scipy.spatial import KDTree
from torch import Tensor

from steindreamer.representations import Cameras, TriangleMesh, face_normals, render_mesh, vertex_normals
from steindreamer.representations.interop.pytorch3d import (
    cameras_to_pytorch3d,
    chamfer_distance,
    mesh_losses,
    to_pytorch3d,
)

REASON = "needs PyTorch3D (docs/optional_packages.md)"
HEIGHT, WIDTH = 60, 84


@pytest.fixture
def pytorch3d() -> Any:
    pytest.importorskip("pytorch3d._C", reason=REASON, exc_type=ImportError)
    return pytest.importorskip("pytorch3d.renderer", reason=REASON, exc_type=ImportError)


def sphere(generator: torch.Generator) -> TriangleMesh:
    """With some bumps, so that no symmetry hides an error."""
    shape = trimesh.creation.icosphere(subdivisions=3, radius=0.7)
    vertices = torch.tensor(shape.vertices, dtype=torch.float32)
    return TriangleMesh(
        vertices * (1 + 0.1 * torch.rand(len(vertices), 1, generator=generator)), torch.tensor(shape.faces)
    )


def views() -> Cameras:
    """Off-center, with non-square pixels."""
    cameras = Cameras.orbit([10.0, 200.0, -70.0], [20.0, -60.0, 89.0], height=HEIGHT, width=WIDTH)
    intrinsics = cameras.intrinsics * torch.tensor([1.2, 0.9, 1.0])[:, None]
    return Cameras(cameras.camera_to_world, intrinsics, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    "call",
    [
        lambda mesh: to_pytorch3d(mesh),
        lambda mesh: cameras_to_pytorch3d(views()),
        lambda mesh: chamfer_distance(mesh.vertices, mesh.vertices),
        lambda mesh: mesh_losses(mesh.vertices, mesh.faces),
    ],
    ids=["mesh", "cameras", "chamfer", "losses"],
)
def test_missing_package_is_named(
    call: Callable[[TriangleMesh], Any], monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "pytorch3d"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    with pytest.raises(ValueError, match=r"needs the pytorch3d package.*pip install"):
        call(sphere(generator))


def test_cameras_project_alike(pytorch3d: Any, generator: torch.Generator) -> None:
    points = torch.rand(50, 3, generator=generator) - 0.5
    pixels, depth = views().project(points)
    theirs = cameras_to_pytorch3d(views())
    screen = theirs.transform_points_screen(points.expand(3, -1, -1))
    torch.testing.assert_close(screen[..., :2], pixels, rtol=0, atol=1e-4)
    local = theirs.get_world_to_view_transform().transform_points(points)
    torch.testing.assert_close(local[..., 2], depth, rtol=0, atol=1e-5)


def draw(renderer: Any, mesh: TriangleMesh) -> tuple[Tensor, Tensor, Tensor]:
    """Opacity, depth and color by PyTorch3D's rasterizer on the CPU."""
    settings = renderer.RasterizationSettings(image_size=(HEIGHT, WIDTH), blur_radius=0.0, faces_per_pixel=1)
    meshes = to_pytorch3d(mesh).extend(3)
    fragments = renderer.MeshRasterizer(cameras=cameras_to_pytorch3d(views()), raster_settings=settings)(meshes)
    hit = fragments.pix_to_face[..., 0] >= 0
    color = meshes.sample_textures(fragments)[..., 0, :]
    return hit, fragments.zbuf[..., 0], color.permute(0, 3, 1, 2)


@pytest.mark.parametrize("appearance", ["colors", "texture"])
def test_images_agree(pytorch3d: Any, appearance: str, generator: torch.Generator) -> None:
    mesh = sphere(generator)
    colors, uvs, texture = None, None, None
    if appearance == "colors":
        colors = torch.rand(mesh.vertices.shape, generator=generator)
    else:
        uvs = mesh.vertices[:, :2] * 0.6 + 0.5
        texture = torch.rand(3, 8, 16, generator=generator)
    mesh = TriangleMesh(mesh.vertices, mesh.faces, colors=colors, uvs=uvs, texture=texture)
    ours = render_mesh(mesh, views(), torch.zeros(3, 3))
    hit, depth, color = draw(pytorch3d, mesh)
    agree = hit == (ours.opacity[:, 0] > 0.5)
    assert 0.1 < hit.float().mean() < 0.9 and agree.float().mean() > 0.999
    both = hit & agree
    # Float32 barycentrics of small triangles; a whole pixel of displacement would be ten times as much.
    assert (depth - ours.depth[:, 0])[both].abs().max() < 1e-3
    assert (color - ours.rgb).abs().amax(1)[both].max() < 5e-3


def test_meshes_carry_normals_and_gradients(pytorch3d: Any, generator: torch.Generator) -> None:
    mesh = sphere(generator)
    vertices = mesh.vertices.requires_grad_()
    normals = vertex_normals(vertices.detach(), mesh.faces)
    meshes = to_pytorch3d(TriangleMesh(vertices, mesh.faces, normals=normals))
    torch.testing.assert_close(meshes.verts_normals_packed(), normals)
    torch.testing.assert_close(meshes.faces_normals_packed(), face_normals(vertices, mesh.faces))
    (gradient,) = torch.autograd.grad(meshes.faces_areas_packed().sum(), vertices)
    assert gradient.abs().sum() > 0
    with pytest.raises(ValueError, match="uvs"):
        to_pytorch3d(TriangleMesh(vertices, mesh.faces, texture=torch.rand(3, 4, 4)))


def test_chamfer_distance_is_the_nearest_neighbors(pytorch3d: Any, generator: torch.Generator) -> None:
    points, others = torch.rand(200, 3, generator=generator), torch.rand(150, 3, generator=generator)
    expected = sum(
        (KDTree(target.numpy()).query(query.numpy())[0] ** 2).mean()
        for query, target in ((points, others), (others, points))
    )
    assert chamfer_distance(points, others).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
def test_mesh_losses_are_their_definitions(pytorch3d: Any, generator: torch.Generator) -> None:
    mesh = sphere(generator)
    vertices, faces = mesh.vertices, mesh.faces
    shape = trimesh.Trimesh(vertices.numpy(), faces.numpy(), process=False)
    edges = torch.tensor(shape.edges_unique)
    ends = torch.cat([edges, edges.flip(1)])
    neighbors = torch.zeros_like(vertices).index_add(0, ends[:, 0], vertices[ends[:, 1]])
    degree = torch.bincount(ends[:, 0])[:, None]
    pairs = face_normals(vertices, faces)[torch.tensor(shape.face_adjacency)]
    expected = {
        "laplacian": (neighbors / degree - vertices).norm(dim=1).mean(),
        "edge_normal_consistency": (1 - (pairs[:, 0] * pairs[:, 1]).sum(1)).mean(),
        "edge_length": ((vertices[edges[:, 0]] - vertices[edges[:, 1]]).norm(dim=1) - 0.1).square().mean(),
    }
    losses = mesh_losses(vertices, faces, edge_target=0.1)
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, rtol=1e-4, atol=1e-7, msg=name)


@pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning")
@pytest.mark.parametrize("count", [0, 1])
def test_losses_of_a_mesh_without_edges_between_faces(pytorch3d: Any, count: int) -> None:
    vertices = torch.eye(3).requires_grad_()
    losses = mesh_losses(vertices, torch.tensor([[0, 1, 2]])[:count])
    assert losses["edge_normal_consistency"] == 0
    assert (losses["laplacian"] == 0) == (count == 0)
    torch.stack(list(losses.values())).sum().backward()
