"""The learned background depends on the viewing direction only."""

import math

import pytest
import torch
from torch import Tensor

from steindreamer.representations import Cameras, RenderOutput, TriangleMesh, render_mesh, sphere_of_cameras
from steindreamer.representations.background import Environment, EnvironmentConfig, composite, spherical_harmonics


@pytest.fixture
def environment(generator: torch.Generator) -> Environment:
    return Environment(EnvironmentConfig(), generator)


def _triangle(cameras: Cameras) -> RenderOutput:
    """A render over black of a red triangle in the center of the front view."""
    vertices = torch.tensor([[-0.5, -0.5, 0.0], [0.5, -0.5, 0.0], [0.0, 0.5, 0.0]])
    mesh = TriangleMesh(vertices, torch.tensor([[0, 1, 2]]), colors=torch.tensor([[1.0, 0.0, 0.0]]).expand(3, 3))
    return render_mesh(mesh, cameras, torch.zeros(len(cameras), 3))


def test_spherical_harmonics_are_orthonormal() -> None:
    directions = -sphere_of_cameras(20000).forward
    values = spherical_harmonics(directions)
    torch.testing.assert_close(4 * math.pi * values.mT @ values / len(values), torch.eye(9), atol=2e-3, rtol=0)


def test_shape_and_range(environment: Environment) -> None:
    image = environment(Cameras.orbit([0.0, 90.0], [0.0, 0.0], height=24, width=40))
    assert image.shape == (2, 3, 24, 40)
    assert 0 < image.min() and image.max() < 1


def test_same_direction_same_color_from_two_cameras(environment: Environment) -> None:
    """The color of a direction is independent of position, image size, field of view and roll of the camera."""
    eye, forward = torch.tensor([[0.0, 0.0, 3.0], [2.0, -1.0, 0.5]]), torch.tensor([[-0.4, 0.2, -1.0]]).expand(2, 3)
    up = torch.tensor([[0.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    one = Cameras.look_at(eye, eye + forward, up, height=33)
    other = Cameras.look_at(eye.flip(0), eye.flip(0) + forward, up, field_of_view=90.0, height=65)
    colors = torch.cat([environment(one)[:, :, 16, 16], environment(other)[:, :, 32, 32]])
    torch.testing.assert_close(colors, colors[:1].expand(4, 3))
    elsewhere = environment(one)[:, :, 0, 0]
    assert (elsewhere - colors[:1]).abs().max() > 1e-3


def test_behind_a_mesh_directions_differ(environment: Environment) -> None:
    """Empty pixels of a rasterizer have no position; the background must still vary within a view."""
    cameras = Cameras.orbit([0.0, 180.0], [20.0, 20.0], height=48, field_of_view=70.0)
    output = _triangle(cameras)
    rgb = composite(output, environment(cameras))
    empty = (output.opacity == 0)[:, 0]
    assert 0.5 < empty.float().mean() < 1
    for b in range(2):
        assert rgb[b][:, empty[b]].std(dim=1).max() > 0.02
    assert (rgb[0][:, empty[0]].mean(1) - rgb[1][:, empty[1]].mean(1)).abs().max() > 0.02
    red = torch.tensor([1.0, 0.0, 0.0])[:, None]
    torch.testing.assert_close(rgb[0][:, ~empty[0]], red.expand(3, int((~empty[0]).sum())))


def test_gradient_flows_through_transparent_pixels_only(environment: Environment) -> None:
    cameras = Cameras.orbit([0.0], [0.0], height=2)
    opacity = torch.tensor([1.0, 1.0, 0.25, 0.0]).reshape(1, 1, 2, 2)
    output = RenderOutput(torch.zeros(1, 3, 2, 2), opacity, torch.zeros(1, 1, 2, 2), torch.zeros(1, 3, 2, 2))

    def gradient(weight: Tensor) -> Tensor:
        environment.zero_grad()
        (composite(output, environment(cameras)) * weight).sum().backward()
        return torch.cat([p.grad.flatten() for p in environment.parameters() if p.grad is not None])

    image = environment(cameras).detach().requires_grad_()
    composite(output, image).sum().backward()
    torch.testing.assert_close(image.grad, (1 - opacity).expand(1, 3, 2, 2))
    upper, lower = torch.tensor([1.0, 0.0])[:, None], torch.tensor([0.0, 1.0])[:, None]
    assert not gradient(upper).any(), "solid pixels taught the background"
    assert gradient(lower).abs().max() > 0


def test_learns_a_sky(environment: Environment) -> None:
    """It fits blue above and green below from views all around."""
    cameras = sphere_of_cameras(16, height=16, field_of_view=60.0)
    upward = torch.nn.functional.normalize(cameras.rays(), dim=1)[:, 1:2]
    blue, green = torch.tensor([0.2, 0.4, 0.9]), torch.tensor([0.2, 0.5, 0.1])
    fraction = upward.mul(3).sigmoid()
    target = fraction * blue[:, None, None] + (1 - fraction) * green[:, None, None]
    rates = environment.learning_rates("")
    optimizer = torch.optim.Adam([{"params": [p], "lr": 10 * rates[n]} for n, p in environment.named_parameters()])
    for _ in range(150):
        loss = (environment(cameras) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (environment(cameras) - target).abs().max() < 0.1


def test_learning_rates_name_every_parameter(environment: Environment) -> None:
    holder = torch.nn.ModuleDict({"environment": environment})
    assert environment.learning_rates("environment.").keys() == dict(holder.named_parameters()).keys()


def test_same_seed_same_environment() -> None:
    """Bit-identical for the same number of threads, otherwise up to rounding: on some CPUs, torch's matrix products sum
    the gradients of the weights in another order."""
    cameras = Cameras.orbit([0.0, 50.0], [10.0, 20.0], height=96)
    results = []
    threads = torch.get_num_threads()
    for count in (1, 2, 1):
        torch.set_num_threads(count)
        torch.rand(count)  # the global generator must not matter
        environment = Environment(EnvironmentConfig(), torch.Generator().manual_seed(5))
        image = environment(cameras)
        image.square().mean().backward()
        results.append([image.detach(), *(p.grad for p in environment.parameters())])
    torch.set_num_threads(threads)
    for one, other, again in zip(*results, strict=True):
        assert one is not None and again is not None and torch.equal(one, again)
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-7)


def test_sizes_below_one_are_refused(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Environment(EnvironmentConfig(layers=0), generator)
