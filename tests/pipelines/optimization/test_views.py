"""Training views stay in their ranges and are reproducible."""

import math
from typing import Any

import pytest
import torch

from steindreamer.pipelines.errors import SettingsError
from steindreamer.pipelines.optimization.views import ViewsConfig, sample_views
from steindreamer.pipelines.settings.validation import read_settings
from steindreamer.representations import Cameras


def test_ranges_and_stratification(generator: torch.Generator) -> None:
    config = ViewsConfig(per_step=4, overhead_fraction=0.0, distance=[2.0, 2.5], random_background=0.0)
    for _ in range(20):
        cameras, background = sample_views(config, 32, generator)
        assert (cameras.height, cameras.width) == (32, 32)
        assert bool(((cameras.elevation >= -15.01) & (cameras.elevation <= 45.01)).all())
        assert bool((cameras.position.norm(dim=1) - 2.25).abs().max() <= 0.2501)
        gaps = torch.diff(torch.sort(cameras.azimuth % 360).values)
        torch.testing.assert_close(gaps, torch.full((3,), 90.0), atol=0.05, rtol=0)
        assert torch.equal(background, torch.ones(4, 3))


def test_shares_of_bands_and_backgrounds(generator: torch.Generator) -> None:
    config = ViewsConfig(per_step=4000, overhead_fraction=0.3, below_fraction=0.2, random_background=0.5)
    cameras, background = sample_views(config, 16, generator)
    assert (cameras.elevation > 45).float().mean().item() == pytest.approx(0.3, abs=0.03)
    assert (cameras.elevation < -15).float().mean().item() == pytest.approx(0.2, abs=0.03)
    assert (background == 1).all(1).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_antipodal_views_come_in_pairs_that_share_the_rest(generator: torch.Generator) -> None:
    config = ViewsConfig(per_step=4, azimuths="antipodal", distance=[2.0, 2.5], field_of_view=[30.0, 50.0])
    firsts = []
    for _ in range(20):
        cameras, _ = sample_views(config, 32, generator)
        first, second = cameras.position[:2], cameras.position[2:]
        torch.testing.assert_close(second, first * torch.tensor([-1.0, 1.0, -1.0]), atol=1e-4, rtol=0)
        assert torch.equal(cameras.intrinsics[:2], cameras.intrinsics[2:])
        firsts.append(cameras.azimuth[:2])
        gap = (cameras.azimuth[1] - cameras.azimuth[0]) % 180
        assert float(gap) == pytest.approx(90, abs=0.05), "two pairs look along crossed axes"
    assert torch.stack(firsts).std() > 30
    with pytest.raises(SettingsError, match=r"^views\.azimuths=antipodal pairs views; per_step is 3, not even"):
        read_settings(ViewsConfig, {"per_step": 3, "azimuths": "antipodal"}, "views")
    with pytest.raises(SettingsError, match=r"views\.azimuths is 'antipodl'.*accepted: stratified, antipodal, indep"):
        read_settings(ViewsConfig, {"azimuths": "antipodl"}, "views")


def test_independent_azimuths_leave_gaps_of_any_size(generator: torch.Generator) -> None:
    config = ViewsConfig(per_step=4, azimuths="independent")
    azimuths = torch.stack([sample_views(config, 16, generator)[0].azimuth % 360 for _ in range(200)])
    assert ((azimuths.mean(0) - 180).abs() < 4 * 104 / 200**0.5).all(), "each uniform"
    gaps = torch.diff(azimuths.sort(1).values)
    assert gaps.min() < 5 and gaps.max() > 180


def test_same_seed_same_views() -> None:
    draws = [sample_views(ViewsConfig(), 16, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(draws[0][0].camera_to_world, draws[1][0].camera_to_world)
    assert torch.equal(draws[0][1], draws[1][1])


def test_the_random_stream_is_stable() -> None:
    """Seeds keep their meaning: these are the views that seed 7 gave before there were scenes and perturbations."""
    config = ViewsConfig(per_step=3, below_fraction=0.3, distance=[2.0, 2.5], field_of_view=[30.0, 50.0])
    generator = torch.Generator().manual_seed(7)
    sample_views(config, 32, generator)
    cameras, background = sample_views(config, 32, generator)
    position = [
        [-1.6115117, 1.6763217, -0.8586450],
        [0.0767413, 0.3299171, 2.2534380],
        [1.7798901, -0.6850740, -1.1100591],
    ]
    torch.testing.assert_close(cameras.position, torch.tensor(position))
    torch.testing.assert_close(cameras.forward, -torch.nn.functional.normalize(torch.tensor(position), dim=1))
    torch.testing.assert_close(cameras.intrinsics[:, 0, 0], torch.tensor([45.5496941, 38.8793259, 58.3616447]))
    torch.testing.assert_close(background, torch.tensor([[1.0] * 3, [0.4702875, 0.1049237, 0.5136616], [1.0] * 3]))
    assert torch.rand(1, generator=generator).item() == pytest.approx(0.6360681653022766)


def test_outward_turns_its_back_on_the_center(generator: torch.Generator) -> None:
    config = ViewsConfig(per_step=64, inside=True, look="outward", distance=[0.1, 0.8])
    cameras, _ = sample_views(config, 16, generator)
    distance = cameras.position.norm(dim=1)
    assert distance.min() >= 0.1 and distance.max() <= 0.8 and distance.max() > 2 * distance.min()
    torch.testing.assert_close(cameras.forward, cameras.position / distance[:, None])
    assert cameras.elevation.min() >= -15.01 and cameras.elevation.max() <= 85.01


def test_inside_may_look_at_the_center(generator: torch.Generator) -> None:
    cameras, _ = sample_views(ViewsConfig(per_step=64, inside=True, distance=[0.1, 2.3]), 16, generator)
    torch.testing.assert_close(cameras.forward, -torch.nn.functional.normalize(cameras.position, dim=1))
    assert cameras.position.norm(dim=1).min() < 1


def test_around_stands_anywhere_and_keeps_the_bands_of_looking(generator: torch.Generator) -> None:
    config = ViewsConfig(per_step=2000, inside=True, look="around", distance=[0.5, 0.5], overhead_fraction=0.0)
    cameras, _ = sample_views(config, 16, generator)
    torch.testing.assert_close(cameras.position.norm(dim=1), torch.full((2000,), 0.5))
    direction = cameras.position / 0.5
    assert direction.mean(0).abs().max() < 0.06
    assert (direction * cameras.forward).sum(1).mean().abs() < 0.06, "standing and looking must be independent"
    assert cameras.elevation.min() >= -15.1 and cameras.elevation.max() <= 45.1
    gaps = torch.diff(torch.sort(cameras.azimuth % 360).values)
    assert gaps.max() < 0.3


@pytest.mark.parametrize("look", ["center", "outward", "around"])
def test_perturbations_have_the_given_size_and_leave_the_rest_alone(look: Any) -> None:
    def views(**perturb: float) -> Cameras:
        config = ViewsConfig(per_step=4000, inside=True, look=look, distance=[2.0, 2.0], **perturb)  # pyright: ignore
        return sample_views(config, 16, torch.Generator().manual_seed(0))[0]

    plain, moved, turned, rolled = views(), views(camera_perturb=0.1), views(center_perturb=0.2), views(up_perturb=0.02)
    ahead = 2.0 if look == "center" else 1.0
    assert (moved.position - plain.position).std().item() == pytest.approx(0.1, rel=0.05)
    for other in (turned, rolled):
        torch.testing.assert_close(other.position, plain.position)
    # Sideways offsets of the point looked at, per axis of the image.
    across = torch.einsum("bij,bi->bj", plain.camera_to_world[:, :3, :3], turned.forward)
    sideways = across[:, :2] / across[:, 2:] * ahead
    assert sideways.std().item() == pytest.approx(0.2, rel=0.2)
    torch.testing.assert_close(rolled.forward, plain.forward, atol=1e-5, rtol=0)
    roll = torch.linalg.cross(rolled.camera_to_world[:, :3, 1], plain.camera_to_world[:, :3, 1]).norm(dim=1)
    assert roll.square().mean().sqrt().item() == pytest.approx(0.02, rel=0.1)
    assert torch.equal(plain.intrinsics, turned.intrinsics)


def test_perturbed_cameras_stay_outside_the_unit_ball(generator: torch.Generator) -> None:
    cameras, _ = sample_views(ViewsConfig(per_step=500, distance=[1.01, 1.2], camera_perturb=0.3), 16, generator)
    assert cameras.position.norm(dim=1).min() >= 1 - 1e-6


def test_crops_are_parts_of_the_views(generator: torch.Generator) -> None:
    config = ViewsConfig(per_step=400, crop_fraction=0.75, crop_size=[0.4, 0.6])
    cameras, _ = sample_views(config, 32, generator)
    enlargement = cameras.intrinsics[:, 1, 1] / 32 / (0.5 / math.tan(math.radians(20)))
    cropped = enlargement > 1.01
    assert 0.65 < cropped.float().mean() < 0.85
    assert 1 / 0.6 <= enlargement[cropped].min() < 1.75 and 2.4 < enlargement.max() <= 1 / 0.4 + 1e-4
    # The edges of the whole image, in pixels of the part.
    for axis in (0, 1):
        center = cameras.intrinsics[:, axis, 2]
        assert (center - 16 * enlargement <= 1e-3).all() and (center + 16 * enlargement >= 32 - 1e-3).all()
        assert (center[~cropped] == 16).all() and center[cropped].min() < 10 and center[cropped].max() > 22


def test_crops_leave_the_other_random_numbers_alone() -> None:
    plain, cropped = (
        sample_views(ViewsConfig(crop_fraction=fraction), 32, torch.Generator().manual_seed(0))
        for fraction in (0.0, 1.0)
    )
    assert torch.equal(plain[0].camera_to_world, cropped[0].camera_to_world) and torch.equal(plain[1], cropped[1])


def test_azimuths_widen_from_the_front(generator: torch.Generator) -> None:
    config = ViewsConfig(per_step=400, widen_until=0.5, overhead_fraction=0.0)
    for progress, largest in ((0.0, 0.0), (0.125, 45.0), (0.25, 90.0), (0.5, 180.0), (1.0, 180.0)):
        cameras, _ = sample_views(config, 16, generator, progress)
        azimuth = cameras.azimuth
        assert azimuth.abs().max().item() == pytest.approx(largest, abs=1.0)
        assert azimuth.mean().abs() <= 1.0


@pytest.mark.parametrize(
    "bad",
    [
        {"per_step": 0},
        {"elevation": [10.0, -10.0]},
        {"elevation": [1.0]},
        {"distance": [0.5, 1.0]},
        {"field_of_view": [0.0, 40.0]},
        {"random_background": 1.5},
        {"distance": [float("nan"), 2.0]},
        {"distance": [0.0, 1.0], "inside": True},
        {"look": "inward", "inside": True},
        {"look": "outward"},
        {"camera_perturb": -0.1},
        {"center_perturb": float("nan")},
        {"up_perturb": 2.0},
        {"widen_until": 1.1},
    ],
)
def test_bad_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=rf"^views\.{next(iter(bad))}"):
        read_settings(ViewsConfig, bad, "views")


def test_inside_lifts_the_limit_of_the_distance() -> None:
    assert ViewsConfig(inside=True, distance=[0.1, 2.3]).inside
    with pytest.raises(ValueError, match=r"distance .* unless inside is true"):
        ViewsConfig(distance=[0.1, 2.3])


def test_crops_begin_late_in_the_stage() -> None:
    config = ViewsConfig(per_step=8, crop_fraction=1.0, crop_after=0.5)
    early, late = (
        sample_views(config, 32, torch.Generator().manual_seed(0), progress)[0].intrinsics for progress in (0.4, 0.5)
    )
    assert torch.allclose(late[:, 0, 0] / early[:, 0, 0], torch.tensor(2.0))
