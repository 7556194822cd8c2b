"""Time per image of every representation with every backend that runs here, at the start of its training.

    python benchmarks/rendering.py [--device cpu|cuda] [--repeats N] [--sizes 128 512] [--threads N]

Each representation starts with its default settings and is seen from 3.2 m: 4,000 Gaussians in a ball, a deformable
mesh near a sphere (and its grid), the NeRF's soft ball after its occupancy grid has looked once; a textured mesh is a
sphere of 20,480 faces with 512 x 512 texels. "forward" is without gradients, "with backward" draws with gradients and
takes those of a sum over rgb, opacity, depth and normals. Reported is the smallest wall time of several runs (on CUDA
by its own events) and, on the CPU, the smallest process time over the number of threads: what a quiet machine would
need if the work split evenly. Compilation excluded. Writes benchmarks/results/rendering.md, or rendering_cuda.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import numba
import torch
import trimesh
from splatting import hardware

from steindreamer.representations import (
    Cameras,
    DmtetConfig,
    GaussiansConfig,
    NerfConfig,
    Representation,
    TextureConfig,
    TexturedMesh,
    TriangleMesh,
)

RESULTS = Path(__file__).parent / "results"
ENOUGH_SECONDS = 10.0
"""No further runs of what has taken this long."""
DENSE_PIXELS = 128
"""Largest image, in pixels, of the dense splatting reference on the CPU; larger ones take minutes (splatting.py)."""
MESH_BACKENDS = {"cpu": ["cpu", "torch", "pytorch3d"], "cuda": ["nvdiffrast", "torch", "pytorch3d"]}
GAUSSIAN_BACKENDS = {"cpu": ["cpu", "torch"], "cuda": ["gsplat", "torch"]}
OPTIONAL = ("gsplat", "nvdiffrast", "pytorch3d")
HEADING = """\
| pixels | representation | backend | forward, ms | with backward, ms |
|---|---|---|---|---|"""


def gaussians(device: str, backend: Any) -> Representation:
    return GaussiansConfig(backend=backend).build(torch.Generator().manual_seed(0), device)


def dmtet(device: str, backend: Any) -> Representation:
    return DmtetConfig(backend=backend).build(torch.Generator().manual_seed(0), device)


def nerf(device: str, encoding: Any) -> Representation:
    config = NerfConfig()
    config.radiance.encoding = encoding
    built = config.build(torch.Generator().manual_seed(0), device)
    built.occupancy.update(built.radiance.density, torch.Generator().manual_seed(1))
    return built


def textured_mesh(device: str, backend: Any) -> Representation:
    sphere = trimesh.creation.icosphere(subdivisions=5, radius=0.6)
    vertices = torch.from_numpy(sphere.vertices.copy()).float()
    texture = torch.rand(3, 512, 512, generator=torch.Generator().manual_seed(0))
    mesh = TriangleMesh(
        vertices, torch.from_numpy(sphere.faces.copy()).long(), uvs=0.5 + 0.5 * vertices[:, :2], texture=texture
    )
    return TexturedMesh.from_mesh(mesh, TextureConfig(backend=backend)).to(device)


def cases(device: str) -> list[tuple[str, str, Callable[[], Representation]]]:
    """What it is, the backend, how it is built; without what is not installed."""
    found: list[tuple[str, str, Callable[[], Representation]]] = []
    for what, build, backends in (
        ("Gaussians", gaussians, GAUSSIAN_BACKENDS[device]),
        ("DMTet mesh", dmtet, MESH_BACKENDS[device]),
        ("textured mesh", textured_mesh, MESH_BACKENDS[device]),
    ):
        installed = [name for name in backends if name not in OPTIONAL or find_spec(name)]
        found += [(what, backend, partial(build, device, backend)) for backend in installed]
    backend = "cpu" if device == "cpu" else "torch"
    return [*found, *((f"NeRF, {grid} grid", backend, partial(nerf, device, grid)) for grid in ("hash", "dense"))]


def draw(representation: Representation, cameras: Cameras, *, backward: bool) -> None:
    """One image."""
    background = torch.ones(len(cameras), 3, device=cameras.intrinsics.device)
    with torch.set_grad_enabled(backward):
        output = representation.render(cameras, background)
    if backward:
        representation.zero_grad(set_to_none=True)
        images = [output.rgb, output.opacity, output.depth, output.normal]
        torch.stack([image.sum() for image in images if image.requires_grad]).sum().backward()


def measure(run: Callable[[], None], device: str, repeats: int) -> str:
    """Milliseconds, as a cell of the table."""
    started = time.perf_counter()
    run()
    wall, cpu = [], []
    for _ in range(repeats):
        if device == "cuda":
            wall.append(_cuda_ms(run))
        else:
            clocks = time.perf_counter(), time.process_time()
            run()
            wall.append(1e3 * (time.perf_counter() - clocks[0]))
            cpu.append(1e3 * (time.process_time() - clocks[1]) / torch.get_num_threads())
        if time.perf_counter() - started > ENOUGH_SECONDS:
            break
    return f"{min(wall):.1f}" + (f" ({min(cpu):.1f})" if cpu else "")


def _cuda_ms(run: Callable[[], None]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def rows(device: str, sizes: list[int], repeats: int) -> list[str]:
    lines = []
    for size in sizes:
        cameras = Cameras.orbit([20.0], [10.0], height=size).to(device)
        for what, backend, build in cases(device):
            if (what, backend, device) == ("Gaussians", "torch", "cpu") and size > DENSE_PIXELS:
                lines.append(f"| {size} | {what} | {backend} | not run: minutes | not run: minutes |")
                continue
            runs = [partial(draw, build(), cameras, backward=backward) for backward in (False, True)]
            forward, both = (measure(run, device, repeats) for run in runs)
            lines.append(f"| {size} | {what} | {backend} | {forward} | {both} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--threads", type=int, default=numba.get_num_threads())
    arguments = parser.parse_args()
    numba.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)

    device = arguments.device
    machine = f"{torch.cuda.get_device_name()}; {hardware()}" if device == "cuda" else hardware()
    where = f"{datetime.now(UTC).date().isoformat()}; {machine}; `python benchmarks/rendering.py --device {device}`."
    print(f"{where}\n{HEADING}")
    explained = "Smallest wall time of several runs, one image, sizes and settings of the start of a training."
    if device == "cpu":
        explained += " In brackets: smallest process time / threads, what a quiet machine would need."
    table = [HEADING, *rows(device, arguments.sizes, arguments.repeats)]
    RESULTS.mkdir(exist_ok=True)
    name = "rendering.md" if device == "cpu" else "rendering_cuda.md"
    text = ["# Time per image of every representation and backend", "", where, "", explained, "", *table, ""]
    (RESULTS / name).write_text("\n".join(text))


if __name__ == "__main__":
    main()
