"""Gaussians as a representation: compositing, normalization, the field, construction."""

import math

import pytest
import torch
from pydantic import TypeAdapter

from steindreamer.representations import Cameras, Gaussians, GaussiansConfig


def one_gaussian(mean: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Gaussians:
    """A scene with one disk that faces +Z."""
    return Gaussians(
        means=torch.tensor([mean]),
        log_scales=torch.tensor([[0.2, 0.15, 0.02]]).log(),
        quaternions=torch.tensor([[1.0, 0, 0, 0]]),
        opacity_logits=torch.tensor([0.6]).logit(),
        color_logits=torch.tensor([[0.9, 0.5, 0.1]]).logit(),
    )


def test_images_are_composited_and_normalized_by_opacity() -> None:
    """One Gaussian: rgb = o c + (1 - o) background; depth and normal do not depend on o wherever o > 0."""
    cameras = Cameras.orbit([0.0, 0.0], [0.0, 0.0], distance=2.0, height=24)
    background = torch.tensor([[1.0, 1, 1], [0, 0.5, 0]])
    output = one_gaussian().render(cameras, background)
    color = torch.tensor([0.9, 0.5, 0.1])[:, None, None]
    expected = output.opacity * color + (1 - output.opacity) * background[:, :, None, None]
    torch.testing.assert_close(output.rgb, expected)
    drawn = output.opacity > 0
    assert 0 < drawn.float().mean() < 1
    torch.testing.assert_close(output.depth, 2.0 * drawn, atol=5e-5, rtol=0)
    facing = torch.tensor([0.0, 0, 1])[:, None, None]
    torch.testing.assert_close(output.normal, facing * drawn, atol=2e-3, rtol=0)


def test_gradients_are_finite_where_the_image_is_empty() -> None:
    gaussians = one_gaussian()
    for cameras in (Cameras.orbit([0.0], [0.0], height=32), Cameras.orbit([0.0], [0.0], distance=0.005, height=32)):
        gaussians.zero_grad()
        output = gaussians.render(cameras, torch.zeros(1, 3))
        (output.depth.sum() + output.normal.sum() + output.rgb.sum()).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in gaussians.parameters())


def test_field_is_the_sum_over_all_gaussians(generator: torch.Generator) -> None:
    config = GaussiansConfig(count=300, opacity=0.7)
    gaussians = config.build(generator)
    with torch.no_grad():
        gaussians.log_scales.add_(0.4 * torch.randn(300, 3, generator=generator))
        gaussians.quaternions.add_(torch.randn(300, 4, generator=generator))
        gaussians.color_logits.add_(torch.randn(300, 3, generator=generator))
    points = 2 * torch.rand(4000, 3, generator=generator) - 1
    sample = gaussians.field(points)

    w, x, y, z = torch.nn.functional.normalize(gaussians.quaternions.detach(), dim=1).T
    third_axis = torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], 1)
    first_axis = torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], 1)
    axes = torch.stack([first_axis, torch.linalg.cross(third_axis, first_axis), third_axis], 1)
    local = torch.einsum("nij,pnj->pni", axes, points[:, None] - gaussians.means.detach()) / gaussians.scales.detach()
    weights = gaussians.opacities.detach() * torch.exp(-0.5 * local.square().sum(-1))
    weights = torch.where(weights >= 1 / 255, weights, 0.0)
    density = weights.sum(1)
    torch.testing.assert_close(sample.density, density, rtol=1e-4, atol=5e-3)
    colors = weights @ gaussians.colors.detach() / density.clamp_min(1e-9)[:, None]
    solid = density > 0.05
    assert solid.float().mean() > 0.1
    torch.testing.assert_close(sample.color[solid], colors[solid], rtol=0, atol=2e-2)
    assert not sample.color[density == 0].any()


def test_field_of_awkward_points() -> None:
    """No point, one point, equal points, distant points, and Gaussians much larger than the box of the points."""
    gaussians = one_gaussian()
    assert len(gaussians.field(torch.zeros(0, 3)).density) == 0
    torch.testing.assert_close(gaussians.field(torch.zeros(1, 3)).density, torch.tensor([0.6]))
    torch.testing.assert_close(gaussians.field(torch.zeros(99, 3)).density, torch.full((99,), 0.6))
    assert not gaussians.field(torch.full((50, 3), 7.0)).density.any()
    near = 1e-3 * torch.rand(200, 3, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(gaussians.field(near).density, torch.full((200,), 0.6), rtol=1e-2, atol=0)


def test_learning_rate_of_the_positions_decays_exponentially() -> None:
    config = GaussiansConfig(count=10, means_rate=1e-2, means_rate_end=1e-4)
    gaussians = config.build(torch.Generator().manual_seed(0))
    rates = [gaussians.learning_rates(progress)["means"] for progress in (0.0, 0.5, 1.0)]
    assert rates == pytest.approx([1e-2, 1e-3, 1e-4])


def test_regularizers_in_closed_form() -> None:
    values = one_gaussian((0.0, 3.0, 4.0)).regularizers()
    torch.testing.assert_close(values["opacity"], torch.tensor(4 * 0.6 * 0.4))
    torch.testing.assert_close(values["scale"], torch.tensor(0.2))
    torch.testing.assert_close(values["position"], torch.tensor(16.0))
    assert one_gaussian().regularizers()["position"] == 0


def test_from_points_spaces_a_lattice_by_its_step() -> None:
    axis = 0.1 * torch.arange(4.0)
    points = torch.cartesian_prod(axis, axis, axis)
    gaussians = Gaussians.from_points(points, torch.full((64, 3), 0.25), GaussiansConfig(relative_scale=0.5))
    torch.testing.assert_close(gaussians.scales, torch.full((64, 3), 0.05))
    torch.testing.assert_close(gaussians.colors, torch.full((64, 3), 0.25))
    assert len(Gaussians.from_points(points[:1], points[:1])) == 1


def test_built_inside_the_ball_and_reproducibly() -> None:
    config = GaussiansConfig(count=2000, radius=0.5)
    one, two = (config.build(torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.means, two.means)
    distance = one.means.norm(dim=1)
    assert distance.max() <= 0.5
    # Uniform in the ball: half of them within the radius of half the volume.
    assert (distance < 0.5 * 0.5 ** (1 / 3)).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_pydantic_reads_the_config() -> None:
    loaded = TypeAdapter(GaussiansConfig).validate_python({"densify": {"interval": 7}})
    assert type(loaded) is GaussiansConfig and loaded.densify.interval == 7


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"count": 0}, "need count >= 1"),
        ({"radius": -1.0}, "radius > 0"),
        ({"opacity": 1.0}, "need 0 < opacity < 1"),
        ({"color": 2.0}, r"colors must lie in \[0, 1\]"),
        ({"backend": "opengl"}, "unknown splatting backend 'opengl'"),
    ],
)
def test_config_errors(changes: dict[str, float], message: str, generator: torch.Generator) -> None:
    config = GaussiansConfig(count=5)
    for name, value in changes.items():
        setattr(config, name, value)
    with pytest.raises(ValueError, match=message):
        config.build(generator)


def test_fits_images(generator: torch.Generator) -> None:
    """Adam fits four views of a red and blue ball."""
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0], [10.0] * 4, height=32)
    background = torch.ones(4, 3)
    with torch.no_grad():
        target = GaussiansConfig(count=400, opacity=0.9).build(generator)
        side = target.means[:, :1].sign()
        target.color_logits.copy_(torch.cat([2 * side, torch.full_like(side, -2), -2 * side], 1))
        image = target.render(cameras, background).rgb
    gaussians = GaussiansConfig(count=300, radius=0.5).build(generator)
    optimizer = torch.optim.Adam(gaussians.optimizer_groups())
    errors = []
    for _ in range(60):
        error = (gaussians.render(cameras, background).rgb - image).square().mean()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(error.item())
    assert -10 * math.log10(errors[-1]) > 22
    assert errors[-1] < 0.1 * errors[0]


def test_load_tensors_of_another_size(generator: torch.Generator) -> None:
    """A checkpoint written after densification has other sizes."""
    source, other = (GaussiansConfig(count=count).build(generator) for count in (30, 50))
    tensors = [*source.named_parameters(), *source.named_buffers()]
    other.load_tensors({name: tensor.detach().clone() for name, tensor in tensors})
    cameras = Cameras.orbit([0.0], [0.0], height=16)
    output = other.render(cameras, torch.zeros(1, 3))
    assert torch.equal(output.rgb, source.render(cameras, torch.zeros(1, 3)).rgb)
    output.rgb.sum().backward()


def test_load_tensors_while_an_earlier_graph_is_alive(generator: torch.Generator) -> None:
    """After a failed step is restored, newly rendered images train again."""
    source, other = (GaussiansConfig(count=count).build(generator) for count in (30, 50))
    cameras = Cameras.orbit([0.0], [0.0], height=16)
    held = other.render(cameras, torch.zeros(1, 3))
    held.rgb.sum().backward(retain_graph=True)
    tensors = [*source.named_parameters(), *source.named_buffers()]
    other.load_tensors({name: tensor.detach().clone() for name, tensor in tensors})
    assert all(parameter.grad is None for parameter in other.parameters())
    other.render(cameras, torch.zeros(1, 3)).rgb.sum().backward()
    assert other.means.grad is not None and other.means.grad.shape == (30, 3)
    assert held.rgb.isfinite().all()
