"""How noisy a method's gradient is: SteinDreamer's measurement (sec. 5.1), for several methods at the same draws.

A sample is a tuple of noise level, camera and noise. Two noises per (noise level, camera) tell the variance over the
noise, which control variates can remove, from the variance between cameras and noise levels, which they cannot.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from .coefficients import FixedCoefficients
from .control_variates import NoiseTerm
from .distiller import Distiller
from .guide import Guide
from .moments import Moments, PairedMoments
from .prior import Prior
from .schedule import NoisySample

REFERENCE = "sds"
"""The estimator that all are compared with."""
BINS = 8
"""Equal ranges of the schedule, for the shares by noise level."""


@dataclass(frozen=True)
class ProbeView:
    """One picture of the scene and what an estimator is told about it."""

    picture: Float[Tensor, "1 3 h w"]
    """Display sRGB in [0, 1], with the graph that leads to the scene's parameters."""
    guide: Guide
    condition: Any


@dataclass(frozen=True)
class EstimatorVariance:
    """What one tuple's gradient is worth, and what it costs."""

    parameters: Moments
    """Of the gradient that reaches the scene's parameters: w(t) J^T residual, all parameters in one vector."""
    picture: Moments
    """Of w(t) * residual in the prior's own space (encoded pictures), before the renderer."""
    shares: tuple[float, ...]
    """Of `parameters.within`, by `BINS` equal ranges of the schedule, little noise first; they add up to 1."""
    calls: float
    """Evaluations of the prior per gradient: conditional and unconditional predictions count separately."""
    seconds: float
    """Wall-clock time per gradient: prior and control variates, without rendering."""


def probe_variance(
    distillers: Mapping[str, Distiller],
    draw: Callable[[torch.Generator], ProbeView],
    parameters: Sequence[Tensor],
    *,
    tuples: int = 120,
    progress: float,
    generator: torch.Generator,
) -> dict[str, EstimatorVariance]:
    """Measure every distiller on the same `tuples` (an even number, at least 4) of noise level, camera and noise.

    `draw` takes one random picture of the scene; noise levels are drawn as by the distiller called "sds", which must be
    among them, at `progress`. Draws from `generator` only, and no coefficient learns. Raises ValueError.
    """
    if tuples < 4 or tuples % 2:
        raise ValueError(f"the probe needs an even number of tuples, at least 4 (two noises each), got {tuples}")
    if REFERENCE not in distillers:
        raise ValueError(f"the probe compares with '{REFERENCE}'; among the distillers are {', '.join(distillers)}")
    reference = distillers[REFERENCE]
    in_parameters, in_pictures = PairedMoments(REFERENCE), PairedMoments(REFERENCE)
    shares = {name: [0.0] * BINS for name in distillers}
    costs = {name: _Cost() for name in distillers}
    for _ in range(tuples // 2):
        view = draw(generator)
        encoded = reference.prior.encode(view.picture)
        timestep = reference.sampler(len(encoded), progress, generator).timestep.to(encoded.device)
        seeds = torch.randint(2**62, (2,), generator=generator, device=generator.device).tolist()
        pictures, pulled = {}, {}
        for name, distiller in distillers.items():
            gradients = [costs[name].gradient(distiller, view, timestep, progress, seed) for seed in seeds]
            pictures[name] = tuple(gradient.flatten() for gradient in gradients)
            pulled[name] = tuple(_pull_back(encoded, parameters, gradient) for gradient in gradients)
        in_pictures.add(pictures)
        bin = int(timestep) * BINS // reference.prior.schedule.steps
        for name, within in in_parameters.add(pulled).items():
            shares[name][bin] += within
    by_parameters, by_pictures = in_parameters.result(), in_pictures.result()
    return {
        name: EstimatorVariance(
            by_parameters[name],
            by_pictures[name],
            tuple(share / max(sum(shares[name]), 1e-300) for share in shares[name]),
            costs[name].calls / tuples,
            costs[name].seconds / tuples,
        )
        for name in distillers
    }


def sds_like(distiller: Distiller) -> Distiller:
    """SDS with the guidance, noise levels and weighting of another distiller, on its prior."""
    variate = NoiseTerm()
    coefficients = FixedCoefficients(variate.initial, distiller.prior.schedule.steps)
    out = Distiller(
        distiller.prior,
        [variate],
        coefficients,
        guidance_scale=distiller.guidance_scale,
        timesteps=distiller.timesteps,
    )
    out.weighting = distiller.weighting
    return out.to(distiller.prior.device)


@contextmanager
def count_calls(prior: Prior) -> Iterator[list[int]]:
    """A list that receives, for every question to the prior, how many predictions of one picture were asked for.

    Conditional and unconditional ones count separately, and those of trainable copies of its network count too.
    """
    asked: list[int] = []

    def counted(ask: Callable[..., Any]) -> Callable[..., Any]:
        def predict(*arguments: Any, **options: Any) -> Any:
            if isinstance(arguments[0], Sequence):  # the questions of `answer`
                asked.append(sum(len(question.sample.noisy) for question in arguments[0]))
            else:
                (sample,) = (value for value in arguments if isinstance(value, NoisySample))
                asked.append(len(sample.noisy) * (2 if options.get("unconditional") else 1))
            return ask(*arguments, **options)

        return predict

    names = [name for name in ("predict_noise", "predict_with", "answer") if hasattr(prior, name)]
    for name in names:
        object.__setattr__(prior, name, counted(getattr(prior, name)))
    try:
        yield asked
    finally:
        for name in names:
            object.__delattr__(prior, name)


class _Cost:
    """Takes gradients and adds up what they cost."""

    def __init__(self) -> None:
        self.calls, self.seconds = 0, 0.0

    def gradient(
        self, distiller: Distiller, view: ProbeView, timestep: Tensor, progress: float, seed: int
    ) -> Float[Tensor, "1 c h w"]:
        """w(t) * residual of one picture at this noise level; the seed is the noise."""
        picture, device = view.picture.detach(), view.picture.device
        noise = torch.Generator().manual_seed(seed)
        with count_calls(distiller.prior) as asked:
            _wait_for(device)
            start = time.perf_counter()
            distillation = distiller(
                picture, view.guide, view.condition, progress=progress, generator=noise, timestep=timestep
            )
            _wait_for(device)
        self.seconds += time.perf_counter() - start
        self.calls += sum(asked)
        return distillation.gradient


def _pull_back(
    encoded: Float[Tensor, "1 c h w"], parameters: Sequence[Tensor], gradient: Float[Tensor, "1 c h w"]
) -> Float[Tensor, " p"]:
    """J^T gradient as one vector; the graph is kept for the next one."""
    pulled = torch.autograd.grad(
        encoded, list(parameters), gradient.to(encoded.dtype), retain_graph=True, allow_unused=True
    )
    parts = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, pulled, strict=True)]
    return torch.cat([part.detach().flatten() for part in parts])


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
