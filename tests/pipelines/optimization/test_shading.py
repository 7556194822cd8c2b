"""Shading: Lambert's law on a ray-traced sphere, what stays untouched, and where gradients go."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from steindreamer.pipelines.errors import SettingsError
from steindreamer.pipelines.optimization.shading import ShadingConfig, shade
from steindreamer.pipelines.settings.validation import read_settings
from steindreamer.representations import Cameras, RenderOutput

CAMERAS = Cameras.orbit([0.0, 70.0], [10.0, -20.0], distance=3.0, height=48)
BACKGROUND = torch.tensor([[0.2, 0.9, 0.4], [1.0, 0.0, 0.5]])
AT_CAMERA = {"enabled": True, "begin": 0.0, "light_jitter": 0.0, "light_distance": [1.0, 1.0]}
"""A lamp where the camera is."""


def _sphere(albedo: Tensor, opacity: float = 1.0, background: Tensor | None = BACKGROUND) -> RenderOutput:
    """A sphere of radius 0.8 and one color."""
    rays, origin = CAMERAS.rays(), CAMERAS.position[:, :, None, None]
    a, b = (rays * rays).sum(1, keepdim=True), (rays * origin).sum(1, keepdim=True)
    discriminant = b * b - a * ((origin * origin).sum(1, keepdim=True) - 0.8**2)
    hit = discriminant > 0
    depth = torch.where(hit, (-b - discriminant.clamp(min=0).sqrt()) / a, 0.0)
    normal = torch.where(hit, F.normalize(CAMERAS.unproject(depth), dim=1), 0.0)
    alpha = opacity * hit.float()
    rgb = albedo[:, None, None] * alpha
    if background is not None:
        rgb = rgb + (1 - alpha) * background[:, :, None, None]
    return RenderOutput(rgb, alpha, depth, normal)


def _shade(output: RenderOutput, config: ShadingConfig, background: Tensor | None = BACKGROUND, **kw: float) -> Tensor:
    generator = torch.Generator().manual_seed(int(kw.get("seed", 0)))
    return shade(output, CAMERAS, background, config, kw.get("progress", 1.0), generator)


def test_off_is_the_very_image_and_draws_nothing(generator: torch.Generator) -> None:
    output, before = _sphere(torch.tensor([0.8, 0.5, 0.3])), generator.get_state()
    assert shade(output, CAMERAS, BACKGROUND, ShadingConfig(), 1.0, generator) is output.rgb
    assert shade(output, CAMERAS, BACKGROUND, ShadingConfig(enabled=True), 0.19, generator) is output.rgb
    assert torch.equal(before, generator.get_state())
    always = ShadingConfig(enabled=True, shaded=1.0)
    assert not torch.equal(shade(output, CAMERAS, BACKGROUND, always, 0.2, generator), output.rgb)


@pytest.mark.parametrize("opacity", [1.0, 0.4])
@pytest.mark.parametrize("textureless", [0.0, 1.0])
def test_lamberts_law(opacity: float, textureless: float) -> None:
    """A lamp in the camera lights the sphere by the cosine between its normal and the ray back."""
    albedo = torch.tensor([0.8, 0.5, 0.3])
    output = _sphere(albedo, opacity)
    config = ShadingConfig(**AT_CAMERA, shaded=1.0, textureless=textureless, ambient=0.2, diffuse=0.7)  # pyright: ignore
    cosine = -(output.normal * F.normalize(CAMERAS.rays(), dim=1)).sum(1, keepdim=True)
    color = torch.ones(3) if textureless else albedo
    expected = color[:, None, None] * output.opacity * (0.2 + 0.7 * cosine.clamp(min=0))
    expected = expected + (1 - output.opacity) * BACKGROUND[:, :, None, None]
    torch.testing.assert_close(_shade(output, config), expected, atol=1e-5, rtol=0)


def test_no_background_is_black() -> None:
    config = ShadingConfig(**AT_CAMERA, shaded=1.0)  # pyright: ignore[reportArgumentType]
    albedo = torch.tensor([0.8, 0.5, 0.3])
    none = _shade(_sphere(albedo, 0.4, None), config, None)
    torch.testing.assert_close(none, _shade(_sphere(albedo, 0.4, torch.zeros(2, 3)), config, torch.zeros(2, 3)))


def test_the_lamp_stands_around_the_camera() -> None:
    """Read the light's direction off three faces: its mean is the camera's, and noise spreads it."""
    cameras = Cameras.orbit([40.0] * 3000, [0.0] * 3000, distance=2.0, height=3, width=1)
    normals = torch.eye(3).mT.reshape(1, 3, 3, 1).expand(3000, 3, 3, 1)
    flat = torch.ones(3000, 1, 3, 1)
    # The middle of the world is what all three pixels show.
    output = RenderOutput(flat.expand(-1, 3, -1, -1), flat, flat * 2, normals)
    cameras = Cameras(cameras.camera_to_world, cameras.intrinsics * torch.tensor([1e6, 1e6, 1.0]).diag(), 3, 1)
    means = {}
    for jitter in (0.0, 0.8):
        config = ShadingConfig(enabled=True, begin=0.0, shaded=1.0, ambient=0.0, diffuse=1.0, light_jitter=jitter)
        means[jitter] = shade(output, cameras, None, config, 1.0, torch.Generator().manual_seed(0))[:, 0, :, 0]
    direction = cameras.position[0] / 2
    torch.testing.assert_close(means[0.0], direction.clamp(min=0).expand(3000, 3), atol=1e-4, rtol=0)
    assert means[0.8].std(0).min() > 0.1
    assert means[0.8][:, [0, 2]].mean(0).min() > means[0.8][:, 1].mean()


def test_shares_of_shadings() -> None:
    cameras = Cameras.orbit([0.0] * 4000, [0.0] * 4000, height=1)
    pixel = torch.ones(4000, 1, 1, 1)
    rgb = torch.tensor([0.5, 0.25, 0.0]).reshape(1, 3, 1, 1).expand(4000, 3, 1, 1)
    normal = torch.tensor([0.0, 0.0, 1.0]).reshape(1, 3, 1, 1).expand(4000, 3, 1, 1)
    config = ShadingConfig(enabled=True, shaded=0.75, textureless=0.4)
    output = RenderOutput(rgb, pixel, pixel * 2.2, normal)
    out = shade(output, cameras, None, config, 1.0, torch.Generator().manual_seed(0))[:, :, 0, 0]
    unshaded = (out == rgb[0, :, 0, 0]).all(1)
    white = out[:, 0] == out[:, 2]
    assert unshaded.float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert white.float().mean().item() == pytest.approx(0.75 * 0.4, abs=0.03)


def test_soft_light_keeps_the_sum() -> None:
    """Ambient plus diffuse is 1, so what faces the lamp keeps its color, and what turns away gets any part of it."""
    config = ShadingConfig(**AT_CAMERA, shaded=1.0, textureless=0.0, soft=True)  # pyright: ignore[reportArgumentType]
    output = _sphere(torch.tensor([0.8, 0.5, 0.3]))
    rims = []
    for seed in range(40):
        rgb = _shade(output, config, seed=seed)
        torch.testing.assert_close(rgb[0, :, 24, 24], torch.tensor([0.8, 0.5, 0.3]), atol=5e-3, rtol=0)
        rims.append((rgb[0] / output.rgb[0])[:, output.opacity[0, 0] > 0].min())
    assert min(rims) < 0.4 and max(rims) > 0.9


@pytest.mark.parametrize("textureless", [0.0, 1.0])
def test_gradients(textureless: float) -> None:
    """Normals always learn, colors unless white is shown, the background and the depth never."""
    sphere = _sphere(torch.tensor([0.8, 0.5, 0.3]))
    leaves = {name: getattr(sphere, name).clone().requires_grad_() for name in ("rgb", "opacity", "depth", "normal")}
    config = ShadingConfig(**AT_CAMERA, shaded=1.0, textureless=textureless)  # pyright: ignore[reportArgumentType]
    output = RenderOutput(leaves["rgb"], leaves["opacity"], leaves["depth"], leaves["normal"])
    _shade(output, config).sum().backward()
    assert leaves["depth"].grad is None
    assert leaves["normal"].grad is not None and bool(leaves["normal"].grad.any())
    assert bool(leaves["rgb"].grad is None or not leaves["rgb"].grad.any()) == bool(textureless)
    for leaf in leaves.values():
        assert leaf.grad is None or bool(torch.isfinite(leaf.grad).all())
    # Toward the lamp is brighter: following the gradient turns normals to the camera.
    turned = (leaves["normal"].grad * -CAMERAS.rays()).sum(1, keepdim=True)[sphere.opacity > 0]
    assert turned.min() >= 0 and turned.max() > 0


def test_the_middle_of_the_world_is_finite_too() -> None:
    """A camera at the center has no direction to put a lamp in."""
    cameras = Cameras(torch.eye(4)[None], CAMERAS.intrinsics[:1], 2, 2)
    empty = torch.zeros(1, 1, 2, 2, requires_grad=True)
    output = RenderOutput(empty.expand(-1, 3, -1, -1), empty, empty, empty.expand(-1, 3, -1, -1))
    rgb = shade(output, cameras, None, ShadingConfig(enabled=True, shaded=1.0), 1.0, torch.Generator())
    rgb.sum().backward()
    assert torch.isfinite(rgb).all() and empty.grad is not None and bool(torch.isfinite(empty.grad).all())


@pytest.mark.parametrize(
    "bad",
    [
        {"begin": -0.1},
        {"shaded": 1.5},
        {"textureless": float("nan")},
        {"ambient": 0.2},
        {"diffuse": -0.1},
        {"light_jitter": -1.0},
        {"light_distance": [1.0]},
        {"light_distance": [0.0, 1.0]},
        {"light_distance": [2.0, 1.0]},
    ],
)
def test_bad_settings_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=rf"^shading\.{next(iter(bad))}"):
        read_settings(ShadingConfig, bad, "shading")
    assert read_settings(ShadingConfig, {}) == ShadingConfig()
