"""Feature grids against the reference and closed forms; initialization, normals and training of the radiance field."""

import math
from typing import Any

import numba
import pytest
import torch
from torch import Tensor

from steindreamer.representations.fields import (
    Blob,
    BlobConfig,
    ColorField,
    ColorFieldConfig,
    DenseGrid,
    DenseGridConfig,
    FeatureGrid,
    HashGrid,
    HashGridConfig,
    RadianceField,
    RadianceFieldConfig,
)
from steindreamer.representations.fields.interpolation import interpolate, point_gradient

LAYOUTS = [
    pytest.param((3, 2**8, 2), (3, 7, 20), id="dense, hashed, hashed"),
    pytest.param((2, 2**5, 4), (4, 9), id="four features"),
    pytest.param((1, 9**3, 4), (8,), id="voxels"),
    pytest.param((4, 2**6, 2), (2, 5), id="only the first levels"),
]


def draw(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unit_points(count: int) -> Tensor:
    """Points in the unit cube, some on its faces, edges and corners."""
    points = torch.rand(count, 3, generator=torch.Generator().manual_seed(9))
    points[:5] = torch.tensor([[0.0, 0, 0], [1, 1, 1], [1, 0, 0.5], [0, 0.3, 1], [0.5, 0.5, 0.5]])[: len(points)]
    return points


def close(actual: Tensor | None, expected: Tensor | None) -> None:
    assert actual is not None and expected is not None
    assert (actual.double() - expected).norm() < 1e-5 * expected.norm() + 1e-12


@pytest.mark.parametrize(("shape", "resolutions"), LAYOUTS)
def test_compiled_equals_reference(shape: tuple[int, int, int], resolutions: tuple[int, ...]) -> None:
    """Values and gradients; float64 uses the reference."""
    points, table = unit_points(3000), draw(shape)
    leaves = [t.clone().requires_grad_() for t in (points, table)]
    expected_leaves = [t.double().requires_grad_() for t in (points, table)]
    features, expected = (interpolate(pair[0], pair[1], resolutions) for pair in (leaves, expected_leaves))
    close(features, expected)
    cotangent = draw((3000, len(resolutions) * shape[2]), seed=1)
    (features * cotangent).sum().backward()
    (expected * cotangent).sum().backward()
    # For points on a cell face, rounding decides which one-sided derivative is computed.
    inside = torch.arange(3000) >= 5
    close(leaves[0].grad[inside], expected_leaves[0].grad[inside])  # type: ignore[index]
    close(leaves[1].grad, expected_leaves[1].grad)


@pytest.mark.parametrize(("shape", "resolutions"), LAYOUTS)
def test_compiled_point_gradient_equals_reference(shape: tuple[int, int, int], resolutions: tuple[int, ...]) -> None:
    points = unit_points(2000)[5:]
    leaves = [draw(shape), draw((1995, len(resolutions) * shape[2]), seed=1)]
    expected_leaves = [t.double().requires_grad_() for t in leaves]
    leaves = [t.requires_grad_() for t in leaves]
    direction = draw((1995, 3), seed=2)
    gradient = point_gradient(points, leaves[0], leaves[1], resolutions)
    expected = point_gradient(points.double(), expected_leaves[0], expected_leaves[1], resolutions)
    close(gradient, expected)
    (gradient * direction).sum().backward()
    (expected * direction).sum().backward()
    for leaf, expected_leaf in zip(leaves, expected_leaves, strict=True):
        close(leaf.grad, expected_leaf.grad)
    with torch.no_grad():
        close(point_gradient(points.double(), expected_leaves[0], expected_leaves[1], resolutions), expected)


def test_reference_gradients_are_finite_differences() -> None:
    points = 0.9 * unit_points(12)[5:].double()
    table = draw((2, 2**6, 2)).double()
    inputs = (points.requires_grad_(), table.requires_grad_())
    assert torch.autograd.gradcheck(lambda p, t: interpolate(p, t, (3, 7)), inputs)
    cotangent = draw((7, 4), seed=3).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda t, c: point_gradient(points, t, c, (3, 7)), (table, cotangent))


def test_a_linear_function_is_reproduced() -> None:
    """With one entry per corner, x fastest; the derivative is the slope."""
    cells = 6
    axis = torch.arange(cells + 1) / cells
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    slope = torch.tensor([[1.0, -2.0], [0.5, 3.0], [4.0, 0.0]])
    corners = torch.stack([x, y, z], -1).reshape(-1, 3)
    table = (corners @ slope + 0.25)[None]
    points = unit_points(500)
    torch.testing.assert_close(interpolate(points, table, (cells,)), points @ slope + 0.25, rtol=0, atol=1e-5)
    cotangent = draw((500, 2))
    gradient = point_gradient(points, table, cotangent, (cells,))
    torch.testing.assert_close(gradient, cotangent @ slope.T, rtol=0, atol=1e-4)


def test_no_points_and_diverged_points() -> None:
    """NaN and distant points read a table entry, not out of bounds."""
    table = draw((3, 2**8, 2))
    assert interpolate(torch.zeros(0, 3), table, (3, 7, 20)).shape == (0, 6)
    wild = torch.tensor([[math.nan, 0.5, 0.5], [0.5, math.inf, 0.5], [1e9, 0.5, -1e9]])
    together = torch.cat([wild, unit_points(9)])
    torch.testing.assert_close(
        interpolate(together, table, (3, 7, 20))[3:], interpolate(unit_points(9), table, (3, 7, 20))
    )


def test_the_same_bits_for_any_number_of_threads() -> None:
    grid = HashGrid(HashGridConfig(levels=5, log2_size=8), torch.Generator().manual_seed(0))
    points, cotangent = unit_points(5001), draw((5001, grid.width))
    threads = numba.get_num_threads()
    results = []
    try:
        for count in (1, threads, 1):
            numba.set_num_threads(count)
            grid.zero_grad()
            where = points.clone().requires_grad_()
            features, slope = grid(where), grid.gradient(points, cotangent)
            ((features * cotangent).sum() + slope.square().sum()).backward()
            results.append([features, slope, where.grad, grid.table.grad])
    finally:
        numba.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_inactive_levels_are_zero() -> None:
    grid = HashGrid(HashGridConfig(levels=4), torch.Generator().manual_seed(0))
    points = unit_points(50)
    full = grid(points)
    grid.activate(2)
    features = grid(points)
    assert features.shape == full.shape
    assert torch.equal(features[:, :4], full[:, :4]) and not features[:, 4:].any()
    grid.gradient(points, torch.ones_like(full)).square().sum().backward()
    assert grid.table.grad is not None
    assert grid.table.grad[:2].any() and not grid.table.grad[2:].any()
    assert "active_levels" in dict(grid.named_buffers())
    for levels in (0, 5):
        with pytest.raises(ValueError, match=f"activate {levels} levels of a grid that has 4"):
            grid.activate(levels)


@pytest.mark.parametrize(
    "grid", [HashGrid(HashGridConfig(), torch.Generator()), DenseGrid(DenseGridConfig(), torch.Generator())]
)
def test_points_outside_are_clamped_to_the_cube(grid: FeatureGrid) -> None:
    outside, nearest = torch.tensor([[-3.0, 0.4, 1.5]]), torch.tensor([[0.0, 0.4, 1.0]])
    assert torch.equal(grid(outside), grid(nearest))
    assert grid(nearest).shape == (1, grid.width)


def test_grid_errors() -> None:
    generator = torch.Generator()
    with pytest.raises(ValueError, match="at least 1"):
        HashGrid(HashGridConfig(levels=0), generator)
    with pytest.raises(ValueError, match="finest must be at least coarsest"):
        HashGrid(HashGridConfig(coarsest=32, finest=16), generator)
    with pytest.raises(ValueError, match="at least 1"):
        DenseGrid(DenseGridConfig(features=0), generator)


def test_color_field_starts_gray_and_names_its_rates(generator: torch.Generator) -> None:
    field = ColorField(ColorFieldConfig(), 0.7, generator)
    colors = field(2 * unit_points(100) - 1)
    assert (colors - 0.5).abs().max() < 0.01
    assert field.learning_rates("color.").keys() == {f"color.{name}" for name, _ in field.named_parameters()}


@pytest.mark.parametrize("shape", ["magic3d", "dreamfusion"])
def test_blob(shape: Any) -> None:
    blob = Blob(BlobConfig(shape=shape, bias=8.0, width=0.4))
    at_one_width = {"magic3d": 0.0, "dreamfusion": 8.0 * math.exp(-0.5)}[shape]
    values = blob(torch.tensor([[0.0, 0, 0], [0, 0.4, 0]]))
    torch.testing.assert_close(values, torch.tensor([8.0, at_one_width]), rtol=0, atol=1e-6)
    points = draw((40, 3)).requires_grad_()
    (expected,) = torch.autograd.grad(blob(points).sum(), points)
    torch.testing.assert_close(blob.gradient(points.detach()), expected)
    assert blob.gradient(torch.zeros(1, 3)).isfinite().all()


def field_of(**settings: object) -> RadianceField:
    return RadianceField(RadianceFieldConfig(**settings), 1.0, torch.Generator().manual_seed(0))  # type: ignore[arg-type]


@pytest.mark.parametrize("normals", ["analytic", "finite"])
@pytest.mark.parametrize("shape", ["magic3d", "dreamfusion"])
def test_the_field_starts_as_a_ball(normals: str, shape: Any) -> None:
    """Dense in the center, almost empty in the corners, outward normals; inside out with a negative bias."""
    points = torch.cat([torch.zeros(1, 3), 0.4 * torch.nn.functional.normalize(draw((50, 3)), dim=1)])
    for sign in (1, -1):
        radiance = field_of(normals=normals, blob=BlobConfig(shape=shape, bias=10.0 * sign))(points)
        outward = (radiance.normal[1:] * torch.nn.functional.normalize(points[1:], dim=1)).sum(1) * sign
        assert outward.min() > 0.99
        assert sign * (radiance.density[0] - radiance.density[1:].max()) > 0
    no_blob = field_of(blob=BlobConfig(shape="none"))(points)
    torch.testing.assert_close(no_blob.density, torch.full((51,), math.log(2)), rtol=0, atol=0.01)


@pytest.mark.parametrize("encoding", ["hash", "dense"])
def test_analytic_normals_are_the_derivative(encoding: str) -> None:
    """Agreement with tiny central differences, except at the few points whose ReLUs or cells change in between."""
    analytic, finite = (field_of(encoding=encoding, normals=name, finite_step=1e-6) for name in ("analytic", "finite"))
    with torch.no_grad():
        for field in (analytic, finite):
            field.grid.table.copy_(draw(tuple(field.grid.table.shape)))
            field.double()
    points = (1.9 * unit_points(500) - 0.95)[5:].double()
    cosine = (analytic(points).normal * finite(points).normal).sum(1)
    assert (cosine > 0.9999).double().mean() > 0.99
    torch.testing.assert_close(analytic(points).density, finite(points).density)
    torch.testing.assert_close(analytic(points).density, analytic.density(points))
    torch.testing.assert_close(analytic(points).color, analytic.color(points))


@pytest.mark.parametrize("normals", ["analytic", "finite"])
def test_a_regularizer_on_normals_trains_the_density(normals: str) -> None:
    """A loss that pulls all normals to +X succeeds, through the grid."""
    field = field_of(normals=normals, encoding="dense", blob=BlobConfig(shape="none"))
    with torch.no_grad():
        field.grid.table.copy_(0.1 * draw(tuple(field.grid.table.shape)))
    points = 0.5 * draw((400, 3)).clamp(-1.9, 1.9)
    optimizer = torch.optim.Adam(field.parameters(), lr=0.02)
    wanted = torch.tensor([1.0, 0, 0])
    before = float((field(points).normal @ wanted).mean().detach())
    for _ in range(40):
        optimizer.zero_grad()
        (1 - field(points).normal @ wanted).mean().backward()
        optimizer.step()
    assert field.grid.table.grad is not None and field.grid.table.grad.any()
    assert abs(before) < 0.2 and float((field(points).normal @ wanted).mean().detach()) > 0.7


def test_density_is_zero_outside_the_box() -> None:
    field = field_of(activation="exp")
    density = field.density(torch.tensor([[0.0, 0, 0], [0, 1.01, 0], [5, 5, 5]]))
    assert density[0] > 0 and not density[1:].any()


def test_exponential_density_does_not_overflow() -> None:
    field = field_of(activation="exp", blob=BlobConfig(bias=500.0))
    density = field(torch.zeros(1, 3)).density
    assert density.isfinite().all() and density > 1e6


def test_field_errors() -> None:
    for name, wrong, known in (
        ("encoding", "hashed", r"\['hash', 'dense'\]"),
        ("activation", "relu", r"\['softplus', 'exp'\]"),
        ("normals", "numeric", r"\['analytic', 'finite'\]"),
    ):
        config = RadianceFieldConfig()
        setattr(config, name, wrong)
        with pytest.raises(ValueError, match=f"unknown {name} '{wrong}'; choose one of {known}"):
            RadianceField(config, 1.0, torch.Generator())
    with pytest.raises(ValueError, match="finite_step > 0"):
        field_of(finite_step=0.0)
    blob = BlobConfig()
    blob.shape = "cube"  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="unknown blob shape 'cube'"):
        field_of(blob=blob)
    with pytest.raises(ValueError, match="width > 0"):
        field_of(blob=BlobConfig(width=0.0))
