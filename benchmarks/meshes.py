"""Differentiable images of a mesh: the compiled CPU backend against its torch reference implementation.

    python benchmarks/meshes.py [--repeats N]

Scene: a bumpy sphere from marching cubes with vertex colors, seen from 3 m; rgb, opacity, depth and normals,
antialiased, one image, gradients in vertices and colors; the edges are found anew every time, as for a mesh whose
topology changes every step. Reported are the smallest wall time of several runs, and the median of the process's CPU
time over the number of threads: what the wall time would be if nobody else used the machine and the work split evenly.
Writes benchmarks/results/meshes.md.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import numba
import numpy as np
import torch
from skimage.measure import marching_cubes
from splatting import hardware

from steindreamer.representations import Cameras, TriangleMesh
from steindreamer.representations.mesh.render import draw_mesh

SIZES = (128, 256, 512)
GRIDS = (29, 80)
"""Cells per axis: about 5,000 and 40,000 faces."""
HEADING = """\
| pixels | faces | cpu wall, ms | cpu time / threads, ms | reference wall, ms | reference time / threads, ms |
|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Times:
    """Forward and backward milliseconds."""

    wall: tuple[float, float]
    cpu: tuple[float, float]

    def cells(self) -> str:
        return " | ".join(f"{forward:.1f} / {backward:.1f}" for forward, backward in (self.wall, self.cpu))


def bumpy_sphere(cells: int) -> TriangleMesh:
    axis = np.linspace(-1, 1, cells)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    distance = np.sqrt(x * x + y * y + z * z) - 0.8 * (1 + 0.1 * np.sin(9 * x) * np.sin(7 * y) * np.sin(8 * z))
    vertices, faces, _, _ = marching_cubes(distance, 0.0, spacing=(2 / (cells - 1),) * 3)
    vertices = torch.from_numpy(vertices).float() - 1
    return TriangleMesh(vertices, torch.from_numpy(faces.copy()).long(), colors=0.5 + 0.5 * vertices)


def measure(mesh: TriangleMesh, size: int, backend: str, repeats: int) -> Times:
    camera, background = Cameras.orbit([20.0], [10.0], distance=3.0, height=size), torch.ones(1, 3)
    assert mesh.colors is not None
    leaves = [tensor.clone().requires_grad_() for tensor in (mesh.vertices, mesh.colors)]
    rows = []
    for _ in range(repeats + 1):
        clocks = [(time.perf_counter(), time.process_time())]
        drawn = TriangleMesh(leaves[0], mesh.faces, colors=leaves[1])
        out = draw_mesh(drawn, camera, background, backend=backend)
        clocks.append((time.perf_counter(), time.process_time()))
        images = [out.rgb, out.opacity, out.depth, out.normal]
        torch.autograd.backward(images, [torch.ones_like(image) for image in images])
        clocks.append((time.perf_counter(), time.process_time()))
        rows.append(1e3 * np.diff(np.array(clocks), axis=0))
    (wall_forward, cpu_forward), (wall_backward, cpu_backward) = np.array(rows[1:]).transpose(1, 2, 0)
    threads = numba.get_num_threads()
    cpu = (statistics.median(cpu_forward) / threads, statistics.median(cpu_backward) / threads)
    return Times((min(wall_forward), min(wall_backward)), cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=40)
    repeats = parser.parse_args().repeats
    lines = [HEADING]
    machine = hardware()
    for size in SIZES:
        for grid in GRIDS:
            mesh = bumpy_sphere(grid)
            cpu = measure(mesh, size, "cpu", repeats)
            reference = measure(mesh, size, "torch", max(repeats // 10, 3))
            lines.append(f"| {size} | {len(mesh.faces):,} | {cpu.cells()} | {reference.cells()} |")
            print(lines[-1], flush=True)
    text = "\n".join(lines)
    when = datetime.now(UTC).date().isoformat()
    head = f"# Differentiable meshes on the CPU, forward / backward\n\n{when}; {machine}.\n\n"
    explained = "\n\nWall: smallest of several runs. Time / threads: median process CPU time over the threads.\n"
    command = "`python benchmarks/meshes.py` draws a bumpy sphere with antialiasing; see the script.\n"
    (Path(__file__).parent / "results" / "meshes.md").write_text(head + text + explained + command)


if __name__ == "__main__":
    main()
