"""The key light of the previews."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from steindreamer.pipelines.export.lighting import AMBIENT, CLAY, DIRECT, clay, lit, shaded, toward_key_light
from steindreamer.pipelines.export.previews import MAP_SIZE, save_maps
from steindreamer.representations import Cameras, RenderOutput


def _linear(value: float) -> float:
    return ((value + 0.055) / 1.055) ** 2.4


@pytest.mark.parametrize(("angle", "light"), [(0.0, AMBIENT + DIRECT), (60.0, AMBIENT + DIRECT / 2), (120.0, AMBIENT)])
def test_light_follows_lamberts_law_in_linear_space(angle: float, light: float) -> None:
    base = torch.full((1, 3, 1, 1), 0.5)
    normal = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
    turned = torch.deg2rad(torch.tensor(angle))
    toward = 5 * torch.stack([turned.sin(), torch.zeros(()), turned.cos()])[None]
    value = float(shaded(base, normal, toward)[0, 0, 0, 0])
    assert _linear(value) == pytest.approx(light * _linear(0.5), rel=1e-4)
    assert float(shaded(0 * base, normal, toward).abs().max()) < 1e-6
    assert float(shaded(2 * base, normal, toward).max()) <= 1 + 1e-6


def test_the_key_light_moves_with_the_camera() -> None:
    cameras = Cameras.orbit([0.0, 90.0, 250.0], [10.0, 40.0, -20.0], height=8)
    toward = toward_key_light(cameras)
    toward_camera = torch.nn.functional.normalize(cameras.position, dim=1)
    cosine = (torch.nn.functional.normalize(toward, dim=1) * toward_camera).sum(1)
    assert torch.allclose(cosine, cosine[0].expand(3), atol=1e-5) and float(cosine[0]) > 0.4
    assert bool((toward[:, 1] > 0).all())


def test_the_background_stays_white_and_is_no_part_of_the_lit_color() -> None:
    cameras = Cameras.orbit([0.0], [0.0], height=1)
    toward = torch.nn.functional.normalize(toward_key_light(cameras), dim=1)[:, :, None, None]
    color = torch.tensor([0.8, 0.2, 0.1]).reshape(1, 3, 1, 1)

    def output(opacity: float) -> RenderOutput:
        alpha = torch.full((1, 1, 1, 1), opacity)
        return RenderOutput(rgb=color * alpha + 1 - alpha, depth=alpha, normal=toward * alpha, opacity=alpha)

    full, half, nothing = (lit(output(opacity), cameras) for opacity in (1.0, 0.5, 0.0))
    assert torch.allclose(half, 0.5 * full + 0.5, atol=1e-5)
    assert torch.equal(nothing, torch.ones_like(nothing))
    gray = float(clay(output(1.0), cameras)[0, 0, 0, 0])
    assert _linear(gray) == pytest.approx(min((AMBIENT + DIRECT) * _linear(CLAY), 1), rel=1e-4)


def test_maps_are_side_by_side_and_reduced(tmp_path: Path) -> None:
    large = torch.arange(3, dtype=torch.uint8).expand(2 * MAP_SIZE, 2 * MAP_SIZE, 3).numpy()
    save_maps([large, 255 - large], tmp_path / "maps.png")
    with Image.open(tmp_path / "maps.png") as image:
        assert image.size == (2 * MAP_SIZE, MAP_SIZE)
        assert image.getpixel((0, 0)) == (0, 1, 2) and image.getpixel((MAP_SIZE, 0)) == (255, 254, 253)
