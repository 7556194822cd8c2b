"""Cost of the live view: the same run without it, with it, and with a browser whose camera rests or moves.

    python benchmarks/live_view.py [--steps 800] [--repetitions 3] [--cores 0 1] [--out benchmarks/results/live_view.md]

Each run is a process of its own with one thread on the first core, and contains the server of the view. The browser,
which draws by software, is on the second core. Seconds are those between the first and the last step, so that imports
and compilation do not count; CPU seconds are those of all threads of the run's process. The conditions alternate.
Needs Linux, two cores, and Chromium on the PATH.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import steindreamer.passive_waiting  # noqa: F401 isort:skip

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
CONDITIONS = ("no view", "view, no browser", "browser at rest", "camera moved every second")
LOOKING = CONDITIONS[2:]
"""Conditions with a browser."""
MOVE_SECONDS = 1.0
"""Time between two movements of the camera."""


def run(condition: str, steps: int, folder: Path) -> None:
    """The process of one run: prints its address, waits for its browser, and prints the cost of its steps."""
    from contextlib import nullcontext

    from steindreamer.pipelines import load_config
    from steindreamer.pipelines.live.view import LiveView
    from steindreamer.pipelines.optimization.stage import Stage
    from steindreamer.pipelines.runs.runner import generate
    from steindreamer.pipelines.runs.watching import Wish

    overrides = [f"stages.coarse.steps={steps}", "output.preview_every=0", "output.turntable_frames=0"]
    settings = load_config("cpu", prompt="a red mug", refine=False, overrides=[*overrides, "export.enabled=false"])
    times: list[tuple[float, ...]] = []
    inside = 0.0
    with nullcontext() if condition == CONDITIONS[0] else LiveView("a red mug", folder=folder) as view:
        print(view.url if view else "", flush=True)

        def watch(stage: Stage) -> Wish | None:
            nonlocal inside
            begun = time.perf_counter()
            wish = view(stage) if view else None
            inside += time.perf_counter() - begun
            clients = view.server.get_clients().values() if view else ()
            has_browser = any(each.camera.update_timestamp for each in clients)
            if condition in LOOKING and stage.total == 0 and not has_browser:
                time.sleep(0.05)
                return Wish.WAIT
            if stage.total in (1, steps):  # the first step compiles
                cpu = time.process_time()
                times.append((cpu, time.perf_counter(), inside, cpu - time.thread_time()))
            return wish

        generate(settings, folder, watch=watch)
    print(json.dumps([end - begin for begin, end in zip(*times, strict=True)]), flush=True)


@contextmanager
def _browser(url: str) -> Iterator[Callable[[int], None]]:
    """A browser on the page; yields a function that drags the mouse from side to side."""
    from browser import browser

    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as page:
        page.open(url, 900, 600)

        def drag(number: int) -> None:
            start, end = (250, 350) if number % 2 else (350, 250)
            for kind, x in (("mousePressed", start), ("mouseMoved", end), ("mouseReleased", end)):
                page.call("Input.dispatchMouseEvent", type=kind, x=x, y=300, button="left", buttons=1, clickCount=1)

        yield drag


def measure(condition: str, steps: int, cores: Sequence[int]) -> list[float]:
    """Seconds of one run's steps: CPU, wall, inside the view, CPU of all threads but the run's."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, "--run", condition, "--steps", str(steps), "--out", f"{folder}/run"]
        single = {name: "1" for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS")}
        pinned = ["taskset", "-c", str(cores[0]), *words]
        with subprocess.Popen(
            pinned, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ | single
        ) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if condition in LOOKING:
                with _browser(url) as drag:
                    for number in itertools.count():
                        if process.poll() is not None:
                            break
                        if condition == LOOKING[1]:
                            drag(number)
                        time.sleep(MOVE_SECONDS)
            return json.loads(process.stdout.read().strip().splitlines()[-1])


def report(found: dict[str, list[list[float]]], steps: int) -> str:
    """The results as Markdown."""
    base = [statistics.median(values) for values in zip(*found[CONDITIONS[0]], strict=True)]
    lines = [
        "# Cost of the live view",
        "",
        f"`python benchmarks/live_view.py`, {date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f} at the end. {steps} steps of the coarse stage of `configs/cpu.yaml` with one "
        f"thread on one core, the browser on another one; {len(found[CONDITIONS[0]])} alternating repetitions. Seconds "
        "of the run's process: medians with the smallest and the largest, and the medians relative to no view. The "
        "own time of the view is that inside its calls, relative to the other wall seconds, plus the CPU time of its "
        "server, relative to the other CPU seconds.",
        "",
        "| condition | CPU seconds | | wall seconds | | in the view | its server | own time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    idle = base[3]
    for name, values in found.items():
        cells = list[str]()
        middles = [statistics.median(seconds) for seconds in zip(*values, strict=True)]
        for seconds, middle, reference in list(zip(zip(*values, strict=True), middles, base, strict=True))[:2]:
            cells += [f"{middle:.2f} ({min(seconds):.2f} to {max(seconds):.2f})", f"{middle / reference - 1:+.1%}"]
        inside, server = middles[2], max(0.0, middles[3] - idle)
        cells += [
            f"{inside:.2f}",
            f"{server:.2f}",
            f"{inside / (middles[1] - inside) + server / (middles[0] - server):.1%}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--cores", type=int, nargs=2, default=(0, 1), metavar=("RUN", "BROWSER"))
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "live_view.md")
    parser.add_argument("--run", choices=CONDITIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(options.run, options.steps, options.out)
        return
    os.sched_setaffinity(0, {options.cores[1]})  # the browser inherits it
    found: dict[str, list[list[float]]] = {name: [] for name in CONDITIONS}
    for number in range(options.repetitions):
        order = CONDITIONS if number % 2 == 0 else CONDITIONS[::-1]
        for name in order:
            found[name].append(measure(name, options.steps, options.cores))
            print(number + 1, name, found[name][-1], flush=True)
        options.out.write_text(report(found, options.steps) if all(found.values()) else "")


if __name__ == "__main__":
    main()
