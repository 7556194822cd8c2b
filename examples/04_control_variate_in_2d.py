"""Control variates where everything is known: points of a plane, whose prior is a Gaussian mixture with exact score.

python examples/04_control_variate_in_2d.py

A point takes the place of the rendered image. For each control variate, the gradient's variance over the noise is
measured relative to SDS, and its mean is compared with the exact one, which is integrated numerically. The Stein term
as printed in the paper is included as an example of a term whose mean is not zero.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from steindreamer.distill import ControlVariate, GaussianMixture, GeometryBuffers, NoiseLevel, NoiseSchedule
from steindreamer.distill.basis import SeparableBasis
from steindreamer.distill.control_variates.coefficients import (
    Coefficients,
    FixedCoefficients,
    Observation,
    RunningRegression,
)
from steindreamer.distill.control_variates.terms import NoiseTerm, SpectralTerm, SteinTerm
from steindreamer.pipelines.comparison.intervals import Interval, mean_interval

POINT = torch.tensor([0.2, -0.1]).reshape(1, 1, 1, 2)
"""The rendered point: an image of one row and two columns."""
MIXTURE = GaussianMixture(
    means=torch.tensor([[0.0, 0.0], [1.5, 0.0], [-0.5, 1.5]]).reshape(3, 1, 1, 2),
    variances=torch.tensor([[0.6, 0.05], [1.0, 0.2], [1.5, 0.5]]).reshape(3, 1, 1, 2),
    log_weights=torch.tensor([0.5, 0.25, 0.25]).log(),
    basis=SeparableBasis.cosine(1, 1, 2),
)
"""Three modes; along the axes x + y and x - y they have the given variances, so that "spectral" has a use."""
SCHEDULE = NoiseSchedule.scaled_linear()
TIMESTEPS = (100, 300, 500, 700, 900)
GEOMETRY = GeometryBuffers(
    torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2), torch.zeros(1, 3, 1, 2), torch.eye(4).expand(1, 4, 4)
)
"""Unused by these control variates, which look at the point alone."""
LARGEST_DEVIATION = 2.0
"""Largest accepted difference from the exact mean, in half-widths of the 95 % interval."""


def uninformed(noisy: Tensor, level: NoiseLevel, geometry: GeometryBuffers) -> Tensor:
    """phi of Stein's identity from nothing but the point's height."""
    return -1 - 0.1 * noisy.mean((1, 2, 3)).tanh()


def informed(noisy: Tensor, level: NoiseLevel, geometry: GeometryBuffers) -> Tensor:
    """phi of Stein's identity from a guess of the mode, as the paper's depth estimator guesses the object.

    It is minus the gain with which the guessed mode's score responds to the noise.
    """
    square = (noisy[:, None] - level.alpha[:, None] * MIXTURE.means).square().sum((2, 3, 4))
    variance = level.alpha.flatten(1) ** 2 * MIXTURE.variances.mean((1, 2, 3)) + level.sigma.flatten(1) ** 2
    guess = (MIXTURE.log_weights - 0.5 * square / variance - variance.log()).softmax(1)
    return -(guess * level.sigma.flatten(1) ** 2 / variance).sum(1)


CONTROL_VARIATES: dict[str, Callable[[], Sequence[ControlVariate]]] = {
    "SDS (noise, coefficient 1)": lambda: [NoiseTerm()],
    "noise, fitted": lambda: [NoiseTerm()],
    "spectral, fitted": lambda: [SpectralTerm(bands=3)],
    "uninformed Stein term, fitted": lambda: [SteinTerm("stein", uninformed)],
    "informed Stein term, fitted": lambda: [SteinTerm("stein", informed)],
    "spectral + informed Stein, fitted": lambda: [
        SpectralTerm(bands=3),
        SteinTerm("stein", informed, "corrected", 0.0),
    ],
    "informed Stein term as printed": lambda: [SteinTerm("stein", informed, "paper")],
}
SDS, *_, BIASED = CONTROL_VARIATES


@dataclass(frozen=True)
class Measured:
    """Results of one control variate over the seeds."""

    variance: Interval
    """Variance over the noise, relative to SDS at the same draws."""
    mean: tuple[Interval, Interval]
    """Components of the mean gradient."""

    def deviation(self, exact: Float[Tensor, " 2"]) -> float:
        """The largest difference from the exact mean, in half-widths of the 95 % interval."""
        return max(abs(each.mean - float(to)) / half_width(each) for each, to in zip(self.mean, exact, strict=True))


def half_width(interval: Interval) -> float:
    """Half the width of a confidence interval."""
    return (interval.high - interval.low) / 2


def estimate(
    variates: Sequence[ControlVariate], coefficients: Coefficients, timestep: Tensor, noise: Float[Tensor, "b 1 1 2"]
) -> Observation:
    """The estimator eps_hat + sum_k mu_k h_k at the point."""
    sample = SCHEDULE.add_noise(POINT.expand_as(noise), noise, timestep)
    prediction = MIXTURE.predict_noise(sample.noisy, sample.alpha, sample.sigma)
    terms = torch.cat([variate.terms(sample, GEOMETRY) for variate in variates])
    mu = coefficients.value(timestep, channels=1)[..., None, None]
    residual = prediction + (mu * terms).sum(0)
    return Observation(prediction, terms, residual, sample.sigma**2, timestep)


def exact_mean(nodes: int = 64) -> Float[Tensor, " 2"]:
    """The mean gradient by Gauss-Hermite quadrature over the noise."""
    at, weight = (torch.from_numpy(each) for each in np.polynomial.hermite_e.hermegauss(nodes))
    noise = torch.cartesian_prod(at, at).float().reshape(-1, 1, 1, 2)
    weight = torch.outer(weight, weight).flatten() / weight.sum() ** 2
    total = torch.zeros(2, dtype=torch.float64)
    for timestep in TIMESTEPS:
        times = torch.full((len(noise),), timestep)
        found = estimate([NoiseTerm()], FixedCoefficients([0.0], SCHEDULE.steps), times, noise)
        total += weight @ (found.weight * found.prediction).flatten(1).double() / len(TIMESTEPS)
    return total


def measure(seeds: int, learn: int, draws: int) -> Mapping[str, Measured]:
    """Measure every control variate with the same draws.

    Args:
        seeds: independent repetitions.
        learn: draws from which the coefficients are fitted; they are not measured.
        draws: measured pairs of noises at one timestep.
    """
    variances: dict[str, list[float]] = {name: [] for name in CONTROL_VARIATES}
    means: dict[str, list[list[float]]] = {name: [] for name in CONTROL_VARIATES}
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        learned, timestep = (
            torch.tensor(TIMESTEPS)[torch.randint(len(TIMESTEPS), (count,), generator=generator)]
            for count in (learn, draws)
        )
        first, *pair = torch.randn(3, max(learn, draws), 1, 1, 2, generator=generator)
        for name, make in CONTROL_VARIATES.items():
            variates = make()
            initial = [value for variate in variates for value in variate.initial]
            coefficients = FixedCoefficients(initial, SCHEDULE.steps)
            if name != SDS:
                coefficients = RunningRegression(initial, SCHEDULE.steps, prior_observations=0.1)
            coefficients.update(estimate(variates, coefficients, learned, first[:learn]))
            found = [estimate(variates, coefficients, timestep, noise[:draws]) for noise in pair]
            one, other = ((each.weight * each.residual).flatten(1) for each in found)
            variances[name].append(float((one - other).square().sum(1).mean() / 2))
            means[name].append(((one + other) / 2).mean(0).tolist())
    return {
        name: Measured(
            mean_interval([own / sds for own, sds in zip(variances[name], variances[SDS], strict=True)]),
            (mean_interval([x for x, _ in means[name]]), mean_interval([y for _, y in means[name]])),
        )
        for name in CONTROL_VARIATES
    }


def table(measured: Mapping[str, Measured], exact: Float[Tensor, " 2"]) -> str:
    """One row per control variate, with 95 % intervals over the seeds."""
    rows = [f"{'':34}{'variance / SDS':>15}{'mean gradient':>36}{'difference':>12}"]
    for name, each in measured.items():
        variance, x, y = (f"{axis.mean:.4f} ± {half_width(axis):.4f}" for axis in (each.variance, *each.mean))
        rows.append(f"{name:34}{variance:>15}{x:>18}{y:>18}{each.deviation(exact):12.1f}")
    rows.append(f"{'exact':49}{exact[0]:9.4f}{exact[1]:18.4f}")
    return "\n".join([*rows, "± and difference from the exact mean: half-widths of the 95 % interval over the seeds"])


def main(seeds: int = 8, learn: int = 800, draws: int = 20_000) -> int:
    """Print the table. Returns 1 if a mean that is exact in theory differs in the measurement, else 0."""
    torch.set_num_threads(1)
    exact = exact_mean()
    measured = measure(seeds, learn, draws)
    print(table(measured, exact))
    wrong = [name for name, each in measured.items() if name != BIASED and each.deviation(exact) > LARGEST_DEVIATION]
    print(f"biased: {', '.join(wrong)}" if wrong else f"All means are exact within their error, except: {BIASED}.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
