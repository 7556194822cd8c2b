"""The NeRF: analytic surfaces, training and resuming, and cameras inside a scene."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from steindreamer.representations import Cameras, RenderOutput, sphere_of_cameras
from steindreamer.representations.fields import BlobConfig, HashGridConfig, RadianceFieldConfig
from steindreamer.representations.nerf.nerf import Nerf, NerfConfig
from steindreamer.world import parse_caption, sample_object
from steindreamer.world.views import render_objects

IMAGES = ("rgb", "opacity", "depth", "normal")


def build(seed: int = 0, device: str = "cpu", **settings: Any) -> Nerf:
    """A small NeRF with the given settings of `NerfConfig`."""
    settings.setdefault("radiance", RadianceFieldConfig(hash_grid=HashGridConfig(levels=4, log2_size=12)))
    return NerfConfig(**settings).build(torch.Generator().manual_seed(seed), device)


def hard_ball(radius: float = 0.5, **settings: Any) -> Nerf:
    """A density that is opaque within a fraction of a millimeter."""
    blob = BlobConfig(bias=1e6, width=radius)
    return build(radiance=RadianceFieldConfig(hash_grid=HashGridConfig(levels=4, log2_size=12), blob=blob), **settings)


def view(*azimuths: float, size: int = 24) -> Cameras:
    return Cameras.orbit(azimuths, [10.0] * len(azimuths), height=size)


def draw(nerf: Nerf, cameras: Cameras) -> RenderOutput:
    return nerf.render(cameras, torch.full((len(cameras), 3), 0.3))


def adapt(nerf: Nerf, step: int, total_steps: int = 100, seed: int = 0) -> None:
    optimizer = torch.optim.Adam(nerf.optimizer_groups())
    nerf.adapt(step, total_steps, optimizer, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("normals", ["analytic", "finite"])
def test_a_ball_in_closed_form(normals: Any) -> None:
    """Silhouette, depth and normals of a solid ball of radius 0.5 are correct up to a step length."""
    nerf = hard_ball(samples=512)
    nerf.radiance.config.normals = normals
    cameras = view(30.0, size=64)
    with torch.no_grad():
        output = draw(nerf, cameras)
    rays = cameras.rays()
    directions = rays / rays.norm(dim=1, keepdim=True)
    along = -(directions * cameras.position[:, :, None, None]).sum(1, keepdim=True)
    miss = (cameras.position.square().sum() - along.square()).clamp_min(0).sqrt()
    distance = along - (0.25 - miss.square()).clamp_min(0).sqrt()
    points = cameras.position[:, :, None, None] + distance * directions
    hit = miss < 0.48
    assert output.opacity[hit].min() > 0.99 and output.opacity[miss > 0.51].max() < 0.01
    z = distance / rays.norm(dim=1, keepdim=True)
    assert (output.depth - z)[hit].abs().max() < 1.1 * nerf.step_length
    cosine = (output.normal * points / 0.5).sum(1, keepdim=True)
    assert cosine[hit].min() > 0.95 and cosine[miss < 0.4].min() > 0.99


def test_opacity_of_a_soft_ball_is_its_integral() -> None:
    """The opacity of the central ray equals a fine sum over the density of the field."""
    nerf = build(samples=1024)
    cameras = Cameras.orbit([0.0], [0.0], distance=3.0, height=1)
    with torch.no_grad():
        output = draw(nerf, cameras)
        z = (torch.arange(20000) + 0.5) / 10000 - 1
        density = nerf.field(torch.stack([0 * z, 0 * z, -z], 1)).density / 10000
    light = torch.exp(-density.cumsum(0))
    assert output.opacity.item() == pytest.approx(1 - float(light[-1]), abs=2e-3)
    assert output.depth.item() == pytest.approx(float((light * density * (z + 3)).sum() / (1 - light[-1])), abs=5e-3)


def test_offsets_are_random_in_training_only() -> None:
    nerf, cameras = build(), view(10.0)
    first = draw(nerf, cameras).rgb
    assert torch.equal(draw(nerf, cameras).rgb, first), "within a step the offsets are fixed"
    with torch.no_grad():
        middle = draw(nerf, cameras).rgb
    adapt(nerf, 2)
    assert not torch.equal(draw(nerf, cameras).rgb, first)
    assert not torch.equal(middle, first)
    with torch.no_grad():
        assert torch.equal(draw(nerf, cameras).rgb, middle)
    nerf.eval()
    torch.testing.assert_close(draw(nerf, cameras).rgb, middle)


def test_random_offsets_average_to_the_image() -> None:
    """A stratified estimate: the mean over many steps equals the finely sampled image; centered samples do not."""
    nerf, fine, cameras = hard_ball(samples=24), hard_ball(samples=2048), view(10.0, size=12)
    with torch.no_grad():
        expected = draw(fine, cameras).depth * (draw(fine, cameras).opacity > 0.9)
    total = torch.zeros_like(expected)
    for step in range(200):
        adapt(nerf, 2, seed=step)
        total += draw(nerf, cameras).depth.detach()
    solid = expected > 0
    center = solid & (expected < 2.85)
    bias = (total / 200 - expected)[center]
    assert center.sum() > 10
    # A hard surface is hit half a step late on average, for any number of steps.
    assert (bias - nerf.step_length / 2).abs().max() < 0.15 * nerf.step_length


def test_training_continues_with_the_same_bits_after_a_resume() -> None:
    def train(nerf: Nerf, first: int, last: int, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> None:
        for step in range(first, last + 1):
            optimizer.zero_grad()
            output = draw(nerf, view(40.0 * step))
            (output.rgb.square().mean() + 0.1 * output.terms["orientation"]).backward()
            optimizer.step()
            nerf.adapt(step, 6, optimizer, generator)

    settings = {"start_levels": 1, "radiance": RadianceFieldConfig(hash_grid=HashGridConfig(levels=3, log2_size=12))}
    through, generator = build(**settings), torch.Generator().manual_seed(3)
    optimizer = torch.optim.SGD(through.parameters(), lr=1.0)
    train(through, 1, 3, optimizer, generator)
    tensors = {name: t.detach().clone() for name, t in [*through.named_parameters(), *through.named_buffers()]}
    state = generator.get_state()
    train(through, 4, 6, optimizer, generator)

    resumed = build(seed=8, **settings)
    resumed.load_tensors(tensors)
    train(resumed, 4, 6, torch.optim.SGD(resumed.parameters(), lr=1.0), torch.Generator().set_state(state))
    for (name, expected), actual in zip(through.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(actual, expected), name


def test_skipping_empty_cells_hardly_changes_the_image() -> None:
    nerf, cameras = build(), view(10.0, 130.0)
    with torch.no_grad():
        before = draw(nerf, cameras)
        adapt(nerf, 1)
        after = draw(nerf, cameras)
    assert nerf.occupancy.occupied(nerf.step_length).float().mean() < 0.3
    assert (after.rgb - before.rgb).abs().max() < 0.05
    assert (after.opacity == 0).float().mean() > 0.2


def test_early_stop_hardly_changes_the_image() -> None:
    cameras = view(10.0)
    nerf, whole = hard_ball(), hard_ball(early_stop=0.0)
    with torch.no_grad():
        assert (draw(nerf, cameras).rgb - draw(whole, cameras).rgb).abs().max() < 2e-3


def test_chunks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the image nor its gradient depends on the chunk size."""
    nerf, cameras = build(), view(10.0, 130.0)
    results = []
    for rays in (2**14, 100):
        monkeypatch.setattr("steindreamer.representations.nerf.nerf._RAYS_AT_ONCE", rays)
        nerf.zero_grad()
        output = draw(nerf, cameras)
        (output.rgb.square().sum() + output.normal[:, 0].sum() + sum(output.terms.values())).backward()
        with torch.no_grad():
            still = draw(nerf, cameras)
        images = [getattr(each, image).detach() for each in (output, still) for image in IMAGES]
        results.append([*images, *output.terms.values(), *(p.grad for p in nerf.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=2e-4)


def test_terms_exist_with_gradients_only_and_are_never_nan() -> None:
    nerf, cameras = build(), view(0.0)
    terms = draw(nerf, cameras).terms
    assert terms.keys() == set(nerf.render_terms)
    assert all(term.shape == () and term.requires_grad and float(term.detach()) > 0 for term in terms.values())
    with torch.no_grad():
        assert not draw(nerf, cameras).terms
    empty = build(radiance=RadianceFieldConfig(blob=BlobConfig(bias=-200.0, shape="dreamfusion", width=9.0)))
    output = draw(empty, cameras)
    assert not output.opacity.any() and output.terms["z_variance"] == 0
    (sum(output.terms.values()) + output.depth.sum() + output.normal.sum()).backward()  # type: ignore[union-attr]
    assert all(p.grad is None or p.grad.isfinite().all() for p in empty.parameters())


def test_rays_with_tiny_opacity_have_finite_gradients() -> None:
    """Before the first occupancy update, rays beside the blob have densities down to subnormal numbers."""
    blob = BlobConfig(bias=20.0, width=0.3)
    nerf = build(radiance=RadianceFieldConfig(hash_grid=HashGridConfig(levels=4, log2_size=12), blob=blob))
    output = draw(nerf, Cameras.orbit([10.0, 130.0], [10.0] * 2, height=24, width=40, field_of_view=70.0))
    assert ((output.opacity > 0) & (output.opacity < torch.finfo(torch.float32).tiny)).any()
    for loss in (output.rgb.mean(), output.depth.mean(), output.terms["z_variance"]):
        nerf.zero_grad()
        loss.backward(retain_graph=True)
        assert all(p.grad is None or p.grad.isfinite().all() for p in nerf.parameters())


@pytest.mark.parametrize("term", ["orientation", "z_variance", "distortion"])
def test_minimizing_a_term_lowers_it(term: str) -> None:
    nerf, cameras = build(samples=64), view(0.0, 90.0, size=12)
    optimizer = torch.optim.Adam(nerf.optimizer_groups())
    before = float(draw(nerf, cameras).terms[term].detach())
    for _ in range(15):
        optimizer.zero_grad()
        draw(nerf, cameras).terms[term].backward()
        optimizer.step()
    assert float(draw(nerf, cameras).terms[term].detach()) < 0.8 * before


def test_cameras_inside_a_scene() -> None:
    """Inside out: from near the origin, there is a wall on all sides at the width of the blob, facing inward."""
    blob = BlobConfig(bias=-1e5, width=2.0)
    nerf = build(bound=3.0, samples=400, radiance=RadianceFieldConfig(blob=blob))
    cameras = Cameras.orbit([0.0, 90.0, 180.0, 270.0], [0.0] * 4, distance=0.3, field_of_view=90.0, height=12)
    with torch.no_grad():
        output = draw(nerf, cameras)
    assert output.opacity.min() > 0.99
    points = cameras.unproject(output.depth)
    radius = points.norm(dim=1)
    assert (radius - 2).abs().max() < 2 * nerf.step_length
    assert (-output.normal * points / radius[:, None]).sum(1).min() > 0.95


def test_levels_are_activated_coarse_to_fine() -> None:
    nerf = build(start_levels=1, all_levels_at=0.5)
    active = []
    for step in (1, 20, 34, 50, 100):
        active.append(int(nerf.radiance.grid.active_levels))
        adapt(nerf, step)
    assert active == [1, 1, 2, 3, 4] and int(nerf.radiance.grid.active_levels) == 4


def test_report_counts_cells() -> None:
    nerf = build()
    report = nerf.adapt(1, 10, torch.optim.Adam(nerf.optimizer_groups()), torch.Generator().manual_seed(0))
    assert report.removed > 0 and report.total + report.removed == 64**3
    assert report.total == int(nerf.occupancy.occupied(nerf.step_length).sum())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bound": 0.0}, "bound > 0"),
        ({"samples": 0}, "samples >= 1"),
        ({"early_stop": 1.0}, "early_stop < 1"),
        ({"near": -1.0}, "near >= 0"),
        ({"start_levels": 9}, "start_levels is 9; the grid has 4 levels"),
    ],
)
def test_config_errors(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(**settings)


def psnr(image: Tensor, target: Tensor) -> float:
    return -10 * math.log10(float((image - target).square().mean()))


@pytest.mark.slow
def test_a_duck_is_fitted_from_its_images() -> None:
    """After 200 steps, held-out views reach 26 dB PSNR, and most depths and normals are correct."""
    mesh = sample_object(parse_caption("a yellow duck"), np.random.default_rng(0))
    cameras = sphere_of_cameras(32, height=48)
    held_out = Cameras.orbit([25.0, 200.0], [15.0, 35.0], height=64)
    truth, unseen = (
        render_objects([mesh] * len(c), c, torch.zeros(len(c), 3), supersample=2) for c in (cameras, held_out)
    )
    nerf = NerfConfig(samples=96).build(torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(nerf.optimizer_groups(), betas=(0.9, 0.99), eps=1e-15)
    generator = torch.Generator().manual_seed(1)
    for step in range(1, 201):
        i = torch.randint(len(cameras), (1,), generator=generator)
        background = torch.rand(1, 3, generator=generator)
        output = nerf.render(cameras[i], background)
        target = truth.rgb[i] + (1 - truth.opacity[i]) * background[:, :, None, None]
        optimizer.zero_grad()
        loss = (output.rgb - target).square().mean()
        (loss + 0.1 * output.terms["distortion"] + 0.1 * output.terms["orientation"]).backward()
        optimizer.step()
        nerf.adapt(step, 200, optimizer, generator)
    with torch.no_grad():
        output = nerf.render(held_out, torch.zeros(2, 3))
    assert psnr(output.rgb, unseen.rgb) > 26
    solid = (unseen.opacity > 0.99) & (output.opacity > 0.5)
    assert solid.sum() > 0.9 * (unseen.opacity > 0.99).sum()
    assert (output.depth - unseen.depth)[solid].abs().median() < 0.1
    cosine = (output.normal * unseen.normal).sum(1, keepdim=True)[solid]
    assert cosine.median() > math.cos(math.radians(25))


@pytest.mark.gpu
@pytest.mark.parametrize("normals", ["analytic", "finite"])
def test_cuda_equals_the_cpu(normals: Any) -> None:
    """Images, terms and gradients on CUDA (torch) equal those of the compiled kernels; then it trains."""
    results = []
    for device in ("cpu", "cuda"):
        nerf = build(radiance=RadianceFieldConfig(normals=normals), device=device)
        output = draw(nerf, view(10.0, 100.0))
        (output.rgb.square().sum() + output.normal[:, 0].sum() + 9 * sum(output.terms.values())).backward()
        gradients = [p.grad for p in nerf.parameters() if p.grad is not None]
        tensors = [*(getattr(output, image) for image in IMAGES), *output.terms.values(), *gradients]
        results.append([tensor.detach().cpu() for tensor in tensors])
        adapt(nerf, 1)
        assert draw(nerf, view(10.0)).rgb.device.type == device
        assert nerf.field(torch.zeros(3, 3, device=device)).density.device.type == device
    for one, other in zip(*results, strict=True):
        assert (one - other).norm() < 1e-2 * other.norm() + 1e-6
