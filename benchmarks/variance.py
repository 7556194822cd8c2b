"""Variance over the noise of score distillation's estimators, relative to SDS, on exact mixture priors.

    python benchmarks/variance.py            # writes benchmarks/results/variance_mixture.md

The priors' scores are exact (no network), their covariances diagonal in a cosine basis (which the spectral control
variate matches: a best case) or in a Haar basis (which it does not). The rendering is what 150 steps of SDS made of
noise;
coefficients are learned on draws of their own, then frozen.
"""

from __future__ import annotations

import datetime
import os
import platform
import time
from dataclasses import replace
from pathlib import Path

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import torch
from torch import Tensor, nn

from steindreamer.distill import (
    ControlVariateConfig,
    GeometryBuffers,
    GeometryEstimate,
    MethodConfig,
    MixtureCondition,
    SDSConfig,
    SSDConfig,
    TimestepConfig,
)
from steindreamer.distill.basis import SeparableBasis
from steindreamer.distill.priors.mixture import MixturePrior, image_like_mixture
from steindreamer.distill.variance.probe import probe_noise_variance

BATCH, SIZE, LEARN, PROBES = 8, 16, 150, 40
TIMESTEPS = TimestepConfig(final_maximum=0.98)


def ssd(*terms: str) -> SSDConfig:
    """SSD with these terms."""
    return SSDConfig(timesteps=TIMESTEPS, control_variates=ControlVariateConfig(list(terms)))


ESTIMATORS: dict[str, MethodConfig] = {
    "SDS": SDSConfig(timesteps=TIMESTEPS),
    "learned mu(t) (`noise`)": ssd("noise"),
    "Stein depth alone": ssd("depth"),
    "noise + Stein depth": ssd("noise", "depth"),
    "Eq. 11 by Adam on `spectral`": SSDConfig(
        timesteps=TIMESTEPS, control_variates=ControlVariateConfig(coefficients="second_moment")
    ),
    "spectral bands (default)": SSDConfig(timesteps=TIMESTEPS),
    "spectral + `low_rank`": ssd("spectral", "low_rank"),
    "spectral + depth + normal": ssd("spectral", "depth", "normal"),
    "antithetic SDS (2 prior calls: double it)": SDSConfig(timesteps=TIMESTEPS, antithetic=True),
}
GUIDANCE_SCALES = (1.0, 7.5, 30.0)


def random_estimator() -> nn.Module:
    """An untrained network: what a baseline is worth that knows nothing about these images."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Tanh(), nn.Conv2d(8, 4, 3, padding=1))
    return network.requires_grad_(False)


def hemisphere() -> GeometryBuffers:
    """A hemisphere filling most of the rendering, seen from +Z at distance 3."""
    axis = (torch.arange(SIZE) + 0.5) / SIZE * 2 - 1
    y, x = torch.meshgrid(-axis, axis, indexing="ij")
    height = (0.64 - x**2 - y**2).clamp(min=0).sqrt()
    inside = (height > 0).float()
    pose = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    pose[2, 3] = 3.0
    normal = nn.functional.normalize(torch.stack([x, y, height]), dim=0) * inside
    maps = (inside[None], ((3 - height) * inside)[None], normal, pose)
    return GeometryBuffers(*(image.expand(BATCH, *image.shape) for image in maps))


def relative_variance(
    config: MethodConfig, prior: MixturePrior, condition: MixtureCondition, rendering: Tensor
) -> float:
    """Within-noise variance over that of SDS at the same draws."""
    network = random_estimator()

    def estimator(image: Tensor, noise_level: Tensor) -> GeometryEstimate:
        out = network(image)
        return GeometryEstimate(out[:, :1], nn.functional.normalize(out[:, 1:], dim=1))

    geometry, distiller = hemisphere(), config.build(prior, estimator)
    generator = torch.Generator().manual_seed(10)
    for _ in range(LEARN):
        distiller.update(distiller(rendering, geometry, condition, progress=0.0, generator=generator))
    own, sds = 0.0, 0.0
    for seed in range(PROBES):
        fresh = torch.Generator().manual_seed(100 + seed)
        probe = probe_noise_variance(distiller, rendering, geometry, condition, progress=0.0, generator=fresh)
        own, sds = own + probe.within_noise, sds + probe.within_noise_sds
    return own / sds


def optimized_image(prior: MixturePrior, condition: MixtureCondition, guidance_scale: float) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    rendering = (0.5 + 0.05 * torch.randn(BATCH, 3, SIZE, SIZE, generator=generator)).requires_grad_()
    optimizer = torch.optim.Adam([rendering], 0.02)
    distiller = SDSConfig(guidance_scale=guidance_scale, timesteps=TIMESTEPS).build(prior)
    for _ in range(150):
        optimizer.zero_grad()
        distiller(rendering, hemisphere(), condition, progress=0.0, generator=generator).loss.backward()
        optimizer.step()
    return rendering.detach()


def main() -> None:
    torch.set_num_threads(1)
    start = time.process_time()
    bases = {"cosine": SeparableBasis.cosine, "Haar": SeparableBasis.haar}
    columns: dict[str, list[float]] = {}
    for name, basis in bases.items():
        mixture = image_like_mixture(basis(3, SIZE, SIZE), 24, torch.Generator().manual_seed(1))
        prior = MixturePrior(mixture, {"this": range(6)})
        condition = prior.embed("this")
        for scale in GUIDANCE_SCALES:
            rendering = optimized_image(prior, condition, scale)
            columns[f"{name}, CFG {scale:g}"] = [
                relative_variance(replace(config, guidance_scale=scale), prior, condition, rendering)
                for config in ESTIMATORS.values()
            ]
    lines = [
        "# Variance over the noise, relative to SDS",
        "",
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores (1 thread), torch {torch.__version__}, "
        f"{time.process_time() - start:.0f} s of CPU time. `python benchmarks/variance.py`.",
        "",
        f"Exact mixtures of 24 Gaussians on 3x{SIZE}x{SIZE} images; the prompt names 6 of them. {LEARN} steps of",
        f"learning with batch {BATCH}, {PROBES * BATCH} paired draws, one seed. The geometry estimator is an untrained",
        "network, whose baseline hardly varies with the noise: that flatters the depth and normal rows. These priors",
        "are nearly Gaussian: a real diffusion model leaves less to gain. Measure yours.",
        "",
        "| estimator | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
        *(
            f"| {name} | " + " | ".join(f"{column[row]:.3f}" for column in columns.values()) + " |"
            for row, name in enumerate(ESTIMATORS)
        ),
        "",
    ]
    target = Path(__file__).parent / "results" / "variance_mixture.md"
    target.parent.mkdir(exist_ok=True)
    target.write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
