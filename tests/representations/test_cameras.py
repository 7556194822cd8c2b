"""The camera conventions, as equations."""

import pytest
import torch

from steindreamer.representations import Cameras, sphere_of_cameras


def test_azimuth_zero_looks_at_the_front() -> None:
    cameras = Cameras.orbit([0.0], [0.0], distance=2.0)
    torch.testing.assert_close(cameras.position, torch.tensor([[0.0, 0.0, 2.0]]))
    torch.testing.assert_close(cameras.forward, torch.tensor([[0.0, 0.0, -1.0]]))


def test_azimuth_grows_toward_plus_x_and_elevation_upward() -> None:
    cameras = Cameras.orbit([90.0, 0.0], [0.0, 90.0], distance=2.0)
    torch.testing.assert_close(cameras.position, torch.tensor([[2.0, 0, 0], [0, 2.0, 0]]), atol=1e-6, rtol=0)


def test_image_axes() -> None:
    """In the front view, +X is on the right and +Y at the top of the image."""
    pixels, depth = Cameras.orbit([0.0], [0.0], distance=2.0, height=64).project(
        torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0, 0.1, 0]])
    )
    torch.testing.assert_close(pixels[0, 0], torch.tensor([32.0, 32.0]))
    assert pixels[0, 1, 0] > 32 and pixels[0, 2, 1] < 32
    torch.testing.assert_close(depth[0, 0], torch.tensor(2.0))


def test_orbit_angles_round_trip() -> None:
    azimuth, elevation = torch.tensor([-170.0, -35.0, 0.0, 120.0]), torch.tensor([-60.0, 0.0, 35.0, 80.0])
    cameras = Cameras.orbit(azimuth, elevation)
    torch.testing.assert_close(cameras.azimuth, azimuth, atol=1e-3, rtol=0)
    torch.testing.assert_close(cameras.elevation, elevation, atol=1e-3, rtol=0)


def test_rotations_are_proper_even_at_the_poles() -> None:
    rotation = sphere_of_cameras(50).camera_to_world[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(50))


def test_unproject_inverts_project(generator: torch.Generator) -> None:
    cameras = Cameras.orbit([20.0, 200.0], [10.0, -30.0], height=24, width=40)
    depth = 2 + torch.rand(2, 1, 24, 40, generator=generator)
    points = cameras.unproject(depth)
    for b in range(2):
        pixels, z = cameras[b].project(points[b].reshape(3, -1).T)
        torch.testing.assert_close(z[0], depth[b].reshape(-1))
        expected = torch.stack(torch.meshgrid(torch.arange(40) + 0.5, torch.arange(24) + 0.5, indexing="xy"), -1)
        torch.testing.assert_close(pixels[0], expected.reshape(-1, 2), atol=1e-3, rtol=0)


def test_resized_keeps_the_view() -> None:
    point = torch.tensor([[0.3, -0.2, 0.1]])
    small = Cameras.orbit([30.0], [20.0], height=32, width=48)
    a, _ = small.project(point)
    b, _ = small.resized(64, 96).project(point)
    torch.testing.assert_close(2 * a, b)


def test_a_cropped_image_is_a_part_of_the_whole() -> None:
    whole = Cameras.orbit([20.0, 70.0], [10.0, -5.0], height=16, width=32)
    part = whole.cropped(torch.tensor([0.25, 0.5]), torch.tensor([0.5, 0.0]), torch.tensor([0.5, 0.5]))
    enlarged = whole.resized(32, 64).rays()
    assert (part.height, part.width) == (16, 32)
    torch.testing.assert_close(part.rays()[0], enlarged[0, :, 16:, 16:48])
    torch.testing.assert_close(part.rays()[1], enlarged[1, :, :16, 32:])


def test_bad_orbit_is_refused() -> None:
    with pytest.raises(ValueError, match="distance > 0"):
        Cameras.orbit([0.0], [0.0], distance=-1.0)
    for angle in (0.0, 180.0):
        with pytest.raises(ValueError, match="field_of_view < 180"):
            Cameras.orbit([0.0], [0.0], field_of_view=angle)


def test_one_camera_is_a_batch_of_one() -> None:
    cameras = Cameras.orbit([0.0, 90.0, 135.0], [0.0] * 3)
    assert [float(camera.azimuth.round()) for camera in cameras] == [0.0, 90.0, 135.0]
    assert torch.equal(cameras[-2].camera_to_world, cameras.camera_to_world[1:2])
    for index in (3, -4):
        with pytest.raises(IndexError):
            cameras[index]


def test_look_at_agrees_with_orbit() -> None:
    orbit = Cameras.orbit(
        [20.0, 200.0, -70.0], [10.0, -80.0, 60.0], distance=2.5, field_of_view=55.0, height=24, width=40
    )
    up = torch.tensor([[0.0, 3.0, 0.0]]).expand(3, 3)
    other = Cameras.look_at(orbit.position, torch.zeros(3, 3), up, field_of_view=55.0, height=24, width=40)
    torch.testing.assert_close(other.camera_to_world, orbit.camera_to_world)
    assert torch.equal(other.intrinsics, orbit.intrinsics)


def test_look_at_puts_target_in_the_middle_and_up_upward(generator: torch.Generator) -> None:
    eye, target, up = torch.randn(3, 20, 3, generator=generator)
    cameras = Cameras.look_at(eye, target, up, field_of_view=torch.linspace(20, 120, 20), height=32)
    rotation = cameras.camera_to_world[:, :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).expand(20, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(20))
    for b in range(20):
        pixels, depth = cameras[b].project(torch.stack([target[b], target[b] + 1e-2 * up[b]]))
        torch.testing.assert_close(pixels[0, 0], torch.tensor([16.0, 16.0]), atol=1e-3, rtol=0)
        torch.testing.assert_close(depth[0, 0], (target[b] - eye[b]).norm())
        assert pixels[0, 1, 1] < 16
        torch.testing.assert_close(pixels[0, 1, 0], torch.tensor(16.0), atol=1e-2, rtol=0)


@pytest.mark.parametrize("target", [[0.0, 0.0, 2.0], [0.0, 5.0, 2.0]])
def test_look_at_without_a_direction_is_refused(target: list[float]) -> None:
    with pytest.raises(ValueError, match="away from `eye`"):
        Cameras.look_at(torch.tensor([[0.0, 0.0, 2.0]]), torch.tensor([target]), torch.tensor([[0.0, 1.0, 0.0]]))
