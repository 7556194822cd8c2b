"""Scenes initialized from a splat file: fitted into the unit ball from any position and size, and exported back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from ply_samples import CODES, ENCODINGS, NEWLINES, SPLAT_NAMES, Element, Ply, ball, other_elements, splats

from steindreamer.representations import Cameras, Gaussians, GaussiansConfig, read_gaussian_ply
from steindreamer.representations.gaussians.densification import DensifyConfig
from steindreamer.representations.gaussians.ellipsoids import Ellipsoids
from steindreamer.representations.gaussians.ply import HIGHER_HARMONICS
from steindreamer.representations.placement import RADIUS

EVERY_STEP = DensifyConfig(interval=1, start=0.0, stop=0.0, minimum_count=0)


def build(path: Path, **options: float) -> Gaussians:
    config = GaussiansConfig(initial_ply=str(path), densify=EVERY_STEP)
    for name, value in options.items():
        setattr(config, name, value)
    return config.build(torch.Generator().manual_seed(0))


def save(folder: Path, element: Element) -> Path:
    (folder / "scene.ply").write_bytes(Ply([element]).content())
    return folder / "scene.ply"


def removed_by_a_round(scene: Gaussians) -> int:
    optimizer = torch.optim.Adam(scene.requires_grad_().optimizer_groups())
    return scene.adapt(1, 1, optimizer, torch.Generator()).removed


PLACES = {"off-origin": (1.0, (8.0, 0.0, 3.0)), "20m": (50.0, (0, 0, 0)), "1mm": (0.0025, (0, 0, 0))}
PLACES |= {"map": (25.0, (4.5e5, 30.0, -5.4e6))}


@pytest.mark.parametrize(("size", "place"), PLACES.values(), ids=PLACES)
def test_fit_keeps_all_gaussians_and_export_restores_them(
    size: float, place: tuple[float, float, float], tmp_path: Path
) -> None:
    means = size * ball().double() + torch.tensor(place)
    element = splats(means, **{f"scale_{axis}": [float(np.log(0.05 * size))] * 200 for axis in range(3)})
    if place[0] > 1e5:
        element.properties = [each.replace("float", "double") for each in element.properties]
    scene = build(save(tmp_path, element))
    optimizer = torch.optim.Adam(scene.optimizer_groups(), betas=(0.9, 0.99), eps=1e-15)
    cameras = Cameras.orbit([0.0, 120.0], [0.0, 30.0], height=16)
    generator = torch.Generator().manual_seed(0)
    for step in range(1, 11):
        optimizer.zero_grad()
        output = scene.render(cameras, torch.zeros(2, 3))
        assert 0.2 < float((output.opacity > 0.5).float().mean()) < 0.8, "it fills its images"
        (output.rgb - 0.5).square().sum().backward()
        optimizer.step()
        assert scene.adapt(step, 10, optimizer, generator).removed == 0
    again = read_gaussian_ply(scene.save(tmp_path))
    assert len(again) == 200
    # Ten steps of at most 5 mm, in the scale of the ball.
    assert (again.means.detach() - means.float()).norm(dim=1).max() < 0.1 * size
    ratio = again.scales.detach() / (0.05 * size)
    assert ratio.min() > 0.9 and ratio.max() < 1.1


def similar(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() < 1e-5)


@settings(max_examples=80, deadline=None, phases=set(Phase) - {Phase.explain})
@given(
    encoding=st.sampled_from(ENCODINGS),
    newline=st.sampled_from(NEWLINES),
    count=st.integers(1, 30),
    harmonics=st.sampled_from(sorted(HIGHER_HARMONICS)),
    own_types=st.lists(st.sampled_from(["float", "float32", "double", "float64"]), min_size=1, max_size=5),
    other_types=st.lists(st.sampled_from(sorted(CODES)), min_size=1, max_size=5),
    before=other_elements,
    after=other_elements,
    size=st.floats(-6, 6).map(lambda power: 10.0**power),
    place=st.tuples(*[st.floats(-20, 20)] * 3),
    yaw=st.floats(-360, 360),
    seed=st.integers(0, 2**31),
)
def test_any_file_of_splats(
    encoding: str,
    newline: str,
    count: int,
    harmonics: int,
    own_types: list[str],
    other_types: list[str],
    before: list[Element],
    after: list[Element],
    size: float,
    place: tuple[float, float, float],
    yaw: float,
    seed: int,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """After fitting, all Gaussians are in the ball and none is pruned; after writing, positions and sizes are restored.

    `place` is in units of `size`.
    """
    generator = torch.Generator().manual_seed(seed)
    table = torch.randn(count, len(SPLAT_NAMES), generator=generator, dtype=torch.float64)
    shift = torch.zeros(len(SPLAT_NAMES), dtype=torch.float64)
    shift[:3], shift[7:10] = size * torch.tensor(place), np.log(0.1 * size)
    table[:, :3] *= size
    table += shift
    table = table.float().double()
    names = [*SPLAT_NAMES, "nx", "label", *(f"f_rest_{index}" for index in range(harmonics))]
    rows = torch.cat([table, torch.full((count, len(names) - len(SPLAT_NAMES)), 3.0)], 1).tolist()
    kinds = [own_types[i % len(own_types)] for i in range(len(SPLAT_NAMES))]
    kinds += [other_types[i % len(other_types)] for i in range(len(names) - len(SPLAT_NAMES))]
    order = torch.randperm(len(names), generator=generator).tolist()
    element = Element("vertex", [f"{kinds[i]} {names[i]}" for i in order], [[row[i] for i in order] for row in rows])
    folder = tmp_path_factory.mktemp("splats")
    path = folder / "scene.ply"
    path.write_bytes(Ply([*before, element, *after], encoding, newline).content())

    scene = build(path, initial_yaw=yaw)
    assert len(scene) == count and scene.placement is not None
    scene.requires_grad_(False)
    reach = scene.means.norm(dim=1) + 3 * scene.scales.amax(1)
    assert float(reach.max()) == pytest.approx(RADIUS, rel=1e-4)
    again = read_gaussian_ply(scene.save(folder)).requires_grad_(False)
    assert similar(again.means / scene.placement.scale, table[:, :3].float() / scene.placement.scale)
    assert similar(again.log_scales, table[:, 7:10].float())
    quaternions = torch.nn.functional.normalize(table[:, 10:], dim=1).float()
    assert similar((again.quaternions * quaternions).sum(1).abs(), torch.ones(count))
    assert similar(again.opacity_logits, table[:, 6].float())
    expected = (0.5 + 0.28209479 * table[:, 3:6]).clamp(0, 1).float()
    assert float((again.colors - expected).abs().max()) < 1e-3
    opacities = scene.opacities
    # Only almost invisible Gaussians may be pruned.
    assert removed_by_a_round(scene) <= int((opacities < 0.01).sum())


def test_initial_yaw_rotates_the_image(tmp_path: Path) -> None:
    """Positions, axes and colors rotate: after 90 degrees, a front that faces -X faces +Z."""
    generator = torch.Generator().manual_seed(0)
    element = splats(
        0.3 * torch.randn(60, 3, generator=generator),
        **{f"scale_{axis}": [value] * 60 for axis, value in enumerate((-1.5, -3.0, -4.0))},
        **{f"rot_{axis}": torch.randn(60, generator=generator).tolist() for axis in range(4)},
    )
    plain = build(save(tmp_path, element))
    turned = build(save(tmp_path, element), initial_yaw=90.0)
    toward_minus_x, front = Cameras.orbit([-90.0], [0.0], height=32), Cameras.orbit([0.0], [0.0], height=32)
    assert float(toward_minus_x.position[0, 0]) < -1 and float(front.position[0, 2]) > 1
    one, other = plain.render(toward_minus_x, torch.zeros(1, 3)), turned.render(front, torch.zeros(1, 3))
    torch.testing.assert_close(one.rgb, other.rgb, atol=1e-4, rtol=0)
    torch.testing.assert_close(one.depth, other.depth, atol=1e-4, rtol=0)
    assert float((plain.render(front, torch.zeros(1, 3)).rgb - other.rgb).detach().abs().max()) > 0.1


def test_the_extent_is_that_of_the_ellipsoids() -> None:
    """The ball touches the end of one long oblique Gaussian."""
    one = Ellipsoids(
        torch.tensor([[5.0, 0.0, 0.0]]).double(),
        torch.tensor([[0.0, -5.0, -5.0]]).double(),
        torch.nn.functional.normalize(torch.tensor([[0.9, 0.0, 0.0, 0.4]]), dim=1).double(),
    )
    placement = one.fit()
    assert placement.center == pytest.approx((5.0, 0.0, 0.0)) and placement.scale == pytest.approx(3 / RADIUS)


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("distance", [30.0, 1e6])
def test_distant_floaters_are_refused(count: int, distance: float, tmp_path: Path) -> None:
    points = torch.cat([ball(), torch.tensor([[distance, 0.0, 0.0]]).repeat(count, 1)])
    with pytest.raises(ValueError, match=r"95% of them only .*: remove outliers"):
        build(save(tmp_path, splats(points)))


def test_invisible_or_degenerate_scenes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="all its Gaussians are invisible"):
        build(save(tmp_path, splats(ball(3), opacity=[-6.0, -7.0, -np.inf])))
    huge = splats(ball(3), **{f"scale_{axis}": [800.0] * 3 for axis in range(3)})
    with pytest.raises(ValueError, match="no finite extent"):
        build(save(tmp_path, huge))
    for yaw in (np.nan, np.inf):
        with pytest.raises(ValueError, match="finite"):
            build(save(tmp_path, splats(ball(3))), initial_yaw=yaw)
    with pytest.raises(ValueError, match="needs an initial_ply to rotate"):
        GaussiansConfig(initial_yaw=90.0).build(torch.Generator())


def test_placement_is_restored_from_a_checkpoint(tmp_path: Path) -> None:
    scene = build(save(tmp_path, splats(3 * ball() + 7)), initial_yaw=30.0)
    other = GaussiansConfig(count=5).build(torch.Generator())
    assert other.placement is None
    other.load_tensors({**dict(scene.named_parameters()), **dict(scene.named_buffers())})
    assert other.placement == scene.placement
