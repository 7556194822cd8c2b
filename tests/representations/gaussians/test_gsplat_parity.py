"""Our rasterizers and our call of gsplat against gsplat's own code on the CPU; skipped if gsplat is not installed."""

from __future__ import annotations

import pytest
import torch
from gsplat_reference import constants, reference
from random_splats import IMAGES, NAMES, draw, random_cameras, random_gaussians, weighted_sum
from torch import Tensor

from steindreamer.representations import Cameras
from steindreamer.representations.gaussians.splatting import MAX_ALPHA, MIN_ALPHA, SplatOutput
from steindreamer.representations.gaussians.splatting.gsplat import splat_with
from steindreamer.representations.gaussians.splatting.semantics import GSPLAT_STOP

pytest.importorskip("gsplat", reason="needs the gsplat package")

CASES = {
    "whole object": (300, 3.0, 40, 48),
    "partly off-screen": (150, 1.0, 33, 31),
    "camera inside, partly behind": (300, 0.4, 32, 32),
}
"""Number of Gaussians, camera distance in meters, image height and width in pixels, by case."""


def scene(case: str, seed: int, most_opaque: float) -> tuple[list[Tensor], Cameras]:
    count, distance, height, width = CASES[case]
    gaussians = random_gaussians(count, seed)
    gaussians[3] = gaussians[3].clamp_max(most_opaque)
    return gaussians, random_cameras(seed, 2, distance, height, width)


def theirs(gaussians: list[Tensor], cameras: Cameras, *, stops: bool) -> SplatOutput:
    means, quaternions, scales, opacities, colors = gaussians
    with reference(stops=stops) as rasterization:
        return splat_with(rasterization, means, quaternions, scales, opacities, colors, cameras)


def gradients(output: SplatOutput, inputs: list[Tensor]) -> list[Tensor]:
    """Gradients of the inputs, and of the screen positions, which densification uses."""
    return list(torch.autograd.grad(weighted_sum(output), [*inputs, output.screen_means]))


@pytest.mark.parametrize("backend", ["cpu", "torch"])
@pytest.mark.parametrize("case", CASES)
def test_ours_equals_gsplat(case: str, backend: str) -> None:
    """Images, visibility and all gradients agree if gsplat's early stop is disabled.

    Opacities are below the clamp of the installed version, which differs between 1.5 and 1.6. Where alpha equals the
    1/255 cut up to rounding, the two may decide differently.
    """
    gaussians, cameras = scene(case, 0, most_opaque=min(MAX_ALPHA, constants().max_alpha))
    inputs = [[tensor.clone().requires_grad_() for tensor in gaussians] for _ in range(2)]
    expected, actual = theirs(inputs[0], cameras, stops=False), draw(inputs[1], cameras, backend)
    for name in IMAGES:
        error = (getattr(actual, name) - getattr(expected, name)).abs()
        unit = 1 + CASES[case][1]
        assert (error > 2e-5 * unit).float().mean() < 1e-3, name
        assert error.max() < 2 * MIN_ALPHA * unit, name
    # gsplat rounds its boxes up to whole pixels.
    assert not (actual.visible & ~expected.visible).any()
    assert (actual.visible == expected.visible).float().mean() > 0.98
    both = zip((*NAMES, "screen_means"), gradients(expected, inputs[0]), gradients(actual, inputs[1]), strict=True)
    for name, of_theirs, of_ours in both:
        assert (of_ours - of_theirs).norm() < 1e-3 * of_theirs.norm(), name


def test_the_constants_are_those_of_gsplat() -> None:
    kernel = constants()
    assert kernel.min_alpha == pytest.approx(MIN_ALPHA)
    assert kernel.stop == GSPLAT_STOP
    # gsplat 1.6 lowered it, so that no single Gaussian stops a pixel: see `semantics`.
    assert kernel.max_alpha == MAX_ALPHA or kernel.max_alpha == 0.99


@pytest.mark.parametrize("most_opaque", [0.9, 0.98, 1.0])
def test_the_error_of_gsplats_early_stop_is_bounded(most_opaque: float) -> None:
    """The bound is stop / (1 - alpha), see `semantics`: the total weight of the dropped Gaussians."""
    gaussians, cameras = scene("whole object", 1, most_opaque)
    gaussians[3][:100] = most_opaque
    kernel = constants()
    stopped, whole = (theirs(gaussians, cameras, stops=stops) for stops in (True, False))
    bound = kernel.stop / (1 - min(most_opaque, kernel.max_alpha))
    lost = whole.opacity - stopped.opacity
    assert lost.min() >= -1e-5 and 0.02 * bound < lost.max() <= 1.01 * bound
    assert (whole.rgb - stopped.rgb).abs().max() <= 1.01 * bound
    # Stopped pixels keep a transmittance above the stop.
    assert stopped.opacity.max() < 1 - kernel.stop + 1e-6


@pytest.mark.parametrize("case", CASES)
def test_ours_is_close_to_gsplat_with_early_stop(case: str) -> None:
    """With the early stop, for opacities up to 0.98: the tolerance that `pytest -m gpu` uses for the CUDA kernels."""
    gaussians, cameras = scene(case, 2, most_opaque=0.98)
    inputs = [[tensor.clone().requires_grad_() for tensor in gaussians] for _ in range(2)]
    expected, actual = theirs(inputs[0], cameras, stops=True), draw(inputs[1], cameras)
    for name in IMAGES:
        error = (getattr(actual, name) - getattr(expected, name)).abs()
        assert error.max() < 1.01 * GSPLAT_STOP / (1 - 0.98) * (1 + CASES[case][1]), name
    both = zip((*NAMES, "screen_means"), gradients(expected, inputs[0]), gradients(actual, inputs[1]), strict=True)
    for name, of_theirs, of_ours in both:
        assert (of_ours - of_theirs).norm() < 3e-2 * of_theirs.norm(), name
