"""Successive halving of seeds against whole runs at equal prior calls, on the embedded prior `tiny`.

    python benchmarks/racing.py [--prompts 8] [--seeds 5] [--rows benchmarks/results/racing.jsonl] [--no-runs]

Every seed of the pool is run to its end once; after fixed numbers of steps its scene is scored as a race does. Each way
of choosing is then evaluated on all subsets of the pool: a race of four that keeps two after a quarter and one after
half of the steps, and the better of two whole runs, each cost two runs. The quality is that of the exported file, from
cameras that no score uses. Runs are short and without refinement. The same command continues: it keeps finished rows.
Writes a table next to the rows, with 95 % intervals over the prompts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import combinations
from math import ceil, isclose
from pathlib import Path
from typing import Any, TypeAlias

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import numba
import numpy as np
import torch
from asset_quality import PROMPTS, append_row, bootstrap, read_rows, true_objects
from jaxtyping import Float
from lit import read_asset, render_asset
from scipy.stats import spearmanr
from torch import Tensor

from steindreamer.distill import Prior
from steindreamer.pipelines import generate
from steindreamer.pipelines.batches.judging import SIZE, VIEWS, view_consistency
from steindreamer.pipelines.batches.records import audit_of, summary_of, write_audit
from steindreamer.pipelines.comparison.intervals import Interval
from steindreamer.pipelines.comparison.scores import caption_log_probabilities, take_images
from steindreamer.pipelines.config.run_config import RunConfig, load_config
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.runs.pipeline import load_prior
from steindreamer.representations import Representation, render_mesh
from steindreamer.world.scorer import WorldScorer
from steindreamer.world.truth import held_out_cameras

STEPS = 144
MARKS = {step / STEPS: step for step in (36, 48, 72, 108)}
"""Scored states: steps by fraction of the run."""
SETTINGS = (
    f"stages.coarse.steps={STEPS}", "stages.coarse.resolution=64", "representation.count=1500", "refine=false",
    "output.checkpoint_every=0", "output.preview_every=0", "output.turntable_frames=0", "output.image_size=32",
    "export.resolution=64", "export.cameras=24", "export.view_size=96", "export.texture_size=256",
    "export.face_budget=3000", "export.lods=[1]", "export.hulls=0",
)  # fmt: skip
TRUTHS = 4
"""True objects of a prompt; PSNR is to the nearest one."""
QUALITY_VIEWS, QUALITY_SIZE = 16, 96
Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Way:
    """A way to spend prior calls on seeds."""

    title: str
    seeds: int
    rounds: tuple[float, ...] = ()
    """Fractions of the run after which the better half goes on; the best of the last round is completed."""

    @property
    def cost(self) -> float:
        """Prior calls in whole runs."""
        if not self.rounds:
            return float(self.seeds)
        cost, before, runs = 0.0, 0.0, self.seeds
        for index, fraction in enumerate(self.rounds):
            cost, before = cost + runs * (fraction - before), fraction
            runs = 1 if index == len(self.rounds) - 1 else ceil(runs / 2)
        return cost + 1 - before

    def choose(self, rows: Sequence[Row], score: Callable[[Mapping[str, float]], float]) -> Row:
        """The run that is kept of these. Whole runs are chosen by the same score of their last state."""
        left = list(rows)
        for index, fraction in enumerate(self.rounds):
            left.sort(key=lambda row: -score(row["scores"][f"{fraction:.3f}"]))
            left = left[: 1 if index == len(self.rounds) - 1 else ceil(len(left) / 2)]
        return max(left, key=lambda row: score(row["scores"]["1.000"]))


ONE, TWO = Way("one run", 1), Way("better of 2 whole runs", 2)
RACE = Way("race of 4: 4 to 25 %, 2 to 50 %", 4, (1 / 4, 1 / 2))
WAYS = (
    ONE,
    TWO,
    RACE,
    Way("4 to 33 %, the best goes on", 4, (1 / 3,)),
    Way("3 to 50 %, the best goes on", 3, (1 / 2,)),
    Way("best of 4 whole runs", 4),
)
SCORES: dict[str, Callable[[Mapping[str, float]], float]] = {
    "probability x consistency": lambda found: found["probability"] * found["consistency"],
    "probability": lambda found: found["probability"],
    "log-probability": lambda found: found["log_probability"],
    "consistency": lambda found: found["consistency"],
}
RACE_SCORE = "probability x consistency"
QUALITIES = {
    "lit_probability": ("probability, lit", 3),
    "lit_log_probability": ("log-probability, lit", 3),
    "psnr": ("PSNR to the nearest true object, dB", 2),
}


def scores_of(scene: Representation, prompt: str, scorer: WorldScorer) -> dict[str, float]:
    """What a race can know about a scene."""
    found = caption_log_probabilities(scorer, prompt, take_images(scene, held_out_cameras(VIEWS, SIZE)))
    return {
        "probability": float(found.exp().mean()),
        "log_probability": float(found.mean()),
        "consistency": view_consistency(scene),
    }


def quality_of(path: Path, prompt: str, scorer: WorldScorer) -> dict[str, float]:
    """Quality of an exported file."""
    asset, cameras = read_asset(path), held_out_cameras(QUALITY_VIEWS, QUALITY_SIZE)
    found = caption_log_probabilities(scorer, prompt, render_asset(asset, cameras, "lit"))
    own = render_asset(asset, cameras, "unlit")
    white = torch.ones(len(cameras), 3)
    psnr = [_psnr(render_mesh(truth, cameras, white, supersample=2).rgb, own) for truth in true_objects(prompt, TRUTHS)]
    return {
        "lit_probability": float(found.exp().mean()),
        "lit_log_probability": float(found.mean()),
        "psnr": max(psnr),
    }


def _psnr(one: Float[Tensor, "b 3 h w"], other: Float[Tensor, "b 3 h w"]) -> float:
    """Mean over the images, in dB."""
    return float((-10 * (one - other).square().mean((1, 2, 3)).log10()).mean())


def run(config: RunConfig, prior: Prior, scorer: WorldScorer) -> Row:
    """Make a run to its end in a temporary folder; returns its scores and its quality."""
    scores: dict[str, dict[str, float]] = {}

    def watch(stage: Stage) -> None:
        fraction = stage.total / STEPS
        if fraction in MARKS or fraction == 1:
            scores[f"{fraction:.3f}"] = scores_of(stage.representation, config.prompt, scorer)

    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        generate(config, out, watch=watch, prior=prior)
        write_audit(out)
        return {
            "prompt": config.prompt,
            "seed": config.seed,
            "scores": scores,
            **quality_of(out / "asset" / "asset.glb", config.prompt, scorer),
            "audit_errors": (audit_of(out) or {})["errors"],
            "prior_calls": (summary_of(out) or {})["prior_calls"],
            "cpu_seconds": round(time.process_time() - start, 1),
        }


def chosen_quality(pool: Sequence[Row], way: Way, score: str, quality: str) -> float:
    """Mean quality of the run that is kept, over all subsets of a prompt's runs."""
    kept = [way.choose(each, SCORES[score])[quality] for each in combinations(pool, way.seeds)]
    return float(np.mean(kept))


def report(rows: Sequence[Row], command: str) -> str:
    """The results as Markdown."""
    by_prompt: dict[str, list[Row]] = {}
    for row in rows:
        by_prompt.setdefault(row["prompt"], []).append(row)
    pools = list(by_prompt.values())
    counts = sorted({len(pool) for pool in pools})
    cpu = np.mean([row["cpu_seconds"] for row in rows])
    machine = f"{platform.machine()}, {os.cpu_count()} cores (1 thread, shared), torch {torch.__version__}"
    titles = [title for title, _ in QUALITIES.values()]
    lines = [
        "# Races between seeds against whole runs at equal prior calls",
        "",
        f"`{command}`, {date.today().isoformat()}, {machine}, {cpu:.1f} CPU s per run. {len(pools)} prompts, "
        f"{' or '.join(map(str, counts))} seeds each, prior `tiny`, {STEPS} steps of Gaussians at 64 px, unrefined.",
        "",
        f"Quality of the file that is kept by the race's score ({RACE_SCORE}); in brackets the difference to one run, "
        "with its 95 % interval over the prompts.",
        "",
        f"| way | prior calls, in runs | {' | '.join(titles)} |",
        "|---" * (2 + len(titles)) + "|",
        *(f"| {way.title} | {way.cost:.3g} | {' | '.join(_with_differences(pools, way))} |" for way in WAYS),
        f"| better of 2 whole runs, by the quality itself (bound) | 2 | {' | '.join(_bounds(pools))} |",
        "",
        f"Standard deviation of the race's score within a prompt: {', '.join(_spreads(pools))}.",
        "",
        "Difference to the better of two whole runs, which is chosen by the same score, at equal prior calls:",
        "",
        f"| way | score | {' | '.join(titles)} |",
        "|---" * (2 + len(titles)) + "|",
    ]
    for way in (each for each in WAYS if isclose(each.cost, TWO.cost) and each is not TWO):
        lines += [f"| {way.title} | {score} | {' | '.join(_differences(pools, way, TWO, score))} |" for score in SCORES]
    lines += [
        "",
        "Rank correlation (Spearman), within a prompt, of a score with the quality of the file; mean over the prompts:",
        "",
        f"| score | after | {' | '.join(titles)} |",
        "|---" * (2 + len(titles)) + "|",
    ]
    for score in SCORES:
        for fraction in (*MARKS, 1.0):
            lines.append(f"| {score} | {fraction:.0%} | {' | '.join(_correlations(pools, score, fraction))} |")
    return "\n".join([*lines, ""])


def _with_differences(pools: Sequence[Sequence[Row]], way: Way) -> list[str]:
    means = [
        f"{np.mean([chosen_quality(pool, way, RACE_SCORE, quality) for pool in pools]):.{digits}f}"
        for quality, (_, digits) in QUALITIES.items()
    ]
    if way is ONE:
        return means
    return [f"{mean} ({cell})" for mean, cell in zip(means, _differences(pools, way, ONE, RACE_SCORE), strict=True)]


def _bounds(pools: Sequence[Sequence[Row]]) -> list[str]:
    """Means of the better of two files, if one knew their quality."""

    def of(pool: Sequence[Row], name: str) -> float:
        return float(np.mean([max(row[name] for row in pair) for pair in combinations(pool, 2)]))

    return [f"{np.mean([of(pool, name) for pool in pools]):.{digits}f}" for name, (_, digits) in QUALITIES.items()]


def _spreads(pools: Sequence[Sequence[Row]]) -> list[str]:
    """Standard deviations of the race's score after every mark, over the seeds, and means over the prompts."""
    of = SCORES[RACE_SCORE]
    return [
        f"{np.mean([np.std([of(row['scores'][f'{fraction:.3f}']) for row in pool], ddof=1) for pool in pools]):.3f} "
        f"after {fraction:.0%}"
        for fraction in (*MARKS, 1.0)
    ]


def _differences(pools: Sequence[Sequence[Row]], way: Way, other: Way, score: str) -> list[str]:
    def of(pool: Sequence[Row], quality: str) -> float:
        return chosen_quality(pool, way, score, quality) - chosen_quality(pool, other, score, quality)

    return [_cell(bootstrap([of(pool, name) for pool in pools]), digits) for name, (_, digits) in QUALITIES.items()]


def _correlations(pools: Sequence[Sequence[Row]], score: str, fraction: float) -> list[str]:
    def of(pool: Sequence[Row], quality: str) -> float:
        known = [SCORES[score](row["scores"][f"{fraction:.3f}"]) for row in pool]
        found: Any = spearmanr(known, [row[quality] for row in pool])
        return float(found.statistic)

    return [_cell(bootstrap([of(pool, name) for pool in pools]), 2) for name in QUALITIES]


def _cell(interval: Interval, digits: int) -> str:
    return f"{interval.mean:+.{digits}f}, {interval.low:+.{digits}f} to {interval.high:+.{digits}f}"


def main() -> None:
    """Make the runs that are missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rows", type=Path, default=Path(__file__).parent / "results" / "racing.jsonl")
    parser.add_argument("--no-runs", action="store_true", help="write the table of the rows that are there")
    given = parser.parse_args()
    rows = read_rows(given.rows)
    if not given.no_runs:
        torch.set_num_threads(1)
        numba.set_num_threads(1)
        scorer, prior = WorldScorer.load(), None
        done = {(row["prompt"], row["seed"]) for row in rows}
        for seed in range(given.seeds):
            for prompt in list(PROMPTS.values())[-given.prompts :]:
                if (prompt, seed) in done:
                    continue
                config = load_config("cpu", prompt=prompt, prior="tiny", seed=seed, overrides=SETTINGS)
                prior = prior or load_prior(config)
                rows.append(run(config, prior, scorer))
                append_row(given.rows, rows[-1])
                print(json.dumps(rows[-1]), flush=True)
    command = f"python benchmarks/racing.py --prompts {given.prompts} --seeds {given.seeds}"
    kept = [row for row in rows if row["seed"] < given.seeds]
    given.rows.with_suffix(".md").write_text(report(kept, command))


if __name__ == "__main__":
    main()
