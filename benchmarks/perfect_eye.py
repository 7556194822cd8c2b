"""The effect of a perfect depth or normal estimator on SteinDreamer's control variate, and the bound for any phi.

    python benchmarks/perfect_eye.py [--scenes N] [--steps N]          # writes benchmarks/results/perfect_eye.md

**Estimators.** On the exact prior `world`, the geometry of every object is known. The paper's phi is the correlation of
estimated and rendered disparity (or the cosine of normals) less one. It is computed from: the true geometry of the
prompt's first object, whatever the noise; the mean geometry given the noisy image, which is the best estimate there is;
that estimate with blur and a fixed error on purpose; and the shipped estimator.

**The best scalar phi.** Fix image, camera and timestep; noise y ~ N(0, I) in D dimensions, f(y) = eps_hat. Which phi
minimizes the variance of f + h with Stein's term h = phi y - grad_y phi? (sigma grad_x = grad_y.) The operators
delta_i = y_i - d/dy_i are the adjoints of d/dy_i, and h_i = delta_i phi. With Hermite polynomials, delta_i He_a =
He_(a+e_i), and E[He_a He_b] is a! if a = b, else 0. With phi = sum_a c_a He_a, component i of h has the coefficient
c_a at He_(a+e_i). Each c_a therefore has equations of its own, whose least-squares solution is

    c_a = -E[(div f) He_a] / (a! (|a| + D))        that is, (D + N) phi = -div f,   N = y . grad - laplacian,

and the variance falls by sum_a E[(div f) He_a]^2 / (a! (|a| + D)). The constant a = 0, which is SDS's noise with a
fitted coefficient, removes (E div f)^2 / D. All other phi together remove at most Var(div f) / (D + 1), since |a| >= 1
there. For a Gaussian prior f is affine in y and div f is constant: the best phi is the constant -tr(A) / D, with A the
gain of f, and no other scalar phi removes anything. Both terms are measured here; div f is exact.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from textwrap import fill
from typing import Any

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.polynomial.hermite_e import hermegauss, hermeval
from scipy.stats import t as student_t
from torch import Tensor

from steindreamer.distill import (
    ControlVariateConfig,
    GeometryBuffers,
    GeometryEstimate,
    GeometryEstimator,
    MethodConfig,
    SSDConfig,
    TimestepConfig,
)
from steindreamer.distill.priors.mixture import GaussianMixture, MixtureCondition
from steindreamer.distill.variance.probe import probe_noise_variance
from steindreamer.pipelines.geometry_models import EstimatorConfig, load_estimator
from steindreamer.representations import Cameras, RenderOutput, render_mesh
from steindreamer.world.prior import WorldPrior, WorldPriorConfig
from steindreamer.world.views import shade

RESULT = Path(__file__).parent / "results" / "perfect_eye.md"
SIZE = 32
"""Pixels per side of the images."""
PROMPTS = ("a red mug", "a yellow duck", "a brown chair", "a blue car", "a green turtle", "a red house")
TIMESTEPS = TimestepConfig(final_maximum=0.98)
GUIDANCE_SCALES = (1.0, 7.5)
NOISES = 32
"""Noises per image and timestep for the bound."""
LEVELS = 12
"""Timesteps for the bound, evenly spaced."""


def responsibilities(
    mixture: GaussianMixture, noisy: Float[Tensor, "b 3 h w"], alpha: Tensor, sigma: Tensor
) -> Float[Tensor, "b k"]:
    """Probability of every component given the noisy image; differentiable."""
    count = mixture.means.shape[-4]
    joint = [mixture.subset([k]).log_density(noisy, alpha, sigma) for k in range(count)]
    return (torch.stack(joint, 1) + mixture.log_weights).softmax(1)


def divergence(
    mixture: GaussianMixture, noisy: Float[Tensor, "b 3 h w"], alpha: Tensor, sigma: Tensor
) -> Float[Tensor, " b"]:
    """Divergence of the noise prediction with respect to the noise, for components of one variance v, in float64:
    sigma^2 / C (D - alpha^2 / C tr Cov[means | noisy]) with C = alpha^2 v + sigma^2.
    """
    probability = responsibilities(mixture, noisy, alpha, sigma).double()
    means = mixture.means.flatten(-3).double().expand(len(noisy), -1, -1)
    spread = (probability * means.square().sum(2)).sum(1) - (probability[:, :, None] * means).sum(1).square().sum(1)
    alpha, sigma = alpha.flatten().double(), sigma.flatten().double()
    total = alpha**2 * float(mixture.variances) + sigma**2
    return sigma**2 / total * (noisy[0].numel() - alpha**2 / total * spread)


@dataclass(frozen=True)
class Scene:
    """Views of one scene during its optimization, and the prior's objects at the same cameras."""

    image: Float[Tensor, "b 3 h w"]
    geometry: GeometryBuffers
    condition: MixtureCondition
    disparity: Float[Tensor, "b k 1 h w"]
    """Of the prompt's objects; 0 behind them."""
    normal: Float[Tensor, "b k 3 h w"]
    """Of the prompt's objects, in camera space."""

    @classmethod
    def of(cls, prior: WorldPrior, prompt: str, seed: int) -> Scene:
        """The scene is the prompt's second object, blurred; the first is the true one."""
        embedding = prior.embed(prompt)
        cameras = Cameras.orbit([20.0 + 7 * seed + 90 * i for i in range(4)], [5.0, 25.0, 45.0, 15.0], height=SIZE)
        background = torch.ones(4, 3)
        drawn = [render_mesh(shade(each), cameras, background, supersample=2) for each in embedding.objects]
        own = drawn[1]
        image = F.avg_pool2d(F.pad(own.rgb, (3, 3, 3, 3), mode="replicate"), 7, 1)
        geometry = GeometryBuffers(own.opacity, own.depth, own.normal, cameras.camera_to_world)
        return cls(
            image,
            geometry,
            prior.condition(embedding, cameras, background),
            torch.stack([_disparity(each) for each in drawn], 1),
            torch.stack([_in_camera(each.normal, cameras) for each in drawn], 1),
        )


def _disparity(output: RenderOutput) -> Float[Tensor, "b 1 h w"]:
    return torch.where(output.depth > 0, 1 / output.depth.clamp(min=1e-6), 0.0)


def _in_camera(normal: Float[Tensor, "b 3 h w"], cameras: Cameras) -> Float[Tensor, "b 3 h w"]:
    return torch.einsum("bji,bjhw->bihw", cameras.camera_to_world[:, :3, :3], normal)


def true_geometry(scene: Scene) -> GeometryEstimator:
    """An estimator that knows the first object, whatever the image."""

    def estimate(image: Tensor, noise_level: Tensor) -> GeometryEstimate:
        # Depends on the image formally, with an exactly zero gradient.
        none = 0.0 * image[:, :1]
        return GeometryEstimate(scene.disparity[:, 0] + none, scene.normal[:, 0] + none)

    return estimate


def mean_geometry(scene: Scene) -> GeometryEstimator:
    """The mean geometry given the noisy image, exactly: no estimate has a smaller squared error."""

    def estimate(image: Tensor, noise_level: Tensor) -> GeometryEstimate:
        sigma = noise_level[:, None, None, None]
        weight = responsibilities(scene.condition.positive, 2 * image - 1, (1 - sigma**2).sqrt(), sigma).float()
        normal = torch.einsum("bk,bkchw->bchw", weight, scene.normal)
        return GeometryEstimate(
            torch.einsum("bk,bkchw->bchw", weight, scene.disparity), normal / (normal.norm(dim=1, keepdim=True) + 1e-6)
        )

    return estimate


def degraded(estimator: GeometryEstimator) -> GeometryEstimator:
    """The same estimate, blurred and with a fixed error of half its deviation."""
    error = 0.5 * torch.randn(4, SIZE, SIZE, generator=torch.Generator().manual_seed(0))

    def blurred(value: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(value, (3, 3, 3, 3), mode="replicate"), 7, 1)

    def estimate(image: Tensor, noise_level: Tensor) -> GeometryEstimate:
        exact = estimator(image, noise_level)
        disparity, normal = blurred(exact.disparity), blurred(exact.normal)
        disparity = disparity + error[:1] * disparity.detach().std()
        return GeometryEstimate(disparity, F.normalize(normal + error[1:] * normal.detach().std(), dim=1, eps=1e-6))

    return estimate


EYES = ("true, whatever the noise", "best given the noisy image", "the same, degraded", "shipped")


def eyes(scene: Scene) -> dict[str, GeometryEstimator]:
    """The estimators by name."""
    shipped: Any = load_estimator(EstimatorConfig(), torch.device("cpu"))
    best = mean_geometry(scene)
    return dict(zip(EYES, (true_geometry(scene), best, degraded(best), shipped), strict=True))


def ssd(*terms: str) -> SSDConfig:
    """SSD with these terms, whose coefficients follow the data from the first steps."""
    variates = ControlVariateConfig(list(terms), prior_observations=0.1)
    return SSDConfig(timesteps=TIMESTEPS, control_variates=variates)


TERMS = ("depth", "normal")
NOISE, SPECTRAL = "`noise`: SDS with a fitted coefficient", "`spectral`"


def alone(term: str, eye: str) -> str:
    """Name of the measurement of a Stein term with an estimator, as the only term."""
    return f"{term}, {eye}"


def beside(term: str, eye: str) -> str:
    """Name of the measurement of a Stein term with an estimator, beside `noise`."""
    return f"noise, {alone(term, eye)}"


def estimators(scene: Scene) -> dict[str, tuple[MethodConfig, GeometryEstimator | None]]:
    """Methods and their estimators, by name of the measurement."""
    out: dict[str, tuple[MethodConfig, GeometryEstimator | None]] = {
        NOISE: (ssd("noise"), None),
        SPECTRAL: (ssd("spectral"), None),
    }
    for eye, estimator in eyes(scene).items():
        for term in TERMS:
            out[alone(term, eye)] = ssd(term), estimator
            out[beside(term, eye)] = ssd("noise", term), estimator
    return out


def relative_variance(
    scene: Scene, prior: WorldPrior, method: MethodConfig, estimator: GeometryEstimator | None, steps: int
) -> float:
    """Variance over the noise relative to SDS, on draws that the coefficients were not fitted on."""
    distiller, generator = method.build(prior, estimator), torch.Generator().manual_seed(1)
    arguments = (scene.image, scene.geometry, scene.condition)
    own = sds = 0.0
    for step in range(2 * steps):
        if step < steps:
            distiller.update(distiller(*arguments, progress=0.0, generator=generator))
            continue
        fresh = torch.Generator().manual_seed(step)
        probe = probe_noise_variance(distiller, *arguments, progress=0.0, generator=fresh)
        own, sds = own + probe.within_noise, sds + probe.within_noise_sds
    return own / sds


def bounds(scene: Scene, prior: WorldPrior, guidance_scale: float) -> tuple[float, float]:
    """Variance relative to SDS with the best constant phi of every image and timestep, and the bound for any phi."""
    sds = constant = scalar = 0.0
    positive, null = scene.condition.positive, scene.condition.negative()
    low, high = (round(fraction * (prior.schedule.steps - 1)) for fraction in (TIMESTEPS.minimum, 0.98))
    for timestep in np.linspace(low, high, LEVELS).round().astype(int).tolist():
        for view in range(len(scene.image)):
            noise = torch.randn(NOISES, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(timestep + view))
            clean = prior.encode(scene.image[view : view + 1]).expand(NOISES, -1, -1, -1)
            sample = prior.schedule.add_noise(clean, noise, torch.full((NOISES,), timestep))
            inputs = sample.noisy, sample.alpha, sample.sigma
            mixtures = [_of_view(mixture, view, NOISES) for mixture in (positive, null)]
            wanted, other = (mixture.predict_noise(*inputs) for mixture in mixtures)
            div_wanted, div_other = (divergence(mixture, *inputs) for mixture in mixtures)
            prediction = other + guidance_scale * (wanted - other)
            div = div_other + guidance_scale * (div_wanted - div_other)
            size, weight = noise[0].numel(), float(sample.sigma[0]) ** 4
            # (E div f) / D is the regression of f on the noise, which is less noisy than the mean of div f.
            centered = (noise - noise.mean(0)).double()
            gain = float((prediction * centered).sum() / centered.square().sum())
            remaining = _variance(prediction - gain * noise)
            sds += weight * _variance(prediction - noise)
            constant += weight * remaining
            scalar += weight * (remaining - float(div.var()) / (size + 1))
    return constant / sds, scalar / sds


def _of_view(mixture: GaussianMixture, view: int, count: int) -> GaussianMixture:
    return replace(mixture, means=mixture.means[view : view + 1].expand(count, -1, -1, -1, -1))


def _variance(values: Float[Tensor, "n c h w"]) -> float:
    """Trace of the covariance."""
    return float(values.double().var(0).sum())


@dataclass(frozen=True)
class Solution:
    """Variances in two dimensions, solved by Gauss-Hermite quadrature."""

    sds: float
    constant: float
    """With the best constant phi."""
    scalar: float
    """With the best scalar phi."""


def solve(
    prediction: Callable[[np.ndarray], np.ndarray],
    div: Callable[[np.ndarray], np.ndarray],
    degree: int = 30,
    nodes: int = 90,
) -> Solution:
    """Solve Stein's equation for a noise prediction in two dimensions.

    Args:
        prediction: the predicted noise at noises `[n, 2]`.
        div: its divergence with respect to the noise.
        degree: highest degree of the Hermite polynomials of phi, in each dimension.
        nodes: quadrature nodes in each dimension.
    """
    points, weights = hermegauss(nodes)
    weights = weights / weights.sum()
    grid = np.stack(np.meshgrid(points, points, indexing="ij"), -1).reshape(-1, 2)
    probability = np.outer(weights, weights).ravel()

    def variance(value: np.ndarray) -> float:
        centered = value - probability @ value
        return float(probability @ (centered**2).sum(1))

    f = prediction(grid)
    # Normalized polynomials: their mean square is 1.
    table = np.stack(
        [hermeval(points, np.eye(degree + 1)[n]) / math.sqrt(math.factorial(n)) for n in range(degree + 1)]
    )
    values = (div(grid) * probability).reshape(nodes, nodes)
    coefficients = table @ values @ table.T
    order = np.add.outer(np.arange(degree + 1), np.arange(degree + 1))
    reduction = coefficients**2 / (order + 2)
    total = variance(f)
    return Solution(variance(f - grid), total - reduction[0, 0], total - float(reduction.sum()))


def flat_mixture(separation: float, sigma: float, deviations: tuple[float, float]) -> tuple[Callable, Callable]:
    """Noise prediction and divergence of a mixture of four Gaussians in the plane, at clean = (0.3, 0.1).

    alpha = sqrt(1 - sigma^2); the means are at distance `separation` from the origin, `deviations` along the axes.
    """
    alpha = math.sqrt(1 - sigma**2)
    means = separation * np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    total = alpha**2 * np.square(deviations) + sigma**2
    clean = np.array([0.3, 0.1])

    def posterior(noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        noisy = alpha * clean + sigma * noise
        whitened = (noisy[:, None] - alpha * means) / total
        joint = -0.5 * (whitened**2 * total).sum(2)
        weight = np.exp(joint - joint.max(1, keepdims=True))
        return weight / weight.sum(1, keepdims=True), whitened

    def prediction(noise: np.ndarray) -> np.ndarray:
        weight, whitened = posterior(noise)
        return sigma * (weight[:, :, None] * whitened).sum(1)

    def div(noise: np.ndarray) -> np.ndarray:
        weight, whitened = posterior(noise)
        average = (weight[:, :, None] * whitened).sum(1)
        spread = (weight[:, :, None] * whitened**2).sum(1) - average**2
        return sigma**2 * ((1 / total) - spread).sum(1)

    return prediction, div


FLAT = {
    "one Gaussian, deviations 2 and 0.2": (0.0, (2.0, 0.2)),
    "one Gaussian, deviations 0.5": (0.0, (0.5, 0.5)),
    "four overlapping Gaussians (means at 1, deviations 0.5)": (1.0, (0.5, 0.5)),
    "four separate Gaussians (means at 2, deviations 0.2)": (2.0, (0.2, 0.2)),
}


def flat_table() -> Iterator[str]:
    """Exact solutions in two dimensions, as lines of a Markdown table."""
    sigmas = (0.3, 0.6, 0.9)
    yield "| prior in two dimensions | " + " | ".join(f"sigma {sigma:g}" for sigma in sigmas) + " |"
    yield "|---" * (len(sigmas) + 1) + "|"
    for name, (separation, deviations) in FLAT.items():
        cells = []
        for sigma in sigmas:
            found = solve(*flat_mixture(separation, sigma, deviations))
            cells.append(f"{found.constant / found.sds:.3f}, {found.scalar / found.sds:.3f}")
        yield f"| {name} | {' | '.join(cells)} |"


CONSTANT, BOUND = "best constant phi of every image and timestep", "bound for every scalar phi"


def measure(prompt: str, seed: int, guidance_scale: float, steps: int) -> dict[str, float]:
    """Relative variances by row."""
    prior = WorldPrior(WorldPriorConfig(objects=8, seed=seed))
    scene = Scene.of(prior, prompt, seed)
    constant, bound = bounds(scene, prior, guidance_scale)
    out = {CONSTANT: constant, BOUND: bound}
    for name, (method, estimator) in estimators(scene).items():
        out[name] = relative_variance(scene, prior, replace(method, guidance_scale=guidance_scale), estimator, steps)
    return out


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean and half of its 95% confidence interval; nan for one value."""
    if len(values) < 2:
        return values[0], math.nan
    return mean(values), float(student_t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


def ratio(values: Sequence[float]) -> str:
    """Geometric mean of variances and its 95% confidence interval."""
    center, half = interval([math.log(value) for value in values])
    low, high = math.exp(center - half), math.exp(center + half)
    digits = 1 if math.exp(center) > 2 else 3
    return f"{math.exp(center):.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def change(values: Sequence[float], reference: Sequence[float]) -> str:
    """Mean change of a variance in percent of the paired reference, and its 95% confidence interval."""
    center, half = interval([100 * (value / other - 1) for value, other in zip(values, reference, strict=True)])
    return f"{center:+.1f}% ± {half:.1f}"


def report(columns: Mapping[str, Sequence[Mapping[str, float]]], scenes: int, steps: int, seconds: float) -> str:
    """The page."""
    found = {name: {row: [each[row] for each in column] for row in column[0]} for name, column in columns.items()}
    values = found.values()
    about = f"""
        Variance over the noise relative to SDS (1) on the exact prior `world` with eight objects at {SIZE} px, over
        {scenes} scenes, each with a prompt, objects and cameras of its own: geometric mean and its 95% interval. A
        scene is the prompt's second object, blurred, with the geometry of that object. The coefficients are fitted on
        {steps} steps of four views and measured on as many others. The bound for every scalar phi is derived in the
        docstring of the script; it and the best constant are measured at other timesteps and noises than the rest.
    """
    return "\n".join(
        [
            "# The paper's control variate with a perfect estimator",
            "",
            f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores (1 thread), torch "
            f"{torch.__version__}, {seconds:.0f} s of CPU time. `python benchmarks/perfect_eye.py --scenes {scenes} "
            f"--steps {steps}`.",
            "",
            fill(" ".join(about.split()), 120),
            "",
            "| without an estimator | " + " | ".join(found) + " |",
            "|---" * (len(found) + 1) + "|",
            *(
                f"| {row} | {' | '.join(ratio(each[row]) for each in values)} |"
                for row in (NOISE, SPECTRAL, CONSTANT, BOUND)
            ),
            "| change from the best constant to the bound | "
            + " | ".join(change(each[BOUND], each[CONSTANT]) for each in values)
            + " |",
            "",
            "| term and its estimator | "
            + " | ".join(f"{name}, alone | {name}, beside `noise`: change of its variance" for name in found)
            + " |",
            "|---" * (2 * len(found) + 1) + "|",
            *(
                f"| `{term}`, {eye} | "
                + " | ".join(
                    f"{ratio(each[alone(term, eye)])} | {change(each[beside(term, eye)], each[NOISE])}"
                    for each in values
                )
                + " |"
                for term in TERMS
                for eye in EYES
            ),
            "",
            "## The best scalar phi, exactly",
            "",
            "Variance relative to SDS with the best constant phi, and with the best scalar phi (Stein's equation, by",
            "Hermite polynomials up to degree 30). For one Gaussian they are equal.",
            "",
            *flat_table(),
            "",
        ]
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="of four views, fitted on and then measured")
    parser.add_argument("--result", type=Path, default=RESULT, metavar="MD")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    start = time.process_time()
    columns: dict[str, list[dict[str, float]]] = {f"CFG {scale:g}": [] for scale in GUIDANCE_SCALES}
    for seed in range(given.scenes):
        for scale in GUIDANCE_SCALES:
            column = columns[f"CFG {scale:g}"]
            column.append(measure(PROMPTS[seed % len(PROMPTS)], seed, scale, given.steps))
            print(seed, scale, {name: round(value, 3) for name, value in column[-1].items()}, flush=True)
    given.result.write_text(report(columns, given.scenes, given.steps, time.process_time() - start), encoding="utf-8")


if __name__ == "__main__":
    main()
