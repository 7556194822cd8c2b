"""Variance of one training step's gradient at equal calls of the prior: noise, noise levels and cameras together.

    python benchmarks/variance_step.py [--prompt TEXT] [--steps N] [--draws N]

Control variates and antithetic pairs reduce the variance over the noise; a step also draws noise levels and cameras,
and whoever pays two calls for a pair could have looked from another side for them. SDS distils Gaussians at the
preset's settings; at a third and at two thirds of the run, every estimator draws the same number of whole steps at
that scene. Every step costs as many calls as four images do. Writes benchmarks/results/variance_step.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import torch
from jaxtyping import Float
from torch import Tensor

from steindreamer.distill import MethodConfig, SDSConfig, SSDConfig
from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.runs.pipeline import Pipeline

RESULT = Path(__file__).parent / "results" / "variance_step.md"
VIEWS = 4
"""Images of a step with one noise each."""
SCENES = (1 / 3, 2 / 3)
"""Shares of the run."""
LESSONS = 60
"""Steps at the scene that an estimator learns from first."""
PRIORS = {"tiny, CFG 7.5": ("tiny", 7.5), "tiny, CFG 3": ("tiny", 3.0), "world, CFG 1": ("world", 1.0)}


@dataclass(frozen=True)
class Way:
    """How a step spends its calls."""

    method: MethodConfig
    azimuths: str = "stratified"
    levels: Mapping[str, bool] | None = None
    """Of `TimestepConfig`."""

    @property
    def views(self) -> int:
        return VIEWS // 2 if self.method.antithetic else VIEWS


BOTH = {"importance": True, "stratified": True}
WAYS = {
    "SDS, four independent views": Way(SDSConfig(), "independent"),
    "SDS (four views around the circle)": Way(SDSConfig()),
    "stratified levels": Way(SDSConfig(), levels={"stratified": True}),
    "importance levels": Way(SDSConfig(), levels={"importance": True}),
    "stratified importance levels": Way(SDSConfig(), levels=BOTH),
    "`spectral`": Way(SSDConfig()),
    "`spectral`, stratified importance levels": Way(SSDConfig(), levels=BOTH),
    "antithetic pairs, two views": Way(SDSConfig(antithetic=True)),
    "pairs, stratified importance levels": Way(SDSConfig(antithetic=True), levels=BOTH),
}
REFERENCE = "SDS (four views around the circle)"


def gradients(stage: Stage, way: Way, draws: int) -> list[Float[Tensor, "n p"]]:
    """Of whole steps, for each of the scene's tensors; the scene stays as it is."""
    usual = stage.distiller
    timesteps = replace(usual.timesteps, **way.levels or {})
    method = replace(way.method, guidance_scale=usual.guidance_scale, timesteps=timesteps)
    distiller = method.build(stage.prior)
    views = replace(stage.config.views, per_step=way.views, azimuths=way.azimuths)
    parameters = [p for p in stage.representation.parameters() if p.requires_grad]
    generator, found = torch.Generator().manual_seed(1), []
    for index in range(LESSONS + draws):
        view = stage.render_views(views, generator)
        step = distiller(view.image, view.geometry, view.condition, progress=stage.progress, generator=generator)
        if index < LESSONS:
            distiller.update(step)
        else:
            found.append(torch.autograd.grad(step.loss, parameters))
    return [torch.stack([g.flatten() for g in each]) for each in zip(*found, strict=True)]


def measure(stage: Stage, draws: int) -> dict[str, tuple[float, float]]:
    """By way: variance over SDS's, and squared norm of the mean over the variance; means over the scene's tensors."""
    base = [_variance(each) for each in gradients(stage, WAYS[REFERENCE], draws)]
    out = {}
    for name, way in WAYS.items():
        found = gradients(stage, way, draws)
        variance = [_variance(each) for each in found]
        ratio = [own / sds for own, sds in zip(variance, base, strict=True) if sds > 0]
        signal = [
            float(each.double().mean(0).square().sum()) / own - 1 / draws
            for each, own in zip(found, variance, strict=True)
            if own > 0
        ]
        out[name] = mean(ratio), mean(signal)
    return out


def _variance(gradients: Float[Tensor, "n p"]) -> float:
    """Trace of the covariance."""
    return float(gradients.double().var(0).sum())


def columns(prior: str, guidance: float, prompt: str, steps: int, draws: int) -> dict[str, dict[str, tuple]]:
    """By fraction of the run."""
    settings = [
        f"stages.coarse.steps={steps}",
        f"stages.coarse.views.per_step={VIEWS}",
        f"stages.coarse.method.guidance_scale={guidance}",
        "stages.coarse.probe_every=0",
    ]
    if prior == "world":
        settings += ["stages.coarse.resolution=64", "stages.coarse.warmup_resolution=64"]
    config = load_config(
        "cpu",
        representation="gaussians",
        method="sds",
        prior=prior,
        prompt=prompt,
        seed=0,
        overrides=settings,
        refine=False,
    )
    stage, out = Pipeline(config).first(), {}
    for fraction in SCENES:
        while stage.progress < fraction:
            stage.step()
        out[f"after {fraction:.0%} of {steps} steps"] = measure(stage, draws)
    return out


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompt", default="a red mug")
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--draws", type=int, default=120, help="whole steps per estimator and scene")
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=list(PRIORS))
    parser.add_argument("--result", type=Path, default=RESULT, metavar="MD")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    start, found = time.process_time(), {}
    for name in given.priors:
        for moment, column in columns(*PRIORS[name], given.prompt, given.steps, given.draws).items():
            found[f"{name}, {moment}"] = column
            print(name, moment, {way: [round(v, 3) for v in values] for way, values in column.items()}, flush=True)
    given.result.write_text(report(found, given, time.process_time() - start), encoding="utf-8")


def report(found: Mapping[str, Mapping[str, tuple]], given: argparse.Namespace, seconds: float) -> str:
    head = (
        f"{datetime.date.today()}, {platform.machine()}, {os.cpu_count()} cores (1 thread), torch {torch.__version__}, "
        f"{seconds:.0f} s of CPU time. "
        f'`python benchmarks/variance_step.py --prompt "{given.prompt}" --steps {given.steps} --draws {given.draws}`.'
    )
    text = f"""# Variance of a step's gradient at equal calls of the prior

{head}

Trace of the covariance of one whole step's gradient (noise, noise levels, cameras and backgrounds drawn anew), over
that of SDS with four views around the circle, mean over the scene's tensors (positions, colors, ...); in brackets the
squared norm of the mean over the variance. Every step has the calls of four images; {given.draws} steps each, one
scene and seed: differences of a few per cent say nothing.
"""
    lines = [text, "| a step's calls | " + " | ".join(found) + " |", "|---" * (len(found) + 1) + "|"]
    for way in WAYS:
        cells = [f"{column[way][0]:.2f} ({column[way][1]:.3f})" for column in found.values()]
        lines.append(f"| {way} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
