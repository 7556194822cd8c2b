"""Handing a scene over: the mesh and the texture look like what they are made of."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from analytic_scene import RenderedScene, sphere
from fitted_scenes import COLORS, fitted, ring_and_ball

from steindreamer.pipelines.export import ExportConfig
from steindreamer.pipelines.meshing.conversion import Conversion, conversion_psnr, nearest_colors
from steindreamer.representations import DmtetConfig, Representation, TextureConfig

EXPORT = ExportConfig(resolution=64, cameras=24, view_size=128, face_budget=3000, texture_size=256, tolerance=0.0)
GRID = DmtetConfig(resolution=36)
LEAST = 22.0
"""Decibels: a change that is not seen as a jump."""


def _context(generator: torch.Generator, export: ExportConfig = EXPORT) -> Conversion:
    return Conversion(export, generator, torch.device("cpu"))


@pytest.fixture(scope="module", params=["renders", "gaussians", pytest.param("nerf", marks=pytest.mark.slow)])
def scene(request: pytest.FixtureRequest) -> Representation:
    """`renders`: neither field nor mesh."""
    return fitted(request.param)


def test_mesh_and_texture_look_like_the_scene(scene: Representation, generator: torch.Generator) -> None:
    context = _context(generator)
    mesh = GRID.from_scene(scene, context)
    assert conversion_psnr(scene, mesh, 128) >= LEAST
    for source in (scene, mesh):
        textured = TextureConfig().from_scene(source, context)
        assert conversion_psnr(source, textured, 128) >= LEAST
        assert 1000 < len(textured.faces) <= EXPORT.face_budget and textured.texture.shape == (3, 256, 256)


def test_conversion_psnr_of_known_images() -> None:
    def ball(*color: float) -> RenderedScene:
        return RenderedScene(sphere(0.6), lambda points: torch.tensor(color).expand(points.shape))

    gray, lighter = ball(0.5, 0.5, 0.5), ball(0.6, 0.6, 0.6)
    # A ball of 0.6 m at 3.2 m, seen under 40 degrees: its outline's radius over half the image's side.
    radius = 0.6 / (3.2**2 - 0.6**2) ** 0.5 / torch.tensor(torch.pi / 9).tan()
    fraction = torch.pi * radius**2 / 4
    assert conversion_psnr(gray, lighter, 128) == pytest.approx(float(-10 * (0.01 * fraction).log10()), abs=0.1)
    assert conversion_psnr(gray, gray, 64) == pytest.approx(100)


def test_conversion_psnr_sees_lost_colors_and_parts() -> None:
    whole = ring_and_ball()
    gray = RenderedScene(whole.distance, lambda points: COLORS.mean(0).expand(points.shape))
    assert conversion_psnr(whole, gray, 64) < LEAST
    assert conversion_psnr(whole, RenderedScene(sphere(0.3), whole.color), 64) < LEAST


def test_nearest_colors() -> None:
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [9, 9, 9]])
    look_up = nearest_colors(points, torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]))
    found = look_up(torch.tensor([[0.0, 0, 0], [0.5, 0.5, 0], [0.25, 0, 0]]))
    assert torch.allclose(found[0], torch.tensor([1.0, 0, 0]), atol=1e-6)
    assert torch.allclose(found[1], torch.full((3,), 1 / 3), atol=1e-6)
    fractions = 1 / torch.tensor([0.25, 0.75, (1 + 0.25**2) ** 0.5])
    assert torch.allclose(found[2], fractions / fractions.sum(), atol=1e-6)


def test_an_empty_scene_is_refused(generator: torch.Generator) -> None:
    nothing = RenderedScene(sphere(), opacity=0.0)
    with pytest.raises(ValueError, match="the scene is empty"):
        GRID.from_scene(nothing, _context(generator))
    with pytest.raises(ValueError, match="the scene is empty"):
        TextureConfig().from_scene(nothing, _context(generator))


@pytest.mark.parametrize("source", ["auto", "renders", "field", "mesh"])
def test_a_mesh_can_be_handed_over_from_any_source(source: str, generator: torch.Generator) -> None:
    mesh = DmtetConfig(resolution=16, bumps=0.0).build(generator)
    export = replace(EXPORT, source=source, resolution=32, cameras=12, view_size=64, face_budget=500)
    context = _context(generator, export)
    again = DmtetConfig(resolution=16).from_scene(mesh, context)
    textured = TextureConfig().from_scene(mesh, context)
    assert conversion_psnr(mesh, again, 64) >= LEAST and conversion_psnr(mesh, textured, 64) >= LEAST
