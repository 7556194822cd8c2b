"""The compiled CPU rasterizer against its torch reference implementation: forward and backward time of one image.

    python benchmarks/splatting.py [--quick] [--repeats N] [--threads N]

Scene: N Gaussians in a ball of radius 0.8 seen from 3 m, as wide as 0.6 of their spacing, so that every pixel meets 50
to 150 of them whatever N is. Reported is the smallest time of several runs after a warm-up (compilation excluded); of
the reference, of three.
Writes benchmarks/results/splatting.json and splatting.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import numba
import torch
from torch import Tensor

from steindreamer.representations import Cameras
from steindreamer.representations.gaussians.splatting import splat

RESULTS = Path(__file__).parent / "results"
SIZES = (64, 128, 256)
COUNTS = (2_000, 10_000, 50_000)
REFERENCE_REPEATS = 3


@dataclass(frozen=True)
class Row:
    size: int
    count: int
    cpu_forward_ms: float
    cpu_backward_ms: float
    reference_forward_ms: float
    reference_backward_ms: float

    @property
    def speedup(self) -> float:
        return (self.reference_forward_ms + self.reference_backward_ms) / (self.cpu_forward_ms + self.cpu_backward_ms)


def scene(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)
    means = 0.8 * directions * torch.rand(count, 1, generator=generator) ** (1 / 3)
    spacing = 0.8 * (4 / 3 * math.pi / count) ** (1 / 3)
    scales = 0.6 * spacing * torch.exp(0.5 * torch.randn(count, 3, generator=generator))
    opacities = torch.sigmoid(torch.randn(count, generator=generator))
    colors = torch.rand(count, 3, generator=generator)
    inputs = [means, torch.randn(count, 4, generator=generator), scales, opacities, colors]
    return [tensor.requires_grad_() for tensor in inputs]


def measure(count: int, size: int, backend: str, repeats: int) -> tuple[float, float]:
    """Smallest forward and backward milliseconds."""
    inputs = scene(count)
    means, quaternions, scales, opacities, colors = inputs
    cameras = Cameras.orbit([20.0], [10.0], distance=3.0, height=size)

    def forward() -> Tensor:
        output = splat(means, quaternions, scales, opacities, colors, cameras, backend=backend)
        return torch.cat([output.rgb, output.depth, output.normal, output.opacity], 1)

    forward_ms, backward_ms = [], []
    for _ in range(repeats):
        elapsed, image = _timed(forward)
        forward_ms.append(elapsed)
        backward_ms.append(_timed(lambda image=image: image.backward(torch.ones_like(image)))[0])
    return min(forward_ms), min(backward_ms)


def _timed(function: Callable[[], Tensor | None]) -> tuple[float, Tensor]:
    start = time.perf_counter()
    result = function()
    elapsed = 1e3 * (time.perf_counter() - start)
    return elapsed, torch.empty(0) if result is None else result


def run(sizes: tuple[int, ...], counts: tuple[int, ...], repeats: int) -> list[Row]:
    measure(100, 32, "cpu", 1)
    rows = []
    for size in sizes:
        for count in counts:
            cpu = measure(count, size, "cpu", repeats)
            reference = measure(count, size, "torch", min(repeats, REFERENCE_REPEATS))
            rows.append(Row(size, count, *cpu, *reference))
            print(markdown_row(rows[-1]), flush=True)
    return rows


def markdown_row(row: Row) -> str:
    reference = f"{row.reference_forward_ms:.0f} / {row.reference_backward_ms:.0f}"
    cpu = f"{row.cpu_forward_ms:.1f} / {row.cpu_backward_ms:.1f}"
    return f"| {row.size} | {row.count:,} | {cpu} | {reference} | {row.speedup:.0f}x |"


def hardware() -> str:
    names = [
        line.split(":")[1].strip() for line in _read("/proc/cpuinfo").splitlines() if line.startswith("model name")
    ]
    name = names[0] if names else platform.processor() or platform.machine()
    load = f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    threads = f"{numba.get_num_threads()} threads of {os.cpu_count()} cores"
    return f"{name}, {threads}{load}, torch {torch.__version__}, numba {numba.__version__}"


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).exists() else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="64 and 128 pixels, 2,000 and 10,000 Gaussians only")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--threads", type=int, default=numba.get_num_threads())
    arguments = parser.parse_args()
    numba.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)

    when, machine = datetime.now(UTC).date().isoformat(), hardware()
    heading = [
        "| pixels | Gaussians | cpu forward / backward, ms | reference forward / backward, ms | speed-up |",
        "|---|---|---|---|---|",
    ]
    print("\n".join([machine, *heading]))
    rows = run(SIZES[:2], COUNTS[:2], arguments.repeats) if arguments.quick else run(SIZES, COUNTS, arguments.repeats)
    RESULTS.mkdir(exist_ok=True)
    document = {"date": when, "hardware": machine, "rows": [{**asdict(row), "speedup": row.speedup} for row in rows]}
    (RESULTS / "splatting.json").write_text(json.dumps(document, indent=1) + "\n")
    text = [
        "# CPU splatting against its torch reference",
        "",
        f"{when}; {machine}.",
        "",
        *heading,
        *map(markdown_row, rows),
    ]
    (RESULTS / "splatting.md").write_text("\n".join([*text, ""]))


if __name__ == "__main__":
    main()
