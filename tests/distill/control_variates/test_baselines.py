"""phi of the depth and normal baselines: its values, its sign, and what it ignores."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_world import SIZE, make_geometry
from torch import Tensor

from steindreamer.distill import (
    GeometryBuffers,
    GeometryEstimate,
    GeometryEstimator,
    NoiseLevel,
    register_control_variate,
)
from steindreamer.distill.control_variates.baselines import DepthBaseline, NormalBaseline, weighted_pearson

LEVEL = NoiseLevel(torch.tensor([300, 300]), *torch.full((2, 2, 1, 1, 1), 0.7))
NOISY = torch.randn(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def oracle(geometry: GeometryBuffers, sign: float = 1.0, background: float = -40.0) -> GeometryEstimator:
    """Answers with the rendered geometry itself, up to scale and shift; the background's disparity is arbitrary."""
    disparity = torch.where(geometry.depth > 0, 3.0 + sign * 5 / geometry.depth.clamp(min=0.1), background)
    rotation = geometry.camera_to_world[:, :3, :3]
    normal = sign * torch.einsum("bji,bjhw->bihw", rotation, geometry.normal)  # world to camera

    def estimate(image: Tensor, noise_level: Tensor) -> GeometryEstimate:
        return GeometryEstimate(disparity + 0 * image[:, :1], normal + 0 * image)

    return estimate


def identity(latent: Tensor) -> Tensor:
    return latent


@pytest.mark.parametrize("kind", [DepthBaseline, NormalBaseline])
@pytest.mark.parametrize(("sign", "phi"), [(1.0, 0.0), (-1.0, -2.0)])
def test_phi_is_0_for_the_true_geometry_and_minus_2_for_its_opposite(
    kind: type[DepthBaseline] | type[NormalBaseline], sign: float, phi: float
) -> None:
    geometry = make_geometry(2)
    turned = torch.linalg.matrix_exp(
        torch.tensor([[0, 0.4, 0.9, 0], [-0.4, 0, 0.2, 0], [-0.9, -0.2, 0, 0], [0, 0, 0, 0]])
    )
    geometry = replace(
        geometry, camera_to_world=geometry.camera_to_world @ turned
    )  # a rotation that is not its own inverse
    value = kind(oracle(geometry, sign), identity)(NOISY, LEVEL, geometry)
    torch.testing.assert_close(value, torch.full((2,), phi), atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", [DepthBaseline, NormalBaseline])
def test_an_empty_image_falls_back_to_sds(
    kind: type[DepthBaseline] | type[NormalBaseline], estimator: GeometryEstimator
) -> None:
    geometry = make_geometry(2)
    empty = replace(
        geometry, **{name: torch.zeros_like(getattr(geometry, name)) for name in ("opacity", "depth", "normal")}
    )
    noisy = NOISY.clone().requires_grad_()
    phi = kind(estimator, identity)(noisy, LEVEL, empty)
    (gradient,) = torch.autograd.grad(phi.sum(), noisy)
    assert torch.equal(phi.detach(), -torch.ones(2))
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("kind", [DepthBaseline, NormalBaseline])
def test_phi_and_its_gradient_stay_finite_and_per_image(
    kind: type[DepthBaseline] | type[NormalBaseline], estimator: GeometryEstimator
) -> None:
    baseline, geometry = kind(estimator, identity), make_geometry(2)
    noisy = NOISY.clone().requires_grad_()
    phi = baseline(noisy, LEVEL, geometry)
    assert ((phi >= -2) & (phi <= 0)).all()
    (gradient,) = torch.autograd.grad(phi[0], noisy)
    assert torch.isfinite(gradient).all() and gradient[0].abs().sum() > 0
    assert torch.equal(gradient[1], torch.zeros_like(gradient[1]))


@pytest.mark.parametrize("kind", [DepthBaseline, NormalBaseline])
def test_an_estimate_at_another_resolution_compares_the_same_geometry(
    kind: type[DepthBaseline] | type[NormalBaseline],
) -> None:
    fine = make_geometry(2, 32)
    phi = kind(oracle(make_geometry(2, 32), background=5.0), identity)
    noisy = torch.zeros(2, 3, 32, 32)
    torch.testing.assert_close(phi(noisy, LEVEL, make_geometry(2, 64)), phi(noisy, LEVEL, fine), atol=0.06, rtol=0)


def test_weighted_pearson_is_pearson() -> None:
    a, b = torch.randn(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = torch.stack(
        [torch.corrcoef(torch.stack([x.flatten(), y.flatten()]))[0, 1] for x, y in zip(a, b, strict=True)]
    )
    torch.testing.assert_close(weighted_pearson(a, b, torch.ones_like(a)), expected, atol=1e-5, rtol=0)
    half = torch.zeros_like(a)
    half[..., :4, :] = 1
    expected = weighted_pearson(a[..., :4, :], b[..., :4, :], torch.ones_like(a[..., :4, :]))
    torch.testing.assert_close(weighted_pearson(a, b, half), expected, atol=1e-5, rtol=0)


def test_pearson_has_no_unit() -> None:
    """Disparities of a scene a kilometer away, a relative estimate in the thousands, a hardly visible object."""
    a, b = torch.randn(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    weight = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = weighted_pearson(a, b, weight)
    for other in (
        weighted_pearson(1e-6 * a, b, weight),
        weighted_pearson(a, -1e4 * b, weight).neg(),
        weighted_pearson(a + 30, b - 5, weight),
        weighted_pearson(a, b, 1e-12 * weight),
    ):
        torch.testing.assert_close(other, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("constant", [0.0, 0.3, 1e4])
def test_pearson_of_a_constant_is_zero_with_a_finite_gradient(constant: float) -> None:
    """A wall that faces the camera, or an estimator that sees nothing."""
    varying = torch.randn(1, 1, 7, 9, generator=torch.Generator().manual_seed(0)).requires_grad_()
    flat = torch.full((1, 1, 7, 9), constant, requires_grad=True)
    weight = torch.rand(1, 1, 7, 9, generator=torch.Generator().manual_seed(1))
    correlation = weighted_pearson(varying, flat, weight)
    assert correlation.abs() < 1e-3
    gradients = torch.autograd.grad(correlation.sum(), (varying, flat))
    assert all(gradient.isfinite().all() for gradient in gradients)
    assert gradients[0].abs().max() < 0.05


def test_pearson_wants_eight_pixels() -> None:
    a, b = torch.randn(2, 1, 1, 4, 4, generator=torch.Generator().manual_seed(0)).split(1)
    for pixels, found in ((0, False), (2, False), (8, False), (9, True)):
        weight = (torch.arange(16) < pixels).float().view(1, 1, 4, 4)
        assert bool(weighted_pearson(a[0], b[0], weight) != 0) == found


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="a control variate named 'depth' exists already"):
        register_control_variate("depth")(lambda noisy, level, geometry: noisy.mean((1, 2, 3)))
