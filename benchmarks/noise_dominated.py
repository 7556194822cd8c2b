"""Calls of the prior to a given quality where the noise dominates the variance of the gradient, by method.

    python benchmarks/noise_dominated.py [--rows NAME ...] [--methods NAME ...] [--tuning N] [--seeds N] [--table]

Gaussians are distilled from the prior `mixture`, whose best scene is known: quality is the PSNR to it over held-out
views. A row is a guidance scale and a spread of the prior's images, which sets how much of the variance is due to the
noise. Every method is run with several budgets of calls. Its learning rate falls to a tenth during a run, whatever the
budget. For each budget, the best two on a tuning seed are run on the reported seeds, and the better one counts. Runs
are appended to results/noise_dominated.jsonl, those in the file are not repeated, and results/noise_dominated.md is
written from the file.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from textwrap import fill
from typing import Any

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import torch
from kept_runs import KeptRuns
from scipy.stats import t as student_t

from steindreamer.distill.variance.probe import EstimatorVariance
from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.optimization.stage import Stage
from steindreamer.pipelines.runs.pipeline import Pipeline
from steindreamer.world.truth import held_out_psnr

RESULTS = Path(__file__).parent / "results"
RUNS, TABLE = RESULTS / "noise_dominated.jsonl", RESULTS / "noise_dominated.md"
SIZE = 16
"""Pixels per side of the prior's images; twice as many are rendered."""
STEPS = 160
"""Steps of SDS with the full budget, one view each."""
BUDGETS = (0.35, 0.6, 1.0)
"""Fractions of the full budget of calls."""
RATES = (4.0, 8.0, 16.0)
"""Factors on the learning rates at the start of a run."""
PROMPTS = ("a red mug", "a yellow duck", "a brown chair")
CLAIM = 0.6
"""Fraction of SDS's calls in which SSD is expected to reach SDS's quality."""
TUPLES = 40
"""Draws of a probe."""


@dataclass(frozen=True)
class Row:
    """A distribution of the gradient's variance."""

    guidance: float
    spread: float

    @property
    def name(self) -> str:
        return f"CFG {self.guidance:g}, spread {self.spread:g}"


CONTRAST = 0.1
"""Contrast of the prior's textures over its spread; the default of both."""
ROWS = {
    row.name: row
    for row in (
        *(Row(scale, 2.0) for scale in (1.0, 7.5, 30.0, 100.0)),
        *(Row(7.5, spread) for spread in (0.5, 1.0)),
    )
}


@dataclass(frozen=True)
class Way:
    """How a method spends its calls."""

    method: str
    settings: tuple[str, ...] = ()
    draws: int = 1
    """Predictions of a step, in units of SDS's."""
    rates: tuple[float, ...] = RATES


METHODS = {
    "SDS": Way("sds"),
    "SSD (`spectral`)": Way("ssd"),
    "SSD (`spectral`, `low_rank`)": Way("ssd", ("method.control_variates.terms=[spectral,low_rank]",)),
    "SSD (`spectral`, `learned`)": Way("ssd", ("method.control_variates.terms=[spectral,learned]",)),
    "antithetic pairs": Way("sds", ("method.antithetic=true",), draws=2),
    "SDS, reuse 4": Way("sds", ("stages.coarse.reuse=4",), rates=(1.0, 2.0, 4.0)),
}
REFERENCE, DEFAULT = "SDS", "SSD (`spectral`)"


@dataclass(frozen=True)
class Key:
    """What determines a run."""

    row: str
    method: str
    budget: float
    rate: float
    seed: int
    steps: int


def build(key: Key) -> Stage:
    """The coarse stage of a run."""
    way, row = METHODS[key.method], ROWS[key.row]
    config = load_config(
        None,
        representation="gaussians",
        method=way.method,
        prior="mixture",
        prompt=PROMPTS[key.seed % len(PROMPTS)],
        seed=key.seed,
        refine=False,
        overrides=[
            f"prior.spread={row.spread}",
            f"prior.contrast={CONTRAST * row.spread}",
            f"prior.image_size={SIZE}",
            f"prior.seed={key.seed}",
            f"method.guidance_scale={row.guidance}",
            "representation.count=1000",
            f"stages.coarse.steps={round(key.steps * key.budget / way.draws)}",
            f"stages.coarse.rates={{from: {key.rate}, to: {key.rate / 10}}}",
            f"stages.coarse.resolution={2 * SIZE}",
            "stages.coarse.warmup=0",
            "stages.coarse.views.per_step=1",
            "stages.coarse.probe_every=0",
            *way.settings,
        ],
    )
    return Pipeline(config).first()


def quality(stage: Stage) -> float:
    """PSNR in dB to the best scene over held-out views."""
    return held_out_psnr(stage.representation, stage.embedding.base, views=8, size=2 * SIZE)


def noise_fraction(variance: EstimatorVariance) -> float:
    """Fraction of the variance of the gradient that reaches the scene that is due to the noise."""
    return variance.parameters.noise / variance.parameters.total


def run(key: Key, *, probe: bool) -> dict[str, Any]:
    """Train one scene; with `probe`, the variance of its method and of SDS is measured at three quarters."""
    way, stage = METHODS[key.method], build(key)
    seconds, found = 0.0, {}
    while stage.done < stage.config.steps:
        start = time.process_time()
        stage.step()
        seconds += time.process_time() - start
        if probe and stage.done == 3 * stage.config.steps // 4:
            measured = stage.probe({"own": stage.distiller}, TUPLES, torch.Generator().manual_seed(key.seed))
            sds, own = measured["sds"], measured["own"]
            found = {
                "noise_fraction": noise_fraction(sds),
                "within": own.parameters.noise / sds.parameters.noise,
                "total": own.parameters.total / sds.parameters.total,
            }
    calls = stage.done * way.draws * (1 if ROWS[key.row].guidance == 1 else 2)
    hardware = f"{platform.machine()}, {os.cpu_count()} cores (1 thread), torch {torch.__version__}"
    return {
        "date": str(datetime.date.today()),
        "hardware": hardware,
        **asdict(key),
        "calls": calls,
        "cpu_seconds": round(seconds, 2),
        "psnr": round(quality(stage), 3),
        **{name: round(value, 4) for name, value in found.items()},
    }


class Runs(KeptRuns[Key]):
    """The runs of this benchmark."""

    def __init__(self, path: Path, *, frozen: bool = False) -> None:
        names = Key.__dataclass_fields__
        super().__init__(path, lambda record: Key(**{name: record[name] for name in names}), frozen=frozen)

    def __call__(self, key: Key, *, probe: bool = False) -> dict[str, Any]:
        return self.kept(key, lambda: run(key, probe=probe), lambda found: not probe or "within" in found)


@dataclass(frozen=True)
class Tuned:
    """The runs of one method in one row, at the best rate of each budget."""

    rates: dict[float, float]
    """By budget."""
    compared: dict[float, int]
    """By budget: number of rates that were run on the reporting seeds."""
    runs: dict[float, list[dict[str, Any]]]
    """By budget, one for each reporting seed."""
    probed: list[dict[str, Any]]
    """Runs with the full budget whose variance was measured, one for each reporting seed."""

    def probe(self, name: str) -> float:
        """Mean of a measured variance."""
        return mean(each[name] for each in self.probed)

    def psnr(self, budget: float) -> list[float]:
        """By seed, with at most this budget: a method need not spend all of it."""
        curves = [[each["psnr"] for each in self.runs[lower]] for lower in BUDGETS if lower <= budget]
        return max(curves, key=mean)


def tuned(
    runs: Runs,
    row: str,
    method: str,
    tuning: Sequence[int],
    seeds: Sequence[int],
    steps: int,
    rates: Sequence[float] | None,
) -> Tuned:
    """Choose the rate of every budget among `rates`, or those of the method, by runs on the reporting seeds."""
    best, compared, found = {}, {}, {}
    probed: list[dict[str, Any]] = []
    rates = rates or METHODS[method].rates
    for budget in BUDGETS:

        def key(rate: float, seed: int, budget: float = budget) -> Key:
            return Key(row, method, budget, rate, seed, steps)

        trial = {rate: mean(runs(key(rate, seed))["psnr"] for seed in tuning) for rate in rates}
        first, *others = sorted(trial, key=trial.__getitem__, reverse=True)
        probed = [runs(key(first, seed), probe=budget == 1.0) for seed in seeds]
        if not runs.frozen:
            for rate in others[:1]:
                _ = [runs(key(rate, seed)) for seed in seeds]
        finalists = [rate for rate in rates if all(key(rate, seed) in runs.known for seed in seeds)]
        found_by_rate = {rate: [runs.known[key(rate, seed)] for seed in seeds] for rate in finalists}
        compared[budget] = len(finalists)
        best[budget] = max(finalists, key=lambda rate: mean(each["psnr"] for each in found_by_rate[rate]))
        found[budget] = found_by_rate[best[budget]]
    return Tuned(best, compared, found, probed)


def calls_to(quality: float, curve: Mapping[float, float]) -> float:
    """Fraction of the budget at which a curve of quality by budget reaches a value; inf if it does not.

    Linear between the budgets in their logarithm; the smallest budget if that is enough already.
    """
    budgets = sorted(curve)
    if curve[budgets[0]] >= quality:
        return budgets[0]
    for low, high in pairwise(budgets):
        if curve[high] >= quality:
            fraction = (quality - curve[low]) / (curve[high] - curve[low])
            return math.exp(math.log(low) + fraction * math.log(high / low))
    return math.inf


def difference(values: Sequence[float], reference: Sequence[float]) -> str:
    """Mean difference of paired values with its 95% interval."""
    found = [a - b for a, b in zip(values, reference, strict=True)]
    return f"{mean(found):+.2f} ± {interval(found):.2f}"


def interval(values: Sequence[float]) -> float:
    """Half of the 95% confidence interval of the mean; nan for one value."""
    if len(values) < 2:
        return math.nan
    return float(student_t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


def ordered(results: Mapping[str, Mapping[str, Tuned]]) -> list[tuple[str, Mapping[str, Tuned]]]:
    """The rows by the noise's fraction of SDS's variance."""
    return sorted(results.items(), key=lambda item: noise_of(item[1]))


def reached(found: Tuned, reference: Tuned) -> str:
    """Fraction of the calls to the reference's final quality: of the mean over the seeds, and its range over them."""
    whole = calls_to(mean(reference.psnr(1.0)), {budget: mean(found.psnr(budget)) for budget in BUDGETS})
    by_seed = [
        calls_to(reference.psnr(1.0)[i], {budget: found.psnr(budget)[i] for budget in BUDGETS})
        for i in range(len(reference.psnr(1.0)))
    ]
    return f"{_percent(whole)} ({_percent(min(by_seed))} to {_percent(max(by_seed))})"


def table(results: Mapping[str, Mapping[str, Tuned]]) -> Iterator[str]:
    """Lines of a Markdown table of all methods."""
    budgets = ", ".join(f"{budget:.0%}" for budget in BUDGETS)
    yield (
        "| prior | method | within/SDS per call | total/SDS per call | rates | "
        f"PSNR at {budgets} of the calls | gain at 100%, dB | "
        "calls to SDS's final quality | CPU s at 100% |"
    )
    yield "|---" * 9 + "|"
    for row, methods in ordered(results):
        reference = methods[REFERENCE]
        for method, found in methods.items():
            full = found.runs[1.0]
            cells = [
                row,
                method,
                f"{METHODS[method].draws * found.probe('within'):.2f}",
                f"{METHODS[method].draws * found.probe('total'):.2f}",
                ", ".join(
                    f"{rate:g}" + (f" ({found.compared[budget]})" if found.compared[budget] > 1 else "")
                    for budget, rate in found.rates.items()
                ),
                ", ".join(f"{mean(found.psnr(budget)):.2f}" for budget in BUDGETS),
                "" if method == REFERENCE else difference(found.psnr(1.0), reference.psnr(1.0)),
                reached(found, reference),
                f"{mean(each['cpu_seconds'] for each in full):.1f}",
            ]
            yield f"| {' | '.join(cells)} |"


def noise_of(methods: Mapping[str, Tuned]) -> float:
    """The noise's fraction of the variance of SDS in a row, mean over the seeds."""
    return methods[REFERENCE].probe("noise_fraction")


def verdicts(results: Mapping[str, Mapping[str, Tuned]]) -> Iterator[str]:
    """Lines of a Markdown table: what the default SSD gains for a fraction of the noise."""
    yield (
        "| noise fraction | prior | gain of SSD, dB | calls to SDS's final quality | bound | "
        f"PSNR at {CLAIM:.0%} of the calls less SDS's final one, dB | reached in {CLAIM:.0%} |"
    )
    yield "|---" * 7 + "|"
    for row, methods in ordered(results):
        if DEFAULT in methods:
            own, sds = methods[DEFAULT], methods[REFERENCE]
            cells = [
                f"{noise_of(methods):.2f}",
                row,
                difference(own.psnr(1.0), sds.psnr(1.0)),
                reached(own, sds),
                f"{own.probe('total'):.0%}",
                difference(own.psnr(CLAIM), sds.psnr(1.0)),
                "yes" if mean(own.psnr(CLAIM)) >= mean(sds.psnr(1.0)) else "no",
            ]
            yield f"| {' | '.join(cells)} |"


def report(results: Mapping[str, Mapping[str, Tuned]], runs: Iterable[Mapping[str, Any]], command: str) -> str:
    """The page."""
    runs = list(runs)
    seconds, hardware = sum(each["cpu_seconds"] for each in runs), sorted({each["hardware"] for each in runs})
    dates = [each["date"] for each in runs]
    when = " to ".join(sorted({min(dates), max(dates)}))
    count = len(next(iter(next(iter(results.values())).values())).runs[BUDGETS[-1]])
    about = f"""
        Gaussians from the prior `mixture` at {SIZE} px, coarse stage only, one view a step, {STEPS} steps of SDS at
        100%. Quality is the PSNR to the best scene over eight held-out views. The rates fall to a tenth during a run.
        For each method and budget, the best of {", ".join(f"{rate:g}" for rate in RATES)} (with reuse of 1, 2, 4) on
        another seed is run on the {count} seeds that are reported; where a 2 in brackets follows the rate, the second
        best was run on them too, and the better one counts. Every seed has its own object, prior and noise. A budget
        that yields less than a smaller one counts as that one. All methods have equal calls: antithetic pairs take half
        the steps. The noise fraction is that of SDS's gradient at three quarters of its run, as `pipelines/probe.py`
        measures it; within/SDS per call is the variance over the noise relative to SDS, doubled for pairs, and
        total/SDS per call includes cameras and timesteps, both at the method's own scene. If variance alone limited a
        run, calls would fall to total/SDS per call: that is the bound. ± is the 95% interval over the seeds, of
        differences between runs of the same seed. Calls to SDS's final quality are interpolated between the budgets, in
        brackets the range over the seeds; `<` and `>` are the ends of the budgets. This prior is nearly Gaussian, which
        flatters antithetic pairs.
    """
    lines = [
        "# Calls to a given quality where the noise dominates",
        "",
        f"{when}, {'; '.join(hardware)}; {len(runs)} runs, {seconds:.0f} s of CPU time for their steps. `{command}`.",
        "",
        fill(" ".join(about.split()), 120),
        "",
        "## Noise fraction and gain",
        "",
        *verdicts(results),
        "",
        "## All methods",
        "",
        *table(results),
        "",
    ]
    return "\n".join(lines)


def _percent(fraction: float) -> str:
    if fraction <= BUDGETS[0]:
        return f"< {fraction:.0%}"
    return f"{fraction:.0%}" if math.isfinite(fraction) else "> 100%"


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--tuning", type=int, default=1, help="number of seeds on which the rates are chosen")
    parser.add_argument("--seeds", type=int, default=3, help="number of other seeds, which are reported")
    parser.add_argument("--steps", type=int, default=STEPS, help="of SDS, with the full budget")
    parser.add_argument("--rates", type=float, nargs="+", help="default: those of each method")
    parser.add_argument("--table", action="store_true", help="only tabulate the methods whose runs are in the file")
    parser.add_argument("--runs", type=Path, default=RUNS, metavar="JSONL")
    parser.add_argument("--result", type=Path, default=TABLE, metavar="MD")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    runs = Runs(given.runs, frozen=given.table)
    results: dict[str, dict[str, Tuned]] = {}
    tuning, seeds = range(given.tuning), range(given.tuning, given.tuning + given.seeds)
    for row in given.rows:
        for method in dict.fromkeys([REFERENCE, *given.methods]):
            try:
                found = tuned(runs, row, method, tuning, seeds, given.steps, given.rates)
            except KeyError:
                if not given.table:
                    raise
                if method == REFERENCE:
                    break
                continue
            results.setdefault(row, {})[method] = found
            command = f"python benchmarks/noise_dominated.py --tuning {given.tuning} --seeds {given.seeds}"
            given.result.write_text(report(results, runs.known.values(), command), encoding="utf-8")


if __name__ == "__main__":
    main()
