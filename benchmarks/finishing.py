"""Time of finishing a mesh of 200,000 triangles, and how near wrapped, reduced and rebaked assets are to their sources.

    python benchmarks/finishing.py [FILE ...] [--preset unreal] [--out benchmarks/results/finishing.jsonl]

Without files, two are made: a scan-like shape of 200,000 triangles with vertex colors, which is finished with the
engine's defaults, and an open bowl with a texture, which is wrapped. Files that are given are wrapped. Each row has the
seconds and CPU seconds of every step, and per level the color difference (mean CIEDE2000 over 16 views) and the overlap
of the silhouettes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from datetime import date
from pathlib import Path

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import numpy as np
import trimesh
from trimesh.visual import ColorVisuals

from steindreamer.pipelines.engines import ENGINES
from steindreamer.pipelines.finishing.config import FinishConfig
from steindreamer.pipelines.finishing.finish import finish


def write_scan(path: Path, triangles: int = 200_000) -> Path:
    """A bumpy ball with vertex colors, as a PLY."""
    rows = round((triangles / 8) ** 0.5)
    ball = trimesh.creation.uv_sphere(radius=0.5, count=(rows, 2 * rows))
    x, y, z = (14 * ball.vertices).T
    bumps = np.sin(x) * np.sin(0.8 * y) * np.sin(0.9 * z)
    ball.vertices *= (1 + 0.12 * bumps + 0.01 * np.sin(9 * x + 7 * y))[:, None]
    colors = np.stack([0.5 + 0.4 * bumps, 0.5 + 0.4 * np.sin(y), 0.5 + 0.4 * np.cos(z)], 1)
    ball.visual = ColorVisuals(vertex_colors=(255 * colors).round().astype(np.uint8))
    ball.export(path)
    return path


def write_bowl(path: Path) -> Path:
    """Half a sphere without thickness, as a PLY with vertex colors."""
    ball = trimesh.creation.icosphere(subdivisions=5, radius=0.4)
    colors = (127 + 120 * np.sin(9 * ball.vertices)).round().astype(np.uint8)
    ball.visual = ColorVisuals(vertex_colors=colors)
    ball.update_faces(ball.triangles_center[:, 1] < 0.1)
    ball.export(path)
    return path


def measure(path: Path, preset: str, config: FinishConfig) -> dict[str, object]:
    """Finish a file in a temporary folder. Returns a row of the results."""
    with tempfile.TemporaryDirectory() as folder:
        wall, cpu = time.perf_counter(), time.process_time()
        report = finish(path, ENGINES[preset], Path(folder), config).to_plain()
        return {
            "date": date.today().isoformat(),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "file": path.name,
            "preset": preset,
            "repair": report["repair"]["method"],
            "source_triangles": report["source_triangles"],
            "seconds": round(time.perf_counter() - wall, 1),
            "cpu_seconds": round(time.process_time() - cpu, 1),
            "load": round(os.getloadavg()[0], 1),
            "deviation": report["deviation"],
            "levels": report["levels"],
            "collider": report["collider"],
            "steps": {step: round(seconds, 1) for step, seconds in report["seconds"].items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--preset", default="unreal", choices=list(ENGINES))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "finishing.jsonl")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        wrapped = FinishConfig(repair="wrap")
        jobs = [(path, wrapped) for path in options.files] or [
            # Compiles the kernels, and is not reported.
            (write_scan(Path(folder) / "warm.ply", 2000), None),
            (write_scan(Path(folder) / "scan.ply"), FinishConfig()),
            (write_bowl(Path(folder) / "bowl.ply"), wrapped),
        ]
        for path, config in jobs:
            row = measure(path, options.preset, config or FinishConfig())
            if config is not None:
                print(json.dumps(row), flush=True)
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
