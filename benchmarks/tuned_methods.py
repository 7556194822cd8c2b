"""Methods at their own best settings: a grid of rates, views, draws and reuse, best against best at equal prior calls.

    python benchmarks/tuned_methods.py [--priors world tiny] [--methods NAME ...] [--calls N] [--seeds N] [--table]

Runs are the coarse stage of the preset `cpu` with Gaussians. Every method is run with all settings of the grid on the
tuning prompts; its best one is run on the reported prompts and seeds with the full budget and with parts of it.
Quality is the PSNR of the unlit views to the nearest true object, over held-out views; of `world`, whose posterior then
holds one object, to that object. The scorer's probability of the prompt is reported beside it. Runs are appended to
results/tuned_methods.jsonl, those in the file are not repeated, and results/tuned_methods.md is written from the file.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from statistics import mean
from textwrap import fill
from typing import Any

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import torch
from asset_quality import true_objects
from kept_runs import KeptRuns
from noise_dominated import difference, interval

from steindreamer.pipelines.comparison.comparison import calls_per_view
from steindreamer.pipelines.comparison.scores import world_score
from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.runs.pipeline import Pipeline
from steindreamer.representations import TriangleMesh
from steindreamer.world.truth import held_out_psnr

RESULTS = Path(__file__).parent / "results"
RUNS, TABLE = RESULTS / "tuned_methods.jsonl", RESULTS / "tuned_methods.md"
CALLS = 120
"""Prior calls of a run; a guided prediction is two."""
BUDGETS = (0.5, 1.0)
"""Fractions of the calls that the best settings are run with."""
TUNING = ("a red mug", "a yellow rubber duck")
REPORTED = (
    "a blue tulip", "a red sailboat", "a brown teddy bear", "an orange car", "a cactus in a white pot",
    "a house with a red roof",
)  # fmt: skip
TRUTHS = 8
"""True objects of a caption, of which the nearest counts."""
VIEWS, SIZE = 8, 96
"""Held-out views and their pixels per side."""
SETTINGS: tuple[str, ...] = ()
"""Settings of all runs, beside those of the preset."""
METHODS = {
    "SDS": ("sds",),
    "SSD": ("ssd",),
    "SDS, pairs": ("sds", "method.antithetic=true"),
}
"""Method and its settings by name; the first one is the reference."""
REFERENCE = "SDS"
PRIORS: Mapping[str, tuple[str, ...]] = {"world": ("prior.objects=1",), "tiny": ()}


@dataclass(frozen=True)
class Point:
    """A point of the grid."""

    rate: float
    """Factor on the learning rates at the start, which falls to a tenth."""
    views: int
    draws: int
    reuse: int

    def __str__(self) -> str:
        return f"rate {self.rate:g}, views {self.views}, draws {self.draws}, reuse {self.reuse}"


GRID = tuple(Point(*each) for each in itertools.product((3.0, 6.0, 12.0), (1, 2), (1, 2), (1, 2)))


@dataclass(frozen=True)
class Key:
    """What determines a run."""

    prior: str
    method: str
    point: Point
    prompt: str
    seed: int
    calls: int


def build(key: Key, steps: int) -> Stage:
    """The coarse stage of a run."""
    method, *own = METHODS[key.method]
    point = key.point
    config = load_config(
        "cpu",
        representation="gaussians",
        method=method,
        prior=key.prior,
        prompt=key.prompt,
        seed=key.seed,
        refine=False,
        overrides=[
            f"stages.coarse.steps={steps}",
            f"stages.coarse.rates={{from: {point.rate}, to: {point.rate / 10}}}",
            f"stages.coarse.views.per_step={point.views}",
            f"stages.coarse.reuse={point.reuse}",
            "stages.coarse.probe_every=0",
            f"method.draws={point.draws}",
            *SETTINGS,
            *PRIORS[key.prior],
            *own,
        ],
    )
    return Pipeline(config).first()


@cache
def calls_per_step(prior: str, method: str, views: int, draws: int) -> int:
    """Predictions of a step, counted in one."""
    stage = build(Key(prior, method, Point(1.0, views, draws, 1), TUNING[0], 0, 0), 1)
    return views * calls_per_view(stage, stage.distiller)


def run(key: Key) -> dict[str, Any]:
    """Train one scene and measure it."""
    point = key.point
    per_step = calls_per_step(key.prior, key.method, point.views, point.draws)
    stage = build(key, max(1, round(key.calls / per_step)))
    begun = time.process_time()
    while stage.done < stage.config.steps:
        stage.step()
    seconds = time.process_time() - begun
    scene = stage.representation
    truths = stage.embedding.objects if key.prior == "world" else nearest_candidates(key.prompt)
    return {
        "date": str(datetime.date.today()),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores (1 thread), torch {torch.__version__}",
        **asdict(key),
        "steps": stage.done,
        "spent": stage.done * per_step,
        "cpu_seconds": round(seconds, 2),
        "psnr": round(max(held_out_psnr(scene, truth, VIEWS, SIZE) for truth in truths), 3),
        "score": round(world_score(key.prompt, VIEWS, SIZE).of(scene), 4),
    }


@cache
def nearest_candidates(prompt: str) -> tuple[TriangleMesh, ...]:
    """True objects with the colors of their surfaces."""
    return true_objects(prompt, TRUTHS)


class Runs(KeptRuns[Key]):
    """The runs of this benchmark."""

    def __init__(self, path: Path, *, frozen: bool = False) -> None:
        super().__init__(path, _key_of, frozen=frozen)

    def __call__(self, key: Key) -> dict[str, Any]:
        return self.kept(key, lambda: run(key))


def _key_of(record: Mapping[str, Any]) -> Key:
    values = {name: record[name] for name in Key.__dataclass_fields__}
    return Key(**{**values, "point": Point(**record["point"])})


@dataclass
class Tuned:
    """The runs of one method with one prior."""

    best: Point
    grid: dict[Point, float]
    """Mean PSNR on the tuning prompts."""
    reported: dict[float, list[dict[str, Any]]] = field(default_factory=dict)
    """Runs of the best point by fraction of the calls, for each reported prompt and seed."""

    def values(self, budget: float, name: str) -> list[float]:
        return [each[name] for each in self.reported[budget]]


def tuned(runs: Runs, prior: str, method: str, calls: int, seeds: int) -> Tuned:
    """Choose the best point on the tuning prompts, then run it on the reported ones, with each seed."""
    grid = {
        point: mean(runs(Key(prior, method, point, prompt, 0, calls))["psnr"] for prompt in TUNING) for point in GRID
    }
    best = max(grid, key=grid.__getitem__)
    found = Tuned(best, grid)
    for budget in BUDGETS:
        keys = [
            Key(prior, method, best, prompt, seed, round(budget * calls))
            for prompt in REPORTED
            for seed in range(seeds)
        ]
        found.reported[budget] = [runs(key) for key in keys]
    return found


def section(prior: str, methods: Mapping[str, Tuned]) -> Iterator[str]:
    """The tables of one prior."""
    yield f"## `{prior}`"
    yield ""
    yield "| method | best settings | calls | PSNR, dB | against SDS, dB | scorer's probability | CPU seconds |"
    yield "|---|---|---|---|---|---|---|"
    reference = methods[REFERENCE]
    for budget in BUDGETS:
        for name, found in methods.items():
            psnr, score = found.values(budget, "psnr"), found.values(budget, "score")
            against = "" if name == REFERENCE else difference(psnr, reference.values(budget, "psnr"))
            calls = round(mean(found.values(budget, "spent")))
            seconds = mean(found.values(budget, "cpu_seconds"))
            yield (
                f"| {name} | {found.best} | {calls} | {mean(psnr):.2f} ± {interval(psnr):.2f} | {against} | "
                f"{mean(score):.3f} ± {interval(score):.3f} | {seconds:.1f} |"
            )
    yield ""
    yield "PSNR in dB on the tuning prompts, by rate, views, draws and reuse:"
    yield ""
    yield "| settings | " + " | ".join(methods) + " |"
    yield "|---|" + "---|" * len(methods)
    for point in GRID:
        yield f"| {point} | " + " | ".join(f"{found.grid[point]:.2f}" for found in methods.values()) + " |"
    yield ""


def report(results: Mapping[str, Mapping[str, Tuned]], runs: Sequence[Mapping[str, Any]], command: str) -> str:
    """The page."""
    dates = sorted({each["date"] for each in runs})
    seconds, hardware = sum(each["cpu_seconds"] for each in runs), sorted({each["hardware"] for each in runs})
    about = f"""
        Gaussians, coarse stage of the preset `cpu`. Rates fall to a tenth during a run. Every method is run
        with all {len(GRID)} settings on {len(TUNING)} tuning prompts (seed 0), and its best one on {len(REPORTED)}
        other prompts. All methods have equal calls, so more views or draws are fewer steps. PSNR is that of unlit
        held-out views; with `tiny` to the nearest of {TRUTHS} true objects. ± is the 95% interval over prompts and
        seeds, of differences between runs of the same prompt and seed. CPU seconds are those of the steps.
    """
    lines = [
        "# Methods at their own best settings",
        "",
        f"{' to '.join(dict.fromkeys([dates[0], dates[-1]]))}, {'; '.join(hardware)}; {len(runs)} runs, "
        f"{seconds:.0f} s of CPU time for their steps. `{command}`.",
        "",
        fill(" ".join(about.split()), 120),
        "",
    ]
    for prior, methods in results.items():
        lines += section(prior, methods)
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--priors", nargs="+", choices=list(PRIORS), default=["tiny", "world"])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS)[:2])
    parser.add_argument("--calls", type=int, default=CALLS, help="prior calls of a run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--table", action="store_true", help="only tabulate the runs in the file")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="JSONL")
    parser.add_argument("--result", type=Path, default=TABLE, metavar="MD")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    runs = Runs(given.runs, frozen=given.table)
    results: dict[str, dict[str, Tuned]] = {}
    command = f"python benchmarks/tuned_methods.py --calls {given.calls} --seeds {given.seeds}"
    for prior in given.priors:
        for method in dict.fromkeys([REFERENCE, *given.methods]):
            results.setdefault(prior, {})[method] = tuned(runs, prior, method, given.calls, given.seeds)
        used = [record for key, record in runs.known.items() if key.prior in results]
        given.result.write_text(report(results, used, command), encoding="utf-8")


if __name__ == "__main__":
    main()
