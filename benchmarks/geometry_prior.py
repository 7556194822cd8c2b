"""What a pull toward estimated geometry does to shape and views: the regularizers that ask the estimator, and the bias
of the control variate as SteinDreamer prints it.

    python benchmarks/geometry_prior.py [--steps 100] [--seeds 0 1] [--jobs 0] [--out runs/geometry_prior]

A comparison as `pipelines/compare.py` makes it, on objects that look different from all sides, against the world's true
objects. Writes benchmarks/results/geometry_prior.md; interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import torch

from steindreamer.pipelines.comparison.candidates import parse_candidates
from steindreamer.pipelines.comparison.comparison import Comparison, plan, run_all
from steindreamer.pipelines.comparison.intervals import Interval
from steindreamer.pipelines.comparison.results import DISTANCES, Quantity, Results, write_csv

RESULT = Path(__file__).parent / "results" / "geometry_prior.md"
PROMPTS = ("a yellow duck", "a red car", "a wooden chair")
WEIGHT = "stages.coarse.regularizers.estimated_"
CONTENDERS = (
    "sds",
    "ssd",
    "ssd-depth=ssd:method.control_variates.terms=[depth]",
    "ssd-depth-paper=ssd:method.control_variates.terms=[depth]:method.control_variates.variant=paper",
    *(f"sds-estimated_depth-{weight}=sds:{WEIGHT}depth={weight}" for weight in (12, 120)),
    *(f"sds-estimated_normal-{weight}=sds:{WEIGHT}normal={weight}" for weight in (12, 120)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/geometry_prior"))
    options = parser.parse_args()
    comparison = Comparison(
        candidates=parse_candidates(CONTENDERS),
        prompts=PROMPTS,
        seeds=tuple(options.seeds),
        # 64 pixels are a size that the shipped estimator was trained at.
        settings=(
            f"stages.coarse.steps={options.steps}",
            "stages.coarse.resolution=64",
            # The preset's, at this resolution.
            "stages.coarse.regularizers.normal_consistency=37",
            "stages.coarse.regularizers.normal_smoothness=123",
        ),
        representation="gaussians",
        prior="world",
        measurements=1,
        tuples=0,
    )
    results = Results(run_all(plan(comparison), options.out, options.jobs))
    write_csv(results, options.out)
    command = shlex.join(["python", "benchmarks/geometry_prior.py", *sys.argv[1:]])
    machine = f"{date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}"
    RESULT.write_text(f"# A pull toward estimated geometry\n\n{machine}; `{command}`\n\n{tables(results)}")


def tables(results: Results) -> str:
    """Means of the final distances over all runs, and their differences to the first method, in Markdown."""
    first = results.labels[0]
    return (
        f"Means over {len(results.of(first))} runs with 95 % intervals, which the differences of the objects make wide:"
        f"\n\n{_table(results.labels, results.final)}\n"
        f"Less `{first}` with the same prompt and seed:\n\n{_table(results.labels[1:], results.gain)}"
    )


def _table(labels: list[str], of: Callable[[str, Quantity], Interval]) -> str:
    lines = ["| method | " + " | ".join(each.title for each in DISTANCES.values()) + " |"]
    lines.append("|---" * (1 + len(DISTANCES)) + "|")
    lines += [
        f"| {label} | " + " | ".join(_cell(of(label, d.of)) for d in DISTANCES.values()) + " |" for label in labels
    ]
    return "\n".join(lines) + "\n"


def _cell(interval: Interval) -> str:
    return f"{interval.mean:.2f} ± {interval.high - interval.mean:.2f}"


if __name__ == "__main__":
    main()
