"""What mesh refinement gains over the coarse scene's own surface, measured against the world's true object.

    python benchmarks/refinement.py [--prompts "a red mug" ...] [--reprs gaussians nerf mesh] [--methods sds ssd]
                                    [--out runs/refinement] [--settings key=value ...]

For each prompt the embedded prior holds one object, so that the truth is known. Each run is that of the command line
with the `cpu` preset; the coarse scene is exported as with --no-refine, then its refinement. `chamfer` is the mean
distance in millimeters between the visible surfaces (the object's radius is 900 mm), `PSNR` that of unlit images of
the textured mesh over 16 held-out views. Writes benchmarks/results/refinement.md, and a contact sheet and the asset of
every run under --out; interrupted, the same command goes on with the runs that are not there yet.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import time
from datetime import date
from itertools import product
from pathlib import Path

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import torch

from steindreamer.pipelines.config.run_config import RunConfig, load_config
from steindreamer.pipelines.export import export_asset
from steindreamer.pipelines.export.previews import save_mesh_sheet
from steindreamer.pipelines.meshing.atlas import texture_surface
from steindreamer.pipelines.meshing.stopwatch import Stopwatch
from steindreamer.pipelines.meshing.views import take_views
from steindreamer.pipelines.runs.folder import slug
from steindreamer.pipelines.runs.pipeline import Pipeline
from steindreamer.representations import Representation, TriangleMesh
from steindreamer.world.prior import WorldPrior, WorldPriorConfig
from steindreamer.world.truth import chamfer_millimeters, held_out_psnr

ROOT = Path(__file__).parents[1]
PROMPTS = ("a red mug", "a yellow rubber duck", "a wooden chair")


def true_object(prompt: str) -> TriangleMesh:
    """The one object that the embedded prior holds, lit as it is drawn."""
    return WorldPrior(WorldPriorConfig(objects=1)).embed(prompt).objects[0]


def textured(scene: Representation, config: RunConfig) -> TriangleMesh:
    views = take_views(scene, config.export.cameras, config.export.view_size)
    return texture_surface(scene, views, config.export, Stopwatch()).mesh


def run(config: RunConfig, folder: Path) -> tuple[dict[str, TriangleMesh], dict[str, float]]:
    """The textured meshes before and after refinement, and the wall-clock seconds by stage; the asset is written."""
    pipeline = Pipeline(config)
    meshes: dict[str, TriangleMesh] = {}
    seconds: dict[str, float] = {}
    stage = pipeline.first()
    while True:
        start = time.perf_counter()
        while stage.done < stage.config.steps:
            stage.step()
        seconds[stage.name] = time.perf_counter() - start
        if not meshes:
            meshes["coarse"] = textured(stage.representation, config)
        start = time.perf_counter()
        following = pipeline.following(stage)
        seconds["conversion"] = seconds.get("conversion", 0.0) + time.perf_counter() - start
        if following is None:
            break
        stage = following
    meshes["refined"] = textured(stage.representation, config)
    start = time.perf_counter()
    export_asset(stage.representation, folder, config.export)
    seconds["export"] = time.perf_counter() - start
    return meshes, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", nargs="+", default=PROMPTS)
    parser.add_argument("--reprs", nargs="+", default=("gaussians", "nerf", "dmtet"))
    parser.add_argument("--methods", nargs="+", default=("sds", "ssd"))
    parser.add_argument("--out", type=Path, default=Path("runs/refinement"))
    parser.add_argument("--settings", nargs="*", default=())
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    rows: list[str] = []
    for prompt, representation, method in product(options.prompts, options.reprs, options.methods):
        folder = options.out / f"{slug(prompt)}-{representation}-{method}"
        row = folder / "row.txt"
        if not row.exists():
            config = load_config(
                representation=representation,
                method=method,
                overrides=["prior.name=world", "prior.objects=1", *options.settings],
                prompt=prompt,
            )
            row.write_text(measured(config, folder))
        rows.append(f"| {prompt} | {representation} | {method} | {row.read_text()} |")
        print(rows[-1], flush=True)
        write(rows)


def measured(config: RunConfig, folder: Path) -> str:
    """Run, and compare with the truth: the measured cells of the table's row."""
    truth = true_object(config.prompt)
    meshes, seconds = run(config, folder)
    for step, mesh in meshes.items():
        save_mesh_sheet(mesh, folder / f"{step}.png", 192)
    coarse, refined = ((chamfer_millimeters(mesh, truth), held_out_psnr(mesh, truth)) for mesh in meshes.values())
    parts = ", ".join(f"{key} {value:.0f}" for key, value in seconds.items())
    return (
        f"{coarse[0]:.1f} | {refined[0]:.1f} | {coarse[1]:.1f} | {refined[1]:.1f} "
        f"| {sum(seconds.values()):.0f} ({parts})"
    )


def write(rows: list[str]) -> None:
    """The table so far: the whole takes an hour."""
    command = shlex.join(["python", "benchmarks/refinement.py", *sys.argv[1:]])
    (ROOT / "benchmarks" / "results" / "refinement.md").write_text(
        "# Coarse scene and refined mesh against the true object\n\n"
        f"{date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}; "
        f"`{command}`\n\n"
        "| prompt | representation | method | chamfer mm, coarse | refined | PSNR dB, coarse | refined | seconds |\n"
        "|---|---|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


if __name__ == "__main__":
    main()
