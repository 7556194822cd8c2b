"""The contract of all registered representations; every registered one is tested here."""

from dataclasses import asdict, is_dataclass

import pytest
import torch
from atlas_samples import buildable
from pydantic import TypeAdapter
from torch import Tensor

from steindreamer.representations import (
    REPRESENTATIONS,
    Buildable,
    Cameras,
    FieldSample,
    Queryable,
    RenderOutput,
    Representation,
)

SIZE = (24, 32)
IMAGES = ("rgb", "opacity", "depth", "normal")


@pytest.fixture(params=sorted(name for name, kind in REPRESENTATIONS.items() if issubclass(kind, Buildable)))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def representation(name: str) -> Representation:
    return build(name)


def build(name: str, seed: int = 0) -> Representation:
    with buildable(REPRESENTATIONS[name]()) as config:
        return config.build(torch.Generator().manual_seed(seed), torch.device("cpu"))


def orbit(*azimuths: float, elevation: float = 10.0) -> Cameras:
    return Cameras.orbit(azimuths, [elevation] * len(azimuths), height=SIZE[0], width=SIZE[1])


def gray(batch: int) -> Tensor:
    return torch.full((batch, 3), 0.5)


def fit(representation: Representation, cameras: Cameras, target: Tensor, steps: int = 40) -> RenderOutput:
    """A few steps of Adam on its initial image and silhouette."""
    background = torch.zeros(len(cameras), 3)
    silhouette = representation.render(cameras, background).opacity.detach()
    optimizer = torch.optim.Adam(representation.optimizer_groups())
    for _ in range(steps):
        output = representation.render(cameras, background)
        loss = (output.rgb - target * silhouette).square().mean() + (output.opacity - silhouette).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return representation.render(cameras, background)


def test_config_is_a_dataclass_that_pydantic_reads(name: str) -> None:
    config = REPRESENTATIONS[name]
    assert is_dataclass(config)
    assert TypeAdapter(config).validate_python(asdict(config())) == config()


def test_shapes_and_ranges(representation: Representation) -> None:
    output = representation.render(orbit(0.0, 100.0, -60.0), gray(3))
    for image, channels in zip(IMAGES, (3, 1, 1, 3), strict=True):
        value = getattr(output, image)
        assert value.shape == (3, channels, *SIZE) and value.dtype == torch.float32, image
        assert value.isfinite().all(), image
    assert output.rgb.min() >= -1e-5 and output.rgb.max() <= 1 + 1e-5
    assert output.opacity.min() >= 0 and output.opacity.max() <= 1 + 1e-5
    assert output.opacity.max() > 0.05, "nothing to see: the prior would have nothing to work on"


def test_empty_pixels(representation: Representation) -> None:
    """From far away, most of the image is background with depth 0 and normal 0."""
    cameras = Cameras.orbit([0.0, 45.0], [0.0, 0.0], distance=9.0, height=SIZE[0], width=SIZE[1])
    background = torch.tensor([[0.1, 0.5, 0.9], [1.0, 0.0, 0.3]])
    output = representation.render(cameras, background)
    empty = output.opacity == 0
    assert empty.float().mean() > 0.5
    assert not output.depth[empty].any()
    assert not output.normal[empty.expand(-1, 3, -1, -1)].any()
    over = background[:, :, None, None].expand_as(output.rgb)
    torch.testing.assert_close(output.rgb[empty.expand_as(over)], over[empty.expand_as(over)])


def test_the_background_is_composited_by_opacity(representation: Representation) -> None:
    cameras = orbit(30.0)
    dark, light = (representation.render(cameras, torch.full((1, 3), value)) for value in (0.0, 1.0))
    torch.testing.assert_close(light.rgb - dark.rgb, (1 - light.opacity).expand(-1, 3, -1, -1), atol=1e-5, rtol=0)


def test_depth_and_normal_are_opacity_normalized(representation: Representation) -> None:
    """Depth is close to the camera distance also at low opacity; normals are unit vectors facing the camera."""
    cameras = orbit(0.0, 120.0)
    output = representation.render(cameras, gray(2))
    drawn = output.opacity[:, 0] > 0.02
    depth = output.depth[:, 0][drawn]
    assert depth.min() > 3.2 - 1.1 and depth.max() < 3.2 + 1.1
    length = output.normal.norm(dim=1)[drawn]
    torch.testing.assert_close(length, torch.ones_like(length), atol=1e-3, rtol=0)
    toward = (output.normal * torch.nn.functional.normalize(cameras.rays(), dim=1)).sum(1)[drawn]
    assert (toward < 0.05).float().mean() > 0.95


def test_depths_of_several_views_agree(representation: Representation) -> None:
    """A pixel unprojected by its depth and projected to another camera falls on a covered pixel."""
    cameras = orbit(0.0, 70.0)
    with torch.no_grad():
        output = representation.render(cameras, gray(2))
    # The center of a pixel that is covered less than half is beside the object.
    solid = output.opacity[0] > 0.5 * output.opacity[0].max()
    points = cameras.unproject(output.depth)[0].flatten(1).T[solid.flatten()]
    pixels = cameras[1].project(points)[0][0].long()
    covered = output.opacity[1, 0, pixels[:, 1].clamp(0, SIZE[0] - 1), pixels[:, 0].clamp(0, SIZE[1] - 1)]
    assert (covered > 0).float().mean() > 0.97


def test_a_batch_renders_the_same_images_as_single_cameras(representation: Representation) -> None:
    cameras = orbit(0.0, 50.0, 200.0)
    background = torch.rand(3, 3, generator=torch.Generator().manual_seed(1))
    together = representation.render(cameras, background)
    for i in range(3):
        alone = representation.render(cameras[i], background[i : i + 1])
        for image in IMAGES:
            torch.testing.assert_close(getattr(together, image)[i : i + 1], getattr(alone, image), atol=1e-5, rtol=1e-4)


def test_plus_x_is_right_in_the_front_view(representation: Representation) -> None:
    """Fitted to a front view whose right half is red, the scene is red from +X, and mirrored from behind."""
    front = orbit(0.0, elevation=0.0)
    half = (torch.arange(SIZE[1]) >= SIZE[1] // 2).float().expand(1, *SIZE)
    red_right = torch.stack([half, torch.zeros_like(half), 1 - half], 1)
    fitted = fit(representation, front, red_right)
    right = _redness(fitted, slice(SIZE[1] // 2 + 2, None))
    left = _redness(fitted, slice(None, SIZE[1] // 2 - 2))
    assert right > left + 0.1
    views = orbit(90.0, -90.0, elevation=0.0)
    with torch.no_grad():
        sides = representation.render(views, torch.zeros(2, 3))
    redness = (sides.rgb[:, 0] - sides.rgb[:, 2]).sum((1, 2))
    assert redness[0] > redness[1]


def _redness(output: RenderOutput, columns: slice) -> float:
    """Mean of red minus blue of the covered pixels in the given columns."""
    rgb, opacity = output.rgb[..., columns], output.opacity[..., columns]
    return float(((rgb[:, 0] - rgb[:, 2]).sum() / opacity.sum()).detach())


def test_every_parameter_has_a_finite_nonzero_gradient(representation: Representation) -> None:
    output = representation.render(orbit(20.0, 140.0), gray(2))
    generator = torch.Generator().manual_seed(2)
    loss = torch.zeros(())
    for image in IMAGES:
        value = getattr(output, image)
        loss = loss + (value * torch.rand(value.shape, generator=generator)).mean()
    loss.backward()
    for name, parameter in representation.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_learning_rates_cover_all_parameters(representation: Representation) -> None:
    for progress in (0.0, 0.5, 1.0):
        groups = representation.optimizer_groups(progress)
        assert all(isinstance(group["lr"], float) and group["lr"] > 0 for group in groups)


def test_regularizers_are_differentiable_scalars(representation: Representation) -> None:
    for name, value in representation.regularizers().items():
        assert value.shape == () and value.isfinite() and value >= 0, name
        assert value.requires_grad, name


def test_the_same_seed_is_the_same_scene(name: str) -> None:
    cameras = orbit(15.0)
    one, two = (build(name, seed=7).render(cameras, gray(1)) for _ in range(2))
    for image in IMAGES:
        assert torch.equal(getattr(one, image), getattr(two, image)), image


def test_tensors_are_the_whole_state(name: str) -> None:
    """A representation with another seed renders the same after `load_tensors`; missing tensors are an error."""
    source, other = build(name, seed=1), build(name, seed=2)
    tensors = {key: t.detach().clone() for key, t in [*source.named_parameters(), *source.named_buffers()]}
    other.load_tensors(tensors)
    cameras = orbit(15.0)
    for image in IMAGES:
        expected, actual = (getattr(r.render(cameras, gray(1)), image) for r in (source, other))
        assert torch.equal(actual, expected), image
    lost = sorted(tensors)[0]
    with pytest.raises(KeyError, match=lost):
        other.load_tensors({key: tensor for key, tensor in tensors.items() if key != lost})


def test_field_is_solid_where_images_are(representation: Representation) -> None:
    if not isinstance(representation, Queryable):
        pytest.skip("has no field")
    points = 2 * torch.rand(3000, 3, generator=torch.Generator().manual_seed(0)) - 1
    sample = representation.field(points)
    assert isinstance(sample, FieldSample)
    assert sample.density.shape == (3000,) and sample.color.shape == (3000, 3)
    assert sample.density.min() >= 0 and sample.density.isfinite().all()
    assert sample.color.min() >= 0 and sample.color.max() <= 1 + 1e-5
    inside = points.norm(dim=1) < 0.3
    corners = points.abs().amin(1) > 0.75
    assert sample.density[inside].mean() > sample.density[corners].mean()
