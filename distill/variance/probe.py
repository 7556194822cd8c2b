"""Measurement of the variance of gradients as in SteinDreamer (sec. 5.1), for several methods at the same draws.

A sample is a tuple of timestep, camera and noise. Two timesteps per camera, and two noises per timestep, separate the
variance over the noise, which control variates can remove, from that over the timestep, which several draws per view
reduce as well, and from that between cameras, which only more views reduce.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic

import torch
from jaxtyping import Float
from torch import Tensor

from steindreamer.clock import seconds_now

from ..control_variates.coefficients import FixedCoefficients
from ..control_variates.terms import NoiseTerm
from ..distiller import Distillation, Distiller, draw_seed
from ..geometry_buffers import GeometryBuffers
from ..priors.base import Condition, encode
from ..priors.counting import CountingPrior, counting
from ..residual import Draw, Guided
from .draw_cost import DrawCost
from .flops import count_flops
from .moments import Moments, NestedMoments

REFERENCE = "sds"
"""Name of the method that all others are compared with."""
BINS = 8
"""Number of equal ranges of the schedule, for the fractions by timestep."""


@dataclass(frozen=True)
class NoiseVariance:
    """Unbiased estimates of the gradient's moments over the noise, at fixed timestep, camera and scene.

    All are of the weighted residual of one image, summed over pixels and averaged over the batch.
    """

    within_noise: float
    """Trace of this method's covariance; several draws per view are averaged."""
    within_noise_sds: float
    """Trace of the covariance of SDS of one draw, at the same timesteps."""
    signal: float
    """Squared norm of the mean; it may be negative, since the estimate is unbiased."""


def probe_noise_variance(
    distiller: Distiller[Condition],
    image: Float[Tensor, "b 3 h w"],
    geometry: GeometryBuffers,
    condition: Condition,
    *,
    progress: float,
    generator: torch.Generator,
) -> NoiseVariance:
    """Measure the variance over the noise at given images, by two noises per draw at one timestep and camera.

    `generator` is forked, not advanced, and no parameter is trained, so probing does not change the run. The arguments
    are those of `Distiller.forward`.
    """
    fork = torch.Generator(generator.device)
    fork.set_state(generator.get_state())
    fork.manual_seed(draw_seed(fork))
    with torch.no_grad():
        clean = encode(distiller.prior, image).float()
        draws = distiller.draw_timestep(clean, progress, fork)
        first, second, sds_variance = torch.zeros_like(clean), torch.zeros_like(clean), 0.0
        for times in draws:
            pair = []
            for _ in range(2):
                noise = distiller.draw_noise(clean, times.timestep, geometry, fork)
                observation, sds = distiller.estimate(clean, times, noise, geometry, condition, progress)
                if sds is None:
                    sample = distiller.prior.schedule.add_noise(clean, noise, times.timestep)
                    draw = Draw(sample, distiller.prior, condition, geometry, distiller.guidance_scale, progress)
                    sds = Guided(distiller.guidance_scale)(draw).value - noise
                pair.append((observation.weight * observation.residual, observation.weight * sds))
            first, second = first + pair[0][0] / len(draws), second + pair[1][0] / len(draws)
            sds_variance += _per_image(0.5 * (pair[0][1] - pair[1][1]) ** 2) / len(draws)
    return NoiseVariance(
        within_noise=_per_image(0.5 * (first - second) ** 2),
        within_noise_sds=sds_variance,
        signal=_per_image(first * second),
    )


def _per_image(squares: Float[Tensor, "b c h w"]) -> float:
    return float(squares.double().sum() / len(squares))


@dataclass(frozen=True)
class ProbeView(Generic[Condition]):
    """One image of the scene and its conditioning."""

    image: Float[Tensor, "1 3 h w"]
    """Display sRGB in [0, 1], with the graph that leads to the scene's parameters."""
    geometry: GeometryBuffers
    condition: Condition


@dataclass(frozen=True)
class EstimatorVariance:
    """Moments of a method's gradient for one tuple, and its cost."""

    parameters: Moments
    """Moments of the gradient that reaches the scene's parameters: w(t) J^T residual, all parameters in one vector."""
    image: Moments
    """Moments of w(t) * residual in the prior's own space (encoded images), before the renderer."""
    fractions: tuple[float, ...]
    """Fractions of `parameters.noise` by `BINS` equal ranges of the schedule, least noisy first; they sum to 1. With
    several draws per view, a gradient counts in the range of its mean timestep."""
    calls: float
    """Noise predictions per gradient, one per image and prompt."""
    seconds: float
    """Wall-clock time per gradient: prior and control variates, without rendering."""
    view_seconds: float = math.nan
    """Wall-clock time to render and encode a view, forward and backward."""
    flops: float = 0.0
    """Floating-point operations per gradient that torch can count (`count_flops`), without rendering."""
    draws: int = 1
    """Draws of timestep and noise per view, over which a gradient is averaged."""

    @property
    def cost(self) -> DrawCost:
        """Variances in the parameters, and seconds, of one draw and one view."""
        moments = self.parameters
        return DrawCost(moments.within_view * self.draws, moments.camera, self.view_seconds, self.seconds / self.draws)


def probe_variance(
    distillers: Mapping[str, Distiller[Any]],
    draw: Callable[[torch.Generator], ProbeView[Any]],
    parameters: Sequence[Tensor],
    *,
    tuples: int = 120,
    progress: float,
    generator: torch.Generator,
) -> dict[str, EstimatorVariance]:
    """Measure every distiller on the same `tuples` (a multiple of 4, at least 8) of timestep, camera and noise.

    Random numbers come from `generator` only, and no parameter is trained.

    Args:
        distillers: distillers by name; "sds" must be among them, and timesteps are sampled as it does at `progress`,
            with the number of draws per view of each distiller.
        draw: renders one random image of the scene.

    Raises ValueError for invalid arguments.
    """
    if tuples < 8 or tuples % 4:
        raise ValueError(
            "the probe needs a multiple of 4 tuples, at least 8 (two timesteps per camera, two noises each), got "
            f"{tuples}"
        )
    if REFERENCE not in distillers:
        raise ValueError(
            f"the probe needs '{REFERENCE}' as the reference; the given distillers are {', '.join(distillers)}"
        )
    reference = distillers[REFERENCE]
    in_parameters, in_images = NestedMoments(REFERENCE), NestedMoments(REFERENCE)
    fractions = {name: [0.0] * BINS for name in distillers}
    costs = {name: _Cost() for name in distillers}
    view_seconds: list[float] = []
    for _ in range(tuples // 4):
        start = seconds_now(reference.prior.device)
        view = draw(generator)
        encoded = reference.prior.encode(view.image)
        rendered = seconds_now(encoded.device) - start
        seeds = torch.randint(2**62, (2, 3), generator=generator, device=generator.device).tolist()
        images: dict[str, Any] = {name: [] for name in distillers}
        pulled: dict[str, Any] = {name: [] for name in distillers}
        bins: dict[str, list[int]] = {name: [] for name in distillers}
        for level, *noises in seeds:
            for name, distiller in distillers.items():
                times = reference.sampler(len(encoded), progress, _seeded(level), distiller.draws).timestep
                times = times.to(encoded.device)
                bins[name].append(int(times.float().mean()) * BINS // reference.prior.schedule.steps)
                gradients = [costs[name].gradient(distiller, view, times, progress, seed) for seed in noises]
                images[name].append(tuple(gradient.flatten() for gradient in gradients))
                start = seconds_now(encoded.device)
                pulled[name].append(tuple(_pull_back(encoded, parameters, gradient) for gradient in gradients))
                view_seconds.append(rendered + (seconds_now(encoded.device) - start) / 2)
        in_images.add(images)
        for name, noises in in_parameters.add(pulled).items():
            for timestep_bin, noise in zip(bins[name], noises, strict=True):
                fractions[name][timestep_bin] += noise
    by_parameters, by_images = in_parameters.result(), in_images.result()
    return {
        name: EstimatorVariance(
            by_parameters[name],
            by_images[name],
            tuple(fraction / max(sum(fractions[name]), 1e-300) for fraction in fractions[name]),
            costs[name].calls / tuples,
            costs[name].seconds / (tuples - 1),
            statistics.median(view_seconds),
            costs[name].flops,
            distiller.draws,
        )
        for name, distiller in distillers.items()
    }


def sds_like(distiller: Distiller[Condition]) -> Distiller[Condition]:
    """SDS with the guidance scale, timestep sampling and weighting of another distiller, on its prior."""
    variate = NoiseTerm()
    coefficients = FixedCoefficients(variate.initial, distiller.prior.schedule.steps)
    out = Distiller(
        distiller.prior,
        [variate],
        coefficients,
        guidance_scale=distiller.guidance_scale,
        timesteps=distiller.timesteps,
        noise=distiller.noise,
    )
    out.weighting = distiller.weighting
    return out.to(distiller.prior.device)


@contextmanager
def count_predictions(distiller: Distiller[Condition]) -> Iterator[CountingPrior[Any, Condition]]:
    """Count predictions within the context by a `CountingPrior`, which the distiller and its learned score use."""
    prior = distiller.prior
    counter = counting(prior)
    distiller.use_prior(counter)
    try:
        yield counter
    finally:
        distiller.use_prior(prior)


class _Cost:
    """The accumulated cost of a distiller's gradients."""

    def __init__(self) -> None:
        self.calls, self.flops = 0, 0.0
        self.seconds = 0.0
        """Seconds of all gradients but the first, whose operations are counted."""

    def gradient(
        self, distiller: Distiller[Any], view: ProbeView[Any], timestep: Tensor, progress: float, seed: int
    ) -> Float[Tensor, "1 c h w"]:
        """The gradient w(t) * residual of one image at these timesteps; the noise is drawn from the seed."""
        image, device = view.image.detach(), view.image.device
        found: list[Distillation] = []

        def work() -> None:
            noise = _seeded(seed)
            found.append(
                distiller(image, view.geometry, view.condition, progress=progress, generator=noise, timestep=timestep)
            )

        with count_predictions(distiller) as counter:
            if self.calls:
                start = seconds_now(device)
                work()
                self.seconds += seconds_now(device) - start
            else:
                self.flops = float(count_flops(work))
        self.calls += counter.predictions
        return found[0].gradient


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _pull_back(
    encoded: Float[Tensor, "1 c h w"], parameters: Sequence[Tensor], gradient: Float[Tensor, "1 c h w"]
) -> Float[Tensor, " p"]:
    """The product J^T gradient as one vector; the graph is retained for the next call."""
    pulled = torch.autograd.grad(
        encoded, list(parameters), gradient.to(encoded.dtype), retain_graph=True, allow_unused=True
    )
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, pulled, strict=True)]
    return torch.cat([part.detach().flatten() for part in parts])
