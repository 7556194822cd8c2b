"""Stein score distillation has less variance than SDS, on an exact prior that does not flatter it.

The prior is a mixture with a power-law spectrum that is diagonal in a Haar wavelet basis, whereas the spectral control
variate works on cosines; images are the result of 100 steps of SDS; coefficients are fitted on other draws.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_world import make_estimator, make_geometry
from torch import Tensor

from steindreamer.distill import ControlVariateConfig, MethodConfig, SDSConfig, SSDConfig, TimestepConfig
from steindreamer.distill.basis import SeparableBasis
from steindreamer.distill.priors.mixture import MixturePrior, image_like_mixture
from steindreamer.distill.variance.probe import probe_noise_variance

BATCH, SIZE = 8, 16
WHOLE_RANGE = TimestepConfig(final_maximum=0.98)
GUIDE = make_geometry(BATCH, SIZE)


@pytest.fixture(scope="module")
def prior() -> MixturePrior:
    generator = torch.Generator().manual_seed(1)
    return MixturePrior(image_like_mixture(SeparableBasis.haar(3, SIZE, SIZE), 24, generator), {"this": range(6)})


@pytest.fixture(scope="module")
def image(prior: MixturePrior) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    image = (0.5 + 0.05 * torch.randn(BATCH, 3, SIZE, SIZE, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([image], 0.02)
    distiller, condition = SDSConfig(timesteps=WHOLE_RANGE).build(prior), prior.embed("this")
    for _ in range(100):
        optimizer.zero_grad()
        distiller(image, GUIDE, condition, progress=0.0, generator=generator).loss.backward()
        optimizer.step()
    return image.detach()


def relative_variance(config: MethodConfig, prior: MixturePrior, image: Tensor) -> float:
    """Within-noise variance after 60 steps of learning, over that of SDS at the same draws."""
    distiller, condition = config.build(prior, make_estimator()), prior.embed("this")
    generator = torch.Generator().manual_seed(3)
    for _ in range(60):
        distiller.update(distiller(image, GUIDE, condition, progress=0.0, generator=generator))
    own, sds = 0.0, 0.0
    for seed in range(12):
        fresh = torch.Generator().manual_seed(100 + seed)
        probe = probe_noise_variance(distiller, image, GUIDE, condition, progress=0.0, generator=fresh)
        own, sds = own + probe.within_noise, sds + probe.within_noise_sds
    return own / sds


@pytest.mark.parametrize(
    ("baseline", "most"),
    # A scalar phi adds next to nothing to a learned coefficient of the noise (phi = -1); bands do.
    [(["spectral"], 0.4), (["noise"], 0.6), (["noise", "depth"], 0.6), (["depth", "normal", "spectral"], 0.4)],
)
def test_learned_control_variates_beat_sds(
    baseline: list[str], most: float, prior: MixturePrior, image: Tensor
) -> None:
    config = SSDConfig(guidance_scale=7.5, timesteps=WHOLE_RANGE, control_variates=ControlVariateConfig(baseline))
    assert relative_variance(config, prior, image) < most


@pytest.mark.parametrize("guidance_scale", [1.0, 30.0, 100.0])
def test_the_default_is_never_worse_than_sds(guidance_scale: float, prior: MixturePrior, image: Tensor) -> None:
    config = SSDConfig(guidance_scale=guidance_scale, timesteps=WHOLE_RANGE)
    assert relative_variance(config, prior, image) < 1.02


def test_a_fixed_coefficient_of_one_keeps_sds_and_eq_11_improves_on_it(prior: MixturePrior, image: Tensor) -> None:
    def variance(coefficients: Any) -> float:
        config = SSDConfig(timesteps=WHOLE_RANGE, control_variates=ControlVariateConfig(coefficients=coefficients))
        return relative_variance(config, prior, image)

    assert variance("fixed") == pytest.approx(1.0, abs=1e-3)
    assert variance("second_moment") < 0.7
