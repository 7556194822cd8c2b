"""Training views stay in their ranges and are reproducible."""

import pytest
import torch

from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.views import ViewsConfig, sample_views


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


def test_same_seed_same_views() -> None:
    draws = [sample_views(ViewsConfig(), 16, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(draws[0][0].camera_to_world, draws[1][0].camera_to_world)
    assert torch.equal(draws[0][1], draws[1][1])


@pytest.mark.parametrize(
    "bad",
    [
        {"per_step": 0},
        {"elevation": [10.0, -10.0]},
        {"elevation": [1.0]},
        {"distance": [0.5, 1.0]},
        {"field_of_view": [0.0, 40.0]},
        {"random_background": 1.5},
    ],
)
def test_bad_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(UserError, match=next(iter(bad))):
        ViewsConfig(**bad).validate()  # pyright: ignore[reportArgumentType]
