"""Cost of the live view: the same run without it, with it, and with a browser whose camera rests or moves.

    python benchmarks/live_view.py [--steps 60] [--repetitions 5] [--out benchmarks/results/live_view.md]

Each run is a process of its own; its CPU seconds are those between the first and the last step, without its browser,
which is a process of this script. The conditions alternate. Needs Chromium on the PATH.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import steindreamer.passive_waiting  # noqa: F401 isort:skip

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))
CONDITIONS = ("no view", "view, no browser", "browser at rest", "browser, moving camera")


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
    times: list[tuple[float, float]] = []
    with nullcontext() if condition == CONDITIONS[0] else LiveView("a red mug", folder=folder) as view:
        print(view.url if view else "", flush=True)

        def watch(stage: Stage) -> Wish | None:
            wish = view(stage) if view else None
            clients = view.server.get_clients().values() if view else ()
            has_browser = any(each.camera.update_timestamp for each in clients)
            if condition in CONDITIONS[2:] and stage.total == 0 and not has_browser:
                time.sleep(0.05)
                return Wish.WAIT
            if stage.total in (1, steps):  # the first step compiles
                times.append((time.process_time(), time.perf_counter()))
            return wish

        generate(settings, folder, watch=watch)
    (cpu, wall), (cpu_end, wall_end) = times
    print(json.dumps([cpu_end - cpu, wall_end - wall]), flush=True)


@contextmanager
def _browser(url: str, moves: bool) -> Iterator[object]:
    """A browser on the page; yields a function that drags the mouse a little."""
    from browser import browser

    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as page:
        page.open(url, 900, 600)
        position = [200]

        def drag() -> None:
            if moves:
                position[0] = 200 + (position[0] - 190) % 300
                kind = "mousePressed" if position[0] == 210 else "mouseMoved"
                page.call("Input.dispatchMouseEvent", type=kind, x=position[0], y=300, button="left", buttons=1)

        yield drag


def measure(condition: str, steps: int) -> list[float]:
    """CPU and wall seconds of one run's steps."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, "--run", condition, "--steps", str(steps), "--out", f"{folder}/run"]
        with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            if condition in CONDITIONS[2:]:
                with _browser(url, condition == CONDITIONS[3]) as drag:
                    while process.poll() is None:
                        drag()  # pyright: ignore[reportCallIssue]
                        time.sleep(0.1)
            return json.loads(process.stdout.read().strip().splitlines()[-1])


def report(found: dict[str, list[list[float]]], steps: int) -> str:
    """The results as Markdown."""
    base = statistics.median(cpu for cpu, _ in found[CONDITIONS[0]])
    lines = [
        "# Cost of the live view",
        "",
        f"`python benchmarks/live_view.py`, {date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, "
        f"shared with other work (load {os.getloadavg()[0]:.1f} at the end). {steps} steps of the coarse stage of "
        f"`configs/cpu.yaml`, {len(found[CONDITIONS[0]])} alternating repetitions; CPU seconds of the run's process, "
        "medians with the smallest and the largest.",
        "",
        "| condition | CPU seconds | relative to no view | wall seconds |",
        "|---|---|---|---|",
    ]
    for name, values in found.items():
        cpu, wall = zip(*values, strict=True)
        middle = statistics.median(cpu)
        spread = f"{middle:.2f} ({min(cpu):.2f} to {max(cpu):.2f})"
        lines.append(f"| {name} | {spread} | {middle / base - 1:+.1%} | {statistics.median(wall):.1f} |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "live_view.md")
    parser.add_argument("--run", choices=CONDITIONS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run(options.run, options.steps, options.out)
        return
    found: dict[str, list[list[float]]] = {name: [] for name in CONDITIONS}
    for number in range(options.repetitions):
        order = CONDITIONS if number % 2 == 0 else CONDITIONS[::-1]
        for name in order:
            found[name].append(measure(name, options.steps))
            print(number + 1, name, found[name][-1], flush=True)
        options.out.write_text(report(found, options.steps) if all(found.values()) else "")


if __name__ == "__main__":
    main()
