"""Throughput of `steindreamer batch` with one and several workers, and the cost of an asset.

    python benchmarks/batch.py [--rows 8] [--workers 1 2] [--steps 40] [--out benchmarks/results/batch.md]

The rows are small runs of the world prior: fixed costs are a larger part of them than of usual runs. Every number of
workers starts in a new folder, with one CPU per run. CPU seconds are those of a single process: Ray's are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
OBJECTS = ("mug", "chair", "car", "boat", "lamp", "hat")
COLORS = ("red", "blue", "green", "yellow", "white")
SETTINGS = (
    "stages.coarse.resolution=24", "stages.coarse.warmup_resolution=24", "refine=false", "representation.count=400",
    "output.preview_every=0", "output.turntable_frames=0", "output.image_size=32", "prior.objects=1",
    "export.resolution=32", "export.cameras=16", "export.view_size=64", "export.texture_size=128",
    "export.face_budget=500", "export.lods=[1]", "export.hulls=0",
)  # fmt: skip


@dataclass(frozen=True)
class Measurement:
    """One batch."""

    workers: int
    seconds: float
    cpu_seconds: float
    finished: int


def prompts(rows: int) -> list[str]:
    """The prompts of a batch: at most 30, all different."""
    return [f"a {color} {name}" for color in COLORS for name in OBJECTS][:rows]


def measure(rows: int, workers: int, steps: int, folder: Path) -> Measurement:
    """Run a batch in a new folder."""
    file = folder / "prompts.txt"
    file.write_text("\n".join(prompts(rows)))
    out = folder / f"workers-{workers}"
    words = [*SETTINGS, f"stages.coarse.steps={steps}", "--prior", "world"]
    words += ["--workers", str(workers), "--cpus-per-run", "1"] if workers > 1 else []
    command = [sys.executable, str(ROOT / "pipelines" / "batch.py"), str(file), "--out", str(out), *words]
    start, used = time.perf_counter(), _cpu_seconds()
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"})
    finished = [json.loads(line) for line in (out / "batch.jsonl").read_text().splitlines()]
    return Measurement(workers, time.perf_counter() - start, _cpu_seconds() - used, len(finished))


def report(measurements: list[Measurement], steps: int) -> str:
    """The results as Markdown."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end"
    lines = [
        "# Throughput of a batch",
        "",
        f"`{shlex.join(['python', 'benchmarks/batch.py', *sys.argv[1:]])}`, {date.today().isoformat()}, {machine}. "
        f"Runs of {steps} steps at 24 px with the world prior, one thread per run.",
        "",
        "| workers | assets | seconds | assets per hour | CPU seconds per asset |",
        "|---|---|---|---|---|",
    ]
    for each in measurements:
        rate = 3600 * each.finished / each.seconds
        cost = f"{each.cpu_seconds / each.finished:.1f}" if each.workers == 1 else ""
        lines.append(f"| {each.workers} | {each.finished} | {each.seconds:.0f} | {rate:.0f} | {cost} |")
    return "\n".join([*lines, ""])


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "batch.md")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        warm = Path(folder) / "warm"
        warm.mkdir()
        measure(1, 1, 2, warm)  # compiles the kernels
        done = [measure(options.rows, workers, options.steps, Path(folder)) for workers in options.workers]
    options.out.write_text(report(done, options.steps))
    print(options.out.read_text())


if __name__ == "__main__":
    main()
