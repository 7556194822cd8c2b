"""The NeRF on the CPU: forward and backward time of one image, and its parts.

    python benchmarks/nerf.py [--repeats N] [--threads N]

Scene: the field as it starts, a soft ball of radius 0.5 in a box of side 2 (128 steps along its diagonal) seen from
3.2 m, after its occupancy grid has looked once. The loss is a sum over the colors ("colors") or also over the normals
and the regularizers along the rays ("everything"). `cpu` is the smallest process time of several runs, divided by the
number of threads: what a quiet machine would need; `wall` the smallest time on the clock. Compilation excluded. The
occupancy line is one look at all cells, due every 16 steps. Writes benchmarks/results/nerf.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import numba
import torch
from splatting import hardware
from torch import Tensor

from steindreamer.representations import Cameras
from steindreamer.representations.nerf.nerf import Nerf, NerfConfig

RESULTS = Path(__file__).parent / "results"
TARGET = "Aim at 64 pixels: forward and backward in at most 60 ms."


@dataclass(frozen=True)
class Row:
    what: str
    cpu_ms: float
    wall_ms: float


def build(encoding: Any, normals: Any, *, look: bool = True) -> Nerf:
    config = NerfConfig()
    config.radiance.encoding, config.radiance.normals = encoding, normals
    nerf = config.build(torch.Generator().manual_seed(0))
    if look:
        nerf.occupancy.update(nerf.radiance.density, torch.Generator().manual_seed(1))
    return nerf


def image(nerf: Nerf, size: int, *, everything: bool) -> Callable[[], None]:
    """One forward and backward pass."""
    cameras = Cameras.orbit([20.0], [10.0], height=size)

    def run() -> None:
        nerf.zero_grad(set_to_none=True)
        output = nerf.render(cameras, torch.zeros(1, 3))
        loss: Tensor = output.rgb.sum()
        if everything:
            loss = loss + output.normal.sum() + output.depth.sum() + torch.stack([*output.terms.values()]).sum()
        loss.backward()

    return run


def still(nerf: Nerf, size: int) -> Callable[[], None]:
    """One image without gradients."""
    cameras = Cameras.orbit([20.0], [10.0], height=size)

    @torch.no_grad()
    def run() -> None:
        nerf.render(cameras, torch.zeros(1, 3))

    return run


def measure(what: str, run: Callable[[], None], repeats: int, threads: int) -> Row:
    run()
    cpu, wall = [], []
    for _ in range(repeats):
        cpu_start, wall_start = time.process_time(), time.perf_counter()
        run()
        cpu.append(time.process_time() - cpu_start)
        wall.append(time.perf_counter() - wall_start)
    row = Row(what, 1e3 * min(cpu) / threads, 1e3 * min(wall))
    print(markdown_row(row), flush=True)
    return row


def markdown_row(row: Row) -> str:
    return f"| {row.what} | {row.cpu_ms:.0f} | {row.wall_ms:.0f} |"


def benchmark(repeats: int, threads: int) -> list[Row]:
    rows = []
    for size in (64, 128):
        for encoding, normals in (("hash", "analytic"), ("hash", "finite"), ("dense", "analytic")):
            for everything in (False, True):
                what = f"{size} px, {encoding} grid, {normals} normals, {'everything' if everything else 'colors'}"
                run = image(build(encoding, normals), size, everything=everything)
                rows.append(measure(what, run, repeats, threads))
    first = image(build("hash", "analytic", look=False), 64, everything=False)
    rows.append(measure("64 px, before the first look (nothing skipped), colors", first, repeats, threads))
    nerf, generator = build("hash", "analytic"), torch.Generator().manual_seed(2)

    def look() -> None:
        nerf.occupancy.update(nerf.radiance.density, generator)

    rows.append(measure("a look at all 64^3 cells", look, repeats, threads))
    rows.append(measure("256 px, no gradients", still(nerf, 256), repeats, threads))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=numba.get_num_threads())
    arguments = parser.parse_args()
    numba.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)

    heading = ["| what | cpu / threads, ms | wall, ms |", "|---|---|---|"]
    where = f"{datetime.now(UTC).date().isoformat()}; {hardware()}; `python benchmarks/nerf.py`."
    print("\n".join([where, *heading]))
    rows = benchmark(arguments.repeats, arguments.threads)
    RESULTS.mkdir(exist_ok=True)
    text = ["# NeRF on the CPU, forward and backward", "", where, "", TARGET, "", *heading, *map(markdown_row, rows)]
    (RESULTS / "nerf.md").write_text("\n".join([*text, ""]))


if __name__ == "__main__":
    main()
