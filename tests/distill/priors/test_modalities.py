"""Images of geometry and the conditioning of a network on their modality."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from analytic_scene import RenderedScene, sphere
from small_world import TwoModes

from steindreamer.distill.priors.base import MultimodalPrior
from steindreamer.distill.priors.camera_features import CAMERA_FEATURES, CROP_FEATURES, camera_features, crop_features
from steindreamer.distill.priors.counting import counting
from steindreamer.distill.priors.modalities import (
    background_of,
    condition,
    encode,
    encode_depth,
    encode_normal,
    encode_normal_as_color,
    known_modalities,
    knows_crops,
    knows_parts_of_images,
    modalities_of,
    view_feature_names,
    view_features,
)
from steindreamer.representations import Cameras, TriangleMesh, render_mesh
from steindreamer.world.prior import WorldPrior

CAMERAS = Cameras.orbit([0.0, 130.0, -50.0], [0.0, 40.0, 80.0], distance=3.0, height=8)


def facing(direction: torch.Tensor) -> torch.Tensor:
    """(b, 3) to constant normal images."""
    return direction[:, :, None, None].expand(-1, 3, 8, 8)


def test_what_faces_the_camera_has_one_color_from_everywhere() -> None:
    opaque = torch.ones(3, 1, 8, 8)
    image = encode_normal(facing(-CAMERAS.forward), opaque, CAMERAS)
    torch.testing.assert_close(image[:, :, 0, 0], torch.tensor([[0.5, 0.5, 1.0]]).expand(3, 3), atol=1e-6, rtol=0)


def test_normals_point_right_and_up_in_the_image() -> None:
    front, opaque = CAMERAS[0], torch.ones(1, 1, 8, 8)
    for direction, color in (((1.0, 0.0, 0.0), (1.0, 0.5, 0.5)), ((0.0, 1.0, 0.0), (0.5, 1.0, 0.5))):
        image = encode_normal(facing(torch.tensor([direction])), opaque, front)
        torch.testing.assert_close(image[0, :, 0, 0], torch.tensor(color), atol=1e-6, rtol=0)


def test_depth_is_bright_near_and_dark_far() -> None:
    depth = torch.tensor([2.0, 3.0, 4.0])[:, None, None, None].expand(3, 1, 8, 8)
    image = encode_depth(depth, torch.ones(3, 1, 8, 8), CAMERAS)
    assert image.shape == (3, 3, 8, 8)
    torch.testing.assert_close(image[:, 2, 0, 0], torch.tensor([1.0, 0.5, 0.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("encoder", [encode_normal, encode_depth])
def test_geometry_fades_to_black_with_the_opacity(encoder: object) -> None:
    value = facing(-CAMERAS.forward) if encoder is encode_normal else torch.full((3, 1, 8, 8), 2.5)
    full, half, none = (encoder(value, torch.full((3, 1, 8, 8), a), CAMERAS) for a in (1.0, 0.5, 0.0))  # pyright: ignore[reportCallIssue]
    torch.testing.assert_close(half, full / 2)
    assert not none.any()


def test_images_of_a_mesh_stay_in_range_and_stand_out_from_their_background() -> None:
    """A tetrahedron that reaches the unit sphere, with its true normals."""
    corners = torch.tensor([[1.0, 1.0, 1.0], [1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]]) / 3**0.5
    faces = torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    cameras = CAMERAS.resized(32)
    drawn = render_mesh(
        TriangleMesh(corners[faces].flatten(0, 1), torch.arange(12).reshape(4, 3)), cameras, torch.zeros(3, 3)
    )
    for name in ("normal", "depth"):
        image = encode(
            name,
            rgb=drawn.rgb,
            albedo=drawn.rgb,
            normal=drawn.normal,
            depth=drawn.depth,
            opacity=drawn.opacity,
            cameras=cameras,
        )
        assert -1e-6 <= image.min() and image.max() <= 1 + 1e-6
        inside = (drawn.opacity == 1).expand_as(image)
        assert inside.any() and (image[:, 2:][inside[:, 2:]] > (0.49 if name == "normal" else 0.0)).all()
        assert not image[(drawn.opacity == 0).expand_as(image)].any()


def test_color_and_albedo_are_what_was_drawn() -> None:
    rgb, albedo = torch.rand(3, 3, 8, 8), torch.rand(3, 3, 8, 8)
    layers = {"normal": rgb, "depth": rgb[:, :1], "opacity": rgb[:, :1], "cameras": CAMERAS}
    assert encode("color", rgb=rgb, albedo=albedo, **layers) is rgb
    assert encode("albedo", rgb=rgb, albedo=albedo, **layers) is albedo
    with pytest.raises(ValueError, match="no modality 'heat': available: color, albedo, normal, depth"):
        encode("heat", rgb=rgb, albedo=albedo, **layers)


def test_gradients_reach_geometry() -> None:
    depth, normal = torch.full((3, 1, 8, 8), 2.5).requires_grad_(), facing(-CAMERAS.forward).clone().requires_grad_()
    opacity = torch.full((3, 1, 8, 8), 0.5).requires_grad_()
    (encode_depth(depth, opacity, CAMERAS).sum() + encode_normal(normal, opacity, CAMERAS).sum()).backward()
    for leaf in (depth, normal, opacity):
        assert leaf.grad is not None and leaf.grad.abs().min() > 0


def test_only_color_and_albedo_have_a_background_of_choice() -> None:
    white = torch.ones(3, 3)
    assert background_of("color", white) is white and background_of("albedo", white) is white
    assert not background_of("normal", white).any() and not background_of("depth", white).any()


def test_a_network_without_modalities_knows_color_and_is_told_the_camera_alone() -> None:
    background = torch.rand(3, 3)
    assert modalities_of(CAMERA_FEATURES) == ("color",)
    assert torch.equal(view_features(CAMERA_FEATURES, CAMERAS, background), camera_features(CAMERAS, background))
    with pytest.raises(ValueError, match="no modality 'depth': available: color"):
        view_features(CAMERA_FEATURES, CAMERAS, background, "depth")


def test_modalities_are_told_one_by_one() -> None:
    names = view_feature_names(("color", "normal"))
    assert modalities_of(names) == ("color", "normal")
    features = view_features(names, CAMERAS, torch.rand(3, 3), ["normal", "color", "normal"])
    assert features[:, len(CAMERA_FEATURES) :].tolist() == [[0, 1], [1, 0], [0, 1]]
    assert torch.equal(view_features(names, CAMERAS, torch.zeros(3, 3))[:, -2:], torch.tensor([[1.0, 0.0]] * 3))


@pytest.mark.parametrize(
    "names", [None, [], ["roll"], [*CAMERA_FEATURES, "modality heat"], [*CAMERA_FEATURES, "modality color"] * 2]
)
def test_other_features_are_refused(names: list[str] | None) -> None:
    with pytest.raises(ValueError, match="expects the camera as"):
        modalities_of(names)


@pytest.mark.parametrize("alpha", [1.0, 0.4])
def test_a_rendered_sphere_is_encoded_as_the_closed_form(alpha: float) -> None:
    """Buffers are not multiplied by the opacity, so a faint sphere's images are multiplied by it exactly once."""
    radius, cameras = 0.6, Cameras.orbit([0.0, 130.0, -50.0], [0.0, 40.0, -30.0], distance=3.0, height=24)
    drawn = RenderedScene(sphere(radius), opacity=alpha).render(cameras, torch.zeros(3, 3))
    rays = cameras.rays()
    unit = rays / rays.norm(dim=1, keepdim=True)
    # |eye + t u| = radius, the nearer solution; the distance of the eye from the center is 3.
    along = (cameras.position[:, :, None, None] * unit).sum(1, keepdim=True)
    discriminant = along.square() - 9 + radius**2
    solid = discriminant > 0.01
    length = -along - discriminant.clamp(min=0).sqrt()
    point = cameras.position[:, :, None, None] + length * unit
    axes = cameras.camera_to_world[:, :3, :3]
    x, down, ahead = torch.einsum("bij,bihw->jbhw", axes, point / radius)
    normal = alpha * (0.5 + 0.5 * torch.stack([x, -down, -ahead], 1))
    z = torch.einsum("bi,bihw->bhw", axes[:, :, 2], length * unit)[:, None]
    depth = alpha * (0.5 - 0.5 * (z - 3.0)).expand(-1, 3, -1, -1)
    inside = solid.expand(-1, 3, -1, -1)
    layers = {"rgb": drawn.rgb, "albedo": drawn.rgb, "normal": drawn.normal, "depth": drawn.depth}
    for name, expected in (("normal", normal), ("depth", depth)):
        image = encode(name, opacity=drawn.opacity, cameras=cameras, **layers)
        assert int(solid.sum()) > 100
        torch.testing.assert_close(image[inside], expected[inside], atol=5e-3, rtol=0)
        assert not image[(discriminant < -0.01).expand(-1, 3, -1, -1)].any()


def test_normals_as_colors_are_in_world_space() -> None:
    normal, opacity = facing(torch.tensor([[1.0, 0.0, 0.0]] * 3)), torch.full((3, 1, 8, 8), 0.5)
    image = encode_normal_as_color(normal, opacity)
    torch.testing.assert_close(image[:, :, 0, 0], torch.tensor([[0.5, 0.25, 0.25]] * 3))


class Asked(TwoModes):
    """A prior of color alone, as plugins are."""

    def condition(self, embedding: None, cameras: object, background: torch.Tensor) -> Any:
        return background


class AskedForAll(TwoModes):
    modalities = ("color", "depth")

    def condition(self, embedding: None, cameras: object, background: torch.Tensor, modality: str = "color") -> Any:
        return background, modality


def test_a_prior_that_does_not_say_knows_color_alone() -> None:
    white, prior = torch.ones(3, 3), Asked()
    assert known_modalities(prior) == ("color",) and not isinstance(prior, MultimodalPrior)
    assert condition(prior, None, CAMERAS, white) is white
    with pytest.raises(ValueError, match="no modality 'depth': available: color"):
        condition(prior, None, CAMERAS, white, "depth")


@pytest.mark.parametrize("wrap", [lambda prior: prior, counting])
def test_a_prior_that_says_is_given_the_modality_and_its_background(wrap: Callable[[Any], Any]) -> None:
    prior, white = wrap(AskedForAll()), torch.ones(3, 3)
    assert known_modalities(prior) == ("color", "depth")
    assert condition(prior, None, CAMERAS, white)[1] == "color"
    background, modality = condition(prior, None, CAMERAS, white, "depth")
    assert modality == "depth" and not background.any()
    with pytest.raises(ValueError, match="no modality 'normal': available: color, depth"):
        condition(prior, None, CAMERAS, white, "normal")


def test_features_of_a_part_of_the_image() -> None:
    whole = Cameras.orbit([0.0], [10.0], distance=3.2, height=16)
    values = dict(zip(CROP_FEATURES, crop_features(whole)[0].tolist(), strict=True))
    assert values == pytest.approx({name: float("cos" in name) for name in CROP_FEATURES}, abs=1e-3)
    # The left half of the upper half: its center is a quarter to the left of the middle, and a quarter above.
    part = whole.cropped(torch.tensor([0.0]), torch.tensor([0.0]), torch.tensor([0.5]))
    values = dict(zip(CROP_FEATURES, crop_features(part)[0].tolist(), strict=True))
    expected = {"crop log zoom": 1, "crop sin x": -1, "crop cos x": 0, "crop sin 2 x": 0, "crop cos 2 x": -1}
    expected |= {"crop sin y": -1, "crop cos y": 0, "crop sin 2 y": 0, "crop cos 2 y": -1}
    assert values == pytest.approx(expected, abs=1e-3)


def test_networks_that_know_parts_of_images() -> None:
    for modalities in (("color",), ("color", "normal")):
        names = view_feature_names(modalities, crops=True)
        assert knows_crops(names) and modalities_of(names) == modalities
        assert not knows_crops(view_feature_names(modalities))
    part = CAMERAS.cropped(*(torch.full((3,), value) for value in (0.5, 0.0, 0.5)))
    features = view_features(view_feature_names(("color", "normal"), crops=True), part, torch.ones(3, 3), "normal")
    assert torch.equal(features[:, len(CAMERA_FEATURES) : -2], crop_features(part))
    assert features[:, CAMERA_FEATURES.index("zoom")].tolist() == [1, 1, 1] and features[:, -1].tolist() == [1, 1, 1]
    assert not knows_parts_of_images(TwoModes()) and WorldPrior.crops
