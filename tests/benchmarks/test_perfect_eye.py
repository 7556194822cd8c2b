"""The bound for scalar phi: its derivation against brute force, and a small run of the benchmark."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.polynomial.hermite_e import hermegauss, hermeval2d
from scipy.optimize import lsq_linear

from steindreamer.distill.priors.mixture import GaussianMixture
from steindreamer.world.prior import WorldPrior, WorldPriorConfig

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("perfect_eye")


def test_a_constant_is_the_best_phi_for_a_gaussian(script: Any) -> None:
    """In closed form: gains sigma^2 / C, variances of (A - c I) y."""
    sigma, deviations = 0.6, np.array([2.0, 0.2])
    gain = sigma**2 / ((1 - sigma**2) * deviations**2 + sigma**2)
    found = script.solve(*script.flat_mixture(0.0, sigma, tuple(deviations)))
    assert found.sds == pytest.approx(((gain - 1) ** 2).sum())
    assert found.constant == pytest.approx(((gain - gain.mean()) ** 2).sum())
    assert found.scalar == pytest.approx(found.constant)


def test_the_solution_of_steins_equation_is_the_least_squares_solution(script: Any) -> None:
    """Against a fit of the coefficients of phi, whose terms are differentiated numerically."""
    prediction, div = script.flat_mixture(1.0, 0.8, (0.5, 0.7))
    points, weights = hermegauss(40)
    grid = np.stack(np.meshgrid(points, points, indexing="ij"), -1).reshape(-1, 2)
    weight = np.outer(weights, weights).ravel() / weights.sum() ** 2
    f = prediction(grid)
    step, columns = 1e-4, []
    for i in range(7):
        for j in range(7):
            coefficients = np.zeros((7, 7))
            coefficients[i, j] = 1

            def phi(at: np.ndarray, coefficients: np.ndarray = coefficients) -> np.ndarray:
                return hermeval2d(at[:, 0], at[:, 1], coefficients)

            gradient = [(phi(grid + d) - phi(grid - d)) / (2 * step) for d in step * np.eye(2)]
            columns.append((phi(grid)[:, None] * grid - np.stack(gradient, 1)) * np.sqrt(weight)[:, None])
    target = (weight @ f - f) * np.sqrt(weight)[:, None]
    fitted = lsq_linear(np.stack([column.ravel() for column in columns], 1), target.ravel())
    found = script.solve(prediction, div, degree=6)
    assert found.scalar == pytest.approx(2 * fitted.cost, rel=1e-4)
    assert found.scalar < 0.9 * found.constant


def test_the_divergence_is_the_trace_of_the_jacobian(script: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    mixture = GaussianMixture.isotropic(0.3 * torch.randn(3, 3, 4, 4, generator=generator, dtype=torch.float64), 0.3)
    noise = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    alpha, sigma = (torch.full((2, 1, 1, 1), value, dtype=torch.float64) for value in (0.8, 0.6))

    def predicted(noise: torch.Tensor) -> torch.Tensor:
        return mixture.predict_noise(sigma * noise, alpha, sigma)

    jacobian = torch.autograd.functional.jacobian(predicted, noise)
    trace = torch.stack([jacobian[i, ..., i, :, :, :].reshape(48, 48).trace() for i in range(2)])  # pyright: ignore[reportCallIssue, reportArgumentType]
    found = script.divergence(mixture, sigma * noise, alpha, sigma)
    torch.testing.assert_close(found, trace, rtol=1e-6, atol=1e-6)
    assert float((found - 48 * 0.36 / (0.64 * 0.09 + 0.36)).abs().max()) > 0.1, "the means matter here"


def test_the_best_estimate_is_the_true_geometry_without_noise_and_the_mean_of_all_in_pure_noise(script: Any) -> None:
    prior = WorldPrior(WorldPriorConfig(objects=3, unconditional_objects=2))
    scene = script.Scene.of(prior, "a red mug", 0)
    estimate = script.mean_geometry(scene)
    clear = prior.decode(scene.condition.positive.means[:, 0])
    found = estimate(clear, torch.full((4,), 0.05))
    torch.testing.assert_close(found.disparity, scene.disparity[:, 0], atol=1e-4, rtol=0)
    blind = estimate(torch.full_like(clear, 0.5), torch.full((4,), 0.99999))
    torch.testing.assert_close(blind.disparity, scene.disparity.mean(1), atol=2e-3, rtol=0)


def test_no_constant_exceeds_sds_and_no_bound_the_constant(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "NOISES", 8)
    monkeypatch.setattr(script, "LEVELS", 3)
    prior = WorldPrior(WorldPriorConfig(objects=3, unconditional_objects=2))
    constant, bound = script.bounds(script.Scene.of(prior, "a red mug", 0), prior, 1.0)
    assert 0 < bound < constant <= 1


def test_a_small_run_writes_the_page(script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "NOISES", 4)
    monkeypatch.setattr(script, "LEVELS", 2)
    monkeypatch.setattr(script, "GUIDANCE_SCALES", (1.0,))
    script.main(["--scenes", "1", "--steps", "1", "--result", str(tmp_path / "eye.md")])
    lines = (tmp_path / "eye.md").read_text().splitlines()
    rows = {line.split("|")[1].strip(): line for line in lines if line.startswith("| `")}
    assert len(rows) == 2 + 2 * 4
    assert "`depth`, true, whatever the noise" in rows and rows["`normal`, shipped"].count("|") == 4
