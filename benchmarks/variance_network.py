"""Variance over the noise of score distillation's estimators on a learned prior, along a run and at fixed images.

    python benchmarks/variance_network.py [--prior tiny | --prior FOLDER] [--prompt TEXT] [--steps N] [--guidance S ...]

Every estimator sees the same draws and learns from them. Before it learns from a step it is measured on two fresh
noises at that step's images, which nothing learns from. "along a run": Gaussians that SDS distils, the second half of
the steps counting. "real", "blurred", "gray": other images from random cameras in their place, drawn from one object
of the world that the prompt names. Writes benchmarks/results/variance_network.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from steindreamer.distill import (
    ControlVariateConfig,
    Distiller,
    GeometryBuffers,
    MethodConfig,
    NoiseRequest,
    Prior,
    SDSConfig,
    SSDConfig,
    TimestepConfig,
)
from steindreamer.distill.priors.counting import CountingPrior
from steindreamer.distill.variance.probe import probe_noise_variance
from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.geometry_models import EstimatorConfig, load_estimator
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.optimization.views import sample_views
from steindreamer.pipelines.runs.pipeline import Pipeline
from steindreamer.representations import TriangleMesh, render_mesh
from steindreamer.world import parse_caption, sample_object
from steindreamer.world.views import shade

RESULT = Path(__file__).parent / "results" / "variance_network.md"
SHIPPED = "tiny"
TIMESTEPS = TimestepConfig(final_maximum=0.98)


def ssd(*terms: str) -> SSDConfig:
    """SSD with these terms."""
    return SSDConfig(control_variates=ControlVariateConfig(list(terms)))


ESTIMATORS: dict[str, MethodConfig] = {
    "SDS": SDSConfig(),
    "`noise`": ssd("noise"),
    "`spectral` (default)": SSDConfig(),
    "`noise`, `depth`": ssd("noise", "depth"),
    "`noise`, `normal`": ssd("noise", "normal"),
    "`learned`": ssd("learned"),
    "`spectral`, `learned`": ssd("spectral", "learned"),
    "`spectral`, `low_rank`": ssd("spectral", "low_rank"),
    "antithetic": SDSConfig(antithetic=True),
}
SIZE = 32
"""Pixels per side of the views, as the shipped prior sees them."""
STATES = ("along a run", "real", "blurred", "gray")
PROMPT = "a red mug"


@dataclass(frozen=True)
class Views:
    """What a step gives the estimators."""

    image: Float[Tensor, "b 3 h w"]
    geometry: GeometryBuffers
    condition: Any


def run_stage(prior: str, prompt: str, steps: int, guidance: float) -> Stage:
    """The first stage of a Gaussians run by SDS, at the size that the prior sees."""
    model = [] if prior == SHIPPED else [f"prior.model={Path(prior).resolve()}"]
    config = load_config(
        "cpu",
        representation="gaussians",
        method="sds",
        prior=SHIPPED,
        overrides=[
            f"stages.coarse.steps={steps}",
            f"stages.coarse.resolution={SIZE}",
            f"method.guidance_scale={guidance}",
            "stages.coarse.probe_every=0",
            *model,
        ],
        prompt=prompt,
        seed=0,
        refine=False,
    )
    return Pipeline(config).first()


def along_a_run(stage: Stage, generator: torch.Generator) -> Views:
    """The views of the stage's next step."""
    view = stage.render_views(stage.config.views, generator)
    stage.step()
    return Views(view.image.detach(), view.geometry, view.condition)


def of_an_object(stage: Stage, mesh: TriangleMesh, state: str, generator: torch.Generator) -> Views:
    cameras, background = sample_views(stage.config.views, SIZE, generator, 0.0)
    output = render_mesh(mesh, cameras, background)
    image = output.rgb
    if state == "blurred":
        image = F.avg_pool2d(F.pad(image, (3, 3, 3, 3), mode="replicate"), 7, 1)
    elif state == "gray":
        image = torch.full_like(image, 0.5)
    geometry = GeometryBuffers(output.opacity, output.depth, output.normal, cameras.camera_to_world)
    return Views(image, geometry, stage.prior.condition(stage.embedding, cameras, background))


class CachedPrior(CountingPrior[Any, Any]):
    """A prior that computes each prediction once; equal noisy images at equal timesteps share it."""

    def __init__(self, prior: Prior[Any, Any]) -> None:
        super().__init__(prior)
        self._known: list[tuple[NoiseRequest, Tensor]] = []

    def predict_noise(self, requests: Sequence[NoiseRequest], condition: Any) -> list[Tensor]:
        missing = [request for request in requests if self._found(request) is None]
        if missing:
            self._known += zip(missing, super().predict_noise(missing, condition), strict=True)
        return [prediction for prediction in map(self._found, requests) if prediction is not None]

    def forget(self) -> None:
        """Drop all predictions: those of other images and conditions."""
        self._known.clear()

    def _found(self, request: NoiseRequest) -> Tensor | None:
        for known, prediction in self._known:
            one, other = known.sample, request.sample
            same = known.prompt == request.prompt and torch.equal(one.timestep, other.timestep)
            if same and torch.equal(one.noisy, other.noisy):
                return prediction
        return None


@dataclass
class Tally:
    """What one estimator's noise and time add up to."""

    own: float = 0.0
    sds: float = 0.0
    seconds: float = 0.0


def measure(
    prior: CachedPrior,
    distillers: Mapping[str, Distiller],
    draw: Callable[[torch.Generator], Views],
    steps: int,
) -> dict[str, Tally]:
    """All learn from every step; they are measured in the second half, each step before it is learned from."""
    generator = torch.Generator().manual_seed(2)
    tallies = {name: Tally() for name in distillers}
    for step in range(steps):
        views = draw(generator)
        seed = int(torch.randint(2**62, (), generator=generator))
        prior.forget()
        for name, distiller in distillers.items():
            noise = torch.Generator().manual_seed(seed)
            arguments = (views.image, views.geometry, views.condition)
            distillation = distiller(*arguments, progress=0.0, generator=noise)
            if 2 * step >= steps:
                probe = probe_noise_variance(distiller, *arguments, progress=0.0, generator=noise)
                tallies[name].own += probe.within_noise
                tallies[name].sds += probe.within_noise_sds
            start = time.process_time()
            distiller.update(distillation)
            tallies[name].seconds += (time.process_time() - start) / steps
    return tallies


def column(prior: str, prompt: str, state: str, guidance: float, steps: int, names: Sequence[str]) -> dict[str, Tally]:
    """One state and guidance, all estimators."""
    stage = run_stage(prior, prompt, steps, guidance)
    estimator, cached = load_estimator(EstimatorConfig(), stage.prior.device), CachedPrior(stage.prior)
    distillers = {
        name: replace(ESTIMATORS[name], guidance_scale=guidance, timesteps=TIMESTEPS).build(cached, estimator)
        for name in names
    }
    if state == "along a run":
        return measure(cached, distillers, lambda generator: along_a_run(stage, generator), steps)
    caption = parse_caption(prompt)
    mesh = shade(sample_object(caption, np.random.default_rng(0)))
    return measure(cached, distillers, lambda generator: of_an_object(stage, mesh, state, generator), steps)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default=SHIPPED, help="a folder of training.prior.train; default: the shipped one")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--steps", type=int, default=200, help="of four views each, learned from and then measured")
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.0, 7.5])
    parser.add_argument("--states", nargs="+", choices=STATES, default=STATES)
    parser.add_argument("--estimators", nargs="+", choices=ESTIMATORS, default=list(ESTIMATORS))
    parser.add_argument("--result", type=Path, default=RESULT, metavar="MD")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    start, columns = time.process_time(), {}
    for guidance in given.guidance:
        for state in given.states:
            title = f"{state}, CFG {guidance:g}"
            columns[title] = column(given.prior, given.prompt, state, guidance, given.steps, given.estimators)
            print(title, {name: round(each.own / each.sds, 3) for name, each in columns[title].items()}, flush=True)
    given.result.write_text(report(columns, given, time.process_time() - start), encoding="utf-8")


def report(columns: Mapping[str, Mapping[str, Tally]], given: argparse.Namespace, seconds: float) -> str:
    lines = [
        "# Variance over the noise on a learned prior, relative to SDS, per call of the prior",
        "",
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores (1 thread), torch {torch.__version__}, "
        f"{seconds:.0f} s of CPU time. `python benchmarks/variance_network.py --prior {Path(given.prior).name} "
        f'--prompt "{given.prompt}" --steps {given.steps}`.',
        "",
        f"Prompt: {given.prompt}; one run and one object, one seed. The variance of the weighted residual at fixed",
        "image, camera and noise level, on noise that nothing has learned from, in the second half of the steps;",
        "four views each. An antithetic pair costs two calls, so its variance is doubled: two independent draws give",
        "1. Last: what learning takes per step.",
        "",
        "| estimator | " + " | ".join(columns) + " | learning, ms |",
        "|---" * (len(columns) + 2) + "|",
    ]
    for name in given.estimators:
        calls = 2 if ESTIMATORS[name].antithetic else 1
        tallies = [tallies[name] for tallies in columns.values()]
        cells = [f"{calls * tally.own / tally.sds:.3f}" for tally in tallies]
        learning = 1e3 * sum(tally.seconds for tally in tallies) / len(tallies)
        lines.append(f"| {name} | {' | '.join(cells)} | {learning:.1f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
