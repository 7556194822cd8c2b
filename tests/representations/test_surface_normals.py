"""Normals of a rendered depth: planes and spheres in closed form, outlines, empty pixels, gradients."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from random_splats import random_cameras
from torch import Tensor

from steindreamer.representations import Cameras
from steindreamer.representations.ops import surface_normals

CAMERAS = Cameras.orbit([0.0, 70.0], [10.0, -20.0], distance=3.0, height=48, width=64)


def plane_depth(normal: Tensor, cameras: Cameras) -> Tensor:
    """The z-depth of the plane through the origin with this normal."""
    toward = (cameras.rays() * normal[None, :, None, None]).sum(1, keepdim=True)
    return -(cameras.position @ normal)[:, None, None, None] / toward


def degrees(one: Tensor, other: Tensor) -> Tensor:
    """The angle between vectors, `[b h w]`."""
    sine = torch.linalg.cross(one, other.expand_as(one), dim=1).norm(dim=1)
    return torch.atan2(sine, (one * other).sum(1)).rad2deg()


@pytest.mark.parametrize("tilt", [(0.0, 0.0, 1.0), (0.2, 0.4, 0.9)])
def test_a_plane_has_its_normal_at_every_pixel(tilt: tuple[float, float, float]) -> None:
    """Also at the border of the image, at a slant, from off-center cameras with pixels that are not square."""
    normal = F.normalize(torch.tensor(tilt), dim=0)
    cameras = Cameras.orbit([0.0, 20.0], [0.0, 15.0], height=20, width=28)
    intrinsics = cameras.intrinsics * torch.tensor([1.5, 1.0, 1.0])[:, None] + torch.tensor(
        [[0, 0, 3.0], [0] * 3, [0] * 3]
    )
    cameras = replace(cameras, intrinsics=intrinsics)
    depth = plane_depth(normal, cameras)
    found = surface_normals(depth, torch.ones_like(depth), cameras)
    torch.testing.assert_close(found, normal[None, :, None, None].expand_as(found), atol=2e-4, rtol=0)


def test_a_sphere_over_an_empty_background() -> None:
    """Unit normals that agree with the sphere and face the camera, one-sided at the outline; 0 in the background."""
    rays, origin = CAMERAS.rays(), CAMERAS.position[:, :, None, None]
    a, b = (rays * rays).sum(1, keepdim=True), (rays * origin).sum(1, keepdim=True)
    discriminant = b * b - a * ((origin * origin).sum(1, keepdim=True) - 0.8**2)
    hit = discriminant > 0
    depth = torch.where(hit, (-b - discriminant.clamp(min=0).sqrt()) / a, 0.0)
    found = surface_normals(depth, hit.float(), CAMERAS)
    assert not found[(~hit).expand_as(found)].any()
    torch.testing.assert_close(found.norm(dim=1)[hit[:, 0]], torch.ones(int(hit.sum())))
    assert ((found * rays).sum(1)[hit[:, 0]] < 0).all()
    true = F.normalize(CAMERAS.unproject(depth), dim=1)
    inside = hit[:, 0] & (-(true * F.normalize(rays, dim=1)).sum(1) > 0.4)
    error = degrees(found, true)
    assert inside.float().mean() > 0.1
    assert error[inside].mean() < 1.0 and error[inside].max() < 8.0
    # Every pixel of the outline has neighbors of the background, whose depth of 0 must not matter.
    assert error[hit[:, 0]].mean() < 4.0


def test_the_background_does_not_matter_at_an_outline() -> None:
    """Cut out of a plane, every pixel with a neighbor in both directions keeps the normal of the plane."""
    normal = F.normalize(torch.tensor([0.3, 0.2, 0.9]), dim=0)
    depth = plane_depth(normal, CAMERAS[0])
    opacity = torch.zeros_like(depth)
    opacity[..., 10:13, 20:30] = 0.3
    opacity[..., 13:20, 20:22] = 1.0
    found = surface_normals(torch.where(opacity > 0, depth, 0.0), opacity, CAMERAS[0])
    error = degrees(found, normal[None, :, None, None])[opacity[:, 0] > 0]
    assert error.max() < 0.02


def test_without_neighbors_a_pixel_faces_the_camera() -> None:
    """A single pixel, and a row of pixels, whose normal is known in the plane of the row only."""
    camera = Cameras.orbit([30.0], [20.0], height=16)
    opacity = torch.zeros(1, 1, 16, 16)
    opacity[..., 2, 3] = opacity[..., 8, 4:9] = 1
    found = surface_normals(3.0 * opacity, opacity, camera)
    facing = -camera.forward[0, :, None]
    torch.testing.assert_close(found[0][:, opacity[0, 0] > 0], facing.expand(3, 6), atol=1e-4, rtol=0)
    for size in ((1, 1), (1, 7)):
        cameras = Cameras.orbit([0.0], [0.0], height=size[0], width=size[1])
        found = surface_normals(torch.full((1, 1, *size), 2.0), torch.ones(1, 1, *size), cameras)
        torch.testing.assert_close(found, torch.tensor([0.0, 0, 1])[None, :, None, None].expand_as(found))


def test_opaque_neighbors_have_more_influence() -> None:
    """Between a haze and a solid plane, the solid plane decides."""
    normal = torch.tensor([0.0, 0.0, 1.0])
    camera = Cameras.orbit([0.0], [0.0], height=16)
    depth, opacity = plane_depth(normal, camera).clone(), torch.ones(1, 1, 16, 16)
    depth[..., 8:], opacity[..., 8:] = 2.5, 0.01
    error = degrees(surface_normals(depth, opacity, camera), normal[None, :, None, None])
    assert (
        error[..., 7].max()
        < 15
        < 60
        < degrees(surface_normals(depth, torch.ones_like(depth), camera), normal[None, :, None, None])[..., 7].min()
    )


def test_gradients_are_finite_differences() -> None:
    """In depth and opacity, in float64, with empty pixels, whose gradients are 0."""
    generator = torch.Generator().manual_seed(0)
    cameras = random_cameras(0, 2, 3.0, 5, 6)
    cameras = replace(cameras, camera_to_world=cameras.camera_to_world.double(), intrinsics=cameras.intrinsics.double())
    covered = torch.rand(2, 1, 5, 6, generator=generator) > 0.3
    depth = torch.where(covered, 3 + 0.2 * torch.rand(2, 1, 5, 6, generator=generator), 0.0).double()
    opacity = torch.where(covered, 0.2 + 0.8 * torch.rand(2, 1, 5, 6, generator=generator), 0.0).double()

    def normals(depths: Tensor, opacities: Tensor) -> Tensor:
        images = [torch.zeros_like(depth).masked_scatter(covered, values) for values in (depths, opacities)]
        return surface_normals(images[0], images[1], cameras)

    inputs = [image[covered].requires_grad_() for image in (depth, opacity)]
    assert torch.autograd.gradcheck(normals, inputs)
    images = [image.clone().requires_grad_() for image in (depth, opacity)]
    weights = torch.randn(2, 3, 5, 6, generator=generator).double()
    gradients = torch.autograd.grad((surface_normals(images[0], images[1], cameras) * weights).sum(), images)
    for gradient in gradients:
        assert gradient.isfinite().all() and not gradient[~covered].any() and gradient[covered].any()
