"""Marching, compositing and occupancy against closed forms, brute force and the torch reference."""

import math
from typing import Any

import numba
import pytest
import torch
from torch import Tensor

from steindreamer.representations.nerf.volume import (
    OccupancyConfig,
    OccupancyGrid,
    Samples,
    accumulate,
    distortion,
    march,
    orientation,
    ray_weights,
    reached,
    variance,
)
from steindreamer.representations.nerf.volume.reference import march_torch, weights_torch

FULL = torch.ones(4, 4, 4, dtype=torch.bool)


def packed(*counts: int) -> Samples:
    """Rays with the given numbers of samples, 0.5 m apart, from 1 m on."""
    distances = torch.cat([1 + 0.5 * torch.arange(count) for count in counts])
    rays = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    starts = torch.tensor([sum(counts[:i]) for i in range(len(counts) + 1)])
    return Samples(torch.zeros(len(rays), 3), distances, rays, starts)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def random_rays(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rays from outside and inside the unit box, some missing it, some parallel to its faces."""
    generator = torch.Generator().manual_seed(4)
    origins = 2 * torch.randn(count, 3, generator=generator)
    directions = torch.randn(count, 3, generator=generator)
    directions[:6] = torch.cat([torch.eye(3), -torch.eye(3)])
    return origins, torch.nn.functional.normalize(directions, dim=1), torch.rand(count, generator=generator)


def test_samples_of_a_straight_ray() -> None:
    """Through a box of side 2 from 3 m away: centered steps from 2 m to 4 m, at the right points."""
    samples = march(
        torch.tensor([[0.1, 0.2, 3.0], [0, 0, 3]]),
        torch.tensor([[0.0, 0, -1], [0, 1, 0]]),
        torch.tensor([0.5, 0.5]),
        FULL,
        bound=1.0,
        step=0.25,
        near=0.0,
    )
    torch.testing.assert_close(samples.distances, 2.125 + 0.25 * torch.arange(8.0))
    expected = torch.stack([torch.full((8,), 0.1), torch.full((8,), 0.2), 3 - samples.distances], 1)
    torch.testing.assert_close(samples.points, expected)
    assert samples.starts.tolist() == [0, 8, 8] and not samples.rays.any()


def test_a_ray_from_inside_begins_at_the_near_plane() -> None:
    samples = march(torch.zeros(1, 3), torch.tensor([[1.0, 0, 0]]), torch.zeros(1), FULL, bound=2.0, step=0.5, near=0.3)
    torch.testing.assert_close(samples.distances, torch.tensor([0.3, 0.8, 1.3, 1.8]))


def test_empty_cells_are_skipped() -> None:
    occupied = torch.zeros(4, 4, 4, dtype=torch.bool)
    occupied[2, 1, 3] = True
    origins, directions, offsets = random_rays(3000)
    everything = march(origins, directions, offsets, FULL, bound=1.0, step=0.05, near=0.0)
    samples = march(origins, directions, offsets, occupied, bound=1.0, step=0.05, near=0.0)
    low = torch.tensor([0.0, -0.5, 0.5])
    inside = ((everything.points >= low) & (everything.points < low + 0.5)).all(1)
    assert 0 < inside.sum() < len(everything)
    assert torch.equal(samples.points, everything.points[inside])
    assert torch.equal(samples.rays, everything.rays[inside])
    kept = everything.where(inside)
    for name in ("points", "distances", "rays", "starts"):
        assert torch.equal(getattr(kept, name), getattr(samples, name)), name


@pytest.mark.parametrize("bound", [1.0, 2.5])
def test_compiled_marching_equals_reference(bound: float) -> None:
    """Up to rounding, which rarely assigns a sample at a cell border to the other cell."""
    occupied = uniform(16, 16, 16) > 0.6
    rays = random_rays(2000)
    compiled = march(*rays, occupied, bound=bound, step=0.07, near=0.1)
    reference = march_torch(*rays, occupied, bound, 0.07, 0.1)
    assert abs(len(compiled) - len(reference)) <= 2
    same = (compiled.starts.diff() == reference.starts.diff()).nonzero()[:, 0]
    assert len(same) >= 1998
    ours, theirs = (s.where(torch.isin(s.rays, same)) for s in (compiled, reference))
    torch.testing.assert_close(ours.points, theirs.points, rtol=0, atol=2e-6)
    torch.testing.assert_close(ours.distances, theirs.distances, rtol=0, atol=2e-6)
    assert torch.equal(ours.rays, theirs.rays)


def test_uniform_density_in_closed_form() -> None:
    """Opacity 1 - exp(-density * length), exactly: piecewise constant density is integrated without error."""
    samples = packed(6, 0, 3)
    weights = ray_weights(torch.full((9,), 0.8), samples, 0.5)
    opacity = accumulate(weights, torch.ones(9, 1), samples)[:, 0]
    torch.testing.assert_close(opacity, 1 - torch.exp(-0.8 * 0.5 * torch.tensor([6.0, 0, 3])))
    assert (weights[:5] > weights[1:6]).all()


@pytest.mark.parametrize("scale", [0.1, 3.0, 1e4])
def test_compiled_compositing_equals_reference(scale: float) -> None:
    """Values and gradients, against the reference in float64, up to surfaces as hard as steps."""
    samples = packed(7, 0, 1, 40, 2)
    density, values = scale * uniform(50), uniform(50, 5, seed=1)
    cotangents = (uniform(50, seed=2) - 0.5, uniform(5, 5, seed=3) - 0.5)
    results = []
    for leaves in ([density.clone(), values.clone()], [density.double(), values.double()]):
        leaves = [leaf.requires_grad_() for leaf in leaves]
        weights = ray_weights(leaves[0], samples, 0.3)
        sums = accumulate(weights, leaves[1], samples)
        loss = (weights * cotangents[0]).sum() + (sums * cotangents[1]).sum()
        results.append([weights, sums, *torch.autograd.grad(loss, leaves)])
    for actual, expected in zip(*results, strict=True):
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-6)


def test_reference_gradients_are_finite_differences() -> None:
    samples = packed(4, 0, 3)
    optical = uniform(7).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda s: weights_torch(s, samples.rays, samples.starts), optical)
    assert torch.autograd.gradcheck(lambda w: distortion(w, samples.distances.double(), 0.5, samples), optical)


def test_the_same_bits_for_any_number_of_threads() -> None:
    threads = numba.get_num_threads()
    results = []
    try:
        for count in (1, threads, 1):
            numba.set_num_threads(count)
            samples = march(*random_rays(1501), uniform(8, 8, 8) > 0.5, bound=1.0, step=0.05, near=0.0)
            leaves = [uniform(len(samples)).requires_grad_(), uniform(len(samples), 4).requires_grad_()]
            sums = accumulate(ray_weights(leaves[0], samples, 0.05), leaves[1], samples)
            results.append([samples.points, sums, *torch.autograd.grad(sums.square().sum(), leaves)])
    finally:
        numba.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_samples_with_low_transmittance_are_not_reached() -> None:
    """Density 2 per meter in steps of 0.5 m: the transmittance falls by a factor of e per sample."""
    samples = packed(5, 2)
    density = torch.full((7,), 2.0)
    assert reached(density, samples, 0.5, math.exp(-2.5)).tolist() == [True, True, True, False, False, True, True]
    assert reached(density, samples, 0.5, 0.0).all()


def test_distortion_is_the_double_sum() -> None:
    samples = packed(6, 0, 1)
    weights = uniform(7)
    expected = []
    for ray in range(3):
        own = samples.rays == ray
        w, t = weights[own], samples.distances[own]
        double_sum = (w[:, None] * w * (t[:, None] - t).abs()).sum()
        expected.append(double_sum + w.square().sum() * 0.5 / 3)
    torch.testing.assert_close(distortion(weights, samples.distances, 0.5, samples), torch.stack(expected))


def test_variance_along_a_ray() -> None:
    """Two equal weights 0.5 m apart are 0.25 m from the mean each. The variance of an empty ray is 0."""
    samples = packed(2, 0)
    weights = torch.tensor([0.3, 0.3])
    mean, opacity = torch.tensor([1.25, 0.0]), torch.tensor([0.6, 0.0])
    result = variance(weights, samples.distances, mean, opacity, samples)
    torch.testing.assert_close(result, torch.tensor([0.0625, 0.0]))


def test_orientation_counts_normals_that_face_away() -> None:
    samples = packed(3)
    directions = torch.tensor([0.0, 0, -1]).expand(3, 3)
    normals = torch.tensor([[0.0, 0, 1], [0.6, 0, -0.8], [0, 0, -1]]).requires_grad_()
    weights = torch.tensor([0.5, 0.25, 0.1], requires_grad=True)
    result = orientation(weights, normals, directions, samples)
    torch.testing.assert_close(result, torch.tensor([0.25 * 0.64 + 0.1]))
    result.sum().backward()
    assert normals.grad is not None and normals.grad[1:].any() and not normals.grad[0].any()
    assert weights.grad is None


def half_space(points: Tensor) -> Tensor:
    """A density of 5 per meter where x > 0."""
    return 5.0 * (points[:, 0] > 0)


def test_occupancy_finds_dense_cells(generator: torch.Generator) -> None:
    grid = OccupancyGrid(OccupancyConfig(resolution=8, decay=0.5), bound=2.0)
    assert grid.occupied(0.1).all(), "before the first look everything may be occupied"
    grid.update(half_space, generator)
    expected = (torch.arange(8) >= 4)[:, None, None].expand(8, 8, 8)
    assert torch.equal(grid.occupied(0.1), expected)
    for _ in range(8):
        grid.update(lambda points: torch.zeros(len(points)), generator)
        grid.update(lambda points: 5.0 * (points[:, 1] < 0), generator)
    assert torch.equal(grid.occupied(0.1), (torch.arange(8) < 4)[None, :, None].expand(8, 8, 8))


def test_a_cell_is_empty_if_a_step_through_it_has_low_opacity(generator: torch.Generator) -> None:
    grid = OccupancyGrid(OccupancyConfig(resolution=4, threshold=0.1), bound=1.0)
    grid.update(lambda points: 10.0 + 90.0 * (points[:, 0] > 0), generator)
    least = -math.log(1 - 0.1) / 10.0
    assert grid.occupied(1.01 * least).float().mean() == 1.0
    assert grid.occupied(0.99 * least).float().mean() == 0.5


def test_a_faint_scene_is_not_skipped(generator: torch.Generator) -> None:
    """Cells above the mean stay occupied at any opacity; a uniform density stays occupied everywhere."""
    grid = OccupancyGrid(OccupancyConfig(resolution=4), bound=1.0)
    grid.update(lambda points: 1e-9 * half_space(points), generator)
    assert grid.occupied(0.01).float().mean() == 0.5
    empty = OccupancyGrid(OccupancyConfig(resolution=4), bound=1.0)
    empty.update(lambda points: torch.zeros(len(points)), generator)
    assert empty.occupied(0.01).all()


def test_occupancy_samples_random_points_of_every_cell() -> None:
    seen: list[Tensor] = []

    def look(points: Tensor) -> Tensor:
        seen.append(points)
        return torch.zeros(len(points))

    for seed in (1, 1, 2):
        OccupancyGrid(OccupancyConfig(resolution=8), bound=2.0).update(look, torch.Generator().manual_seed(seed))
    assert torch.equal(seen[0], seen[1]) and not torch.equal(seen[0], seen[2])
    cells = ((seen[0] / 2 + 1) / 2 * 8).long()
    assert len(cells.unique(dim=0)) == 512


@pytest.mark.parametrize("settings", [{"resolution": 0}, {"every": 0}, {"decay": 1.5}, {"threshold": 1.0}])
def test_occupancy_errors(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="for occupancy, got"):
        OccupancyGrid(OccupancyConfig(**settings), 1.0)
