"""Rendered normals of Gaussians, from the rendered depth or from the axes of the Gaussians, in modality distillation.

    python benchmarks/gaussian_normals.py [--prompts "a red mug" ...] [--candidates axis depth ...] [--seeds 0 1]
                                          [--steps 150] [--out runs/gaussian_normals]

Each run is the coarse stage of the `cpu` preset on the exact prior with one object, so that the truth is known; a
quarter of the steps distills color, and three eighths each distill normals and depth, except for "color only". Measured
are the normals that the Gaussians render, and the surface that a conversion or export extracts from them. Writes all
runs in --out to benchmarks/results/gaussian_normals.md; runs that are there already are not repeated.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from datetime import date
from itertools import product
from pathlib import Path
from statistics import fmean

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import torch

from steindreamer.pipelines.config.run_config import RunConfig, load_config
from steindreamer.pipelines.meshing.atlas import plain_surface
from steindreamer.pipelines.meshing.views import take_views
from steindreamer.pipelines.runs.folder import slug
from steindreamer.pipelines.runs.pipeline import Pipeline
from steindreamer.representations import Cameras, TriangleMesh, render_mesh
from steindreamer.world.prior import WorldPrior, WorldPriorConfig
from steindreamer.world.truth import MILLIMETERS, chamfer_millimeters, mean_normal_error

RESULT = Path(__file__).parent / "results" / "gaussian_normals.md"
PROMPTS = ("a red mug", "a wooden chair", "a snowman")
SETTINGS = (
    "prior.name=world",
    "prior.objects=1",
    "stages.geometry.steps=0",
    "stages.texture.steps=0",
    "stages.coarse.resolution=96",
    "stages.coarse.modalities={albedo: 0, color: 2, normal: 3, depth: 3}",
    # The preset's, at this resolution.
    "stages.coarse.regularizers.normal_smoothness={from: 123, to: 277, begin: 0.3, end: 0.3}",
    "stages.coarse.probe_every=0",
    "export.resolution=80",
    "export.cameras=32",
    "export.view_size=192",
)
CONSISTENCY = "stages.coarse.regularizers.normal_consistency={}"
# The first is the preset's weight, at this resolution. Normals of the depth are consistent with it without one.
AXIS = ("representation.normals=axis", CONSISTENCY.format("{from: 37, to: 83, begin: 0.3, end: 0.3}"))
AXIS_STRONG = ("representation.normals=axis", CONSISTENCY.format("{from: 185, to: 415, begin: 0.3, end: 0.3}"))
DEPTH = ("representation.normals=depth", CONSISTENCY.format(0))
COLOR_ONLY = "stages.coarse.modalities={albedo: 0, color: 1, normal: 0, depth: 0}"
CANDIDATES = {
    "axis": AXIS,
    "axis, consistency x 5": AXIS_STRONG,
    "depth": DEPTH,
    "axis, color only": (*AXIS, COLOR_ONLY),
    "depth, color only": (*DEPTH, COLOR_ONLY),
}
HOLLOW = ("a red mug",)
"""Prompts whose objects have a cavity that is seen from above."""
CAVITY = 0.8
"""Pixels seen from above are in the cavity if they are deeper than this fraction of the true one."""
COLUMNS = {
    "normals": "normal error of the Gaussians (degrees)",
    "mesh_normals": "normal error of the mesh (degrees)",
    "chamfer": "Chamfer distance of the mesh (mm)",
    "cavity": "depth of the cavity (mm)",
    "seconds": "CPU seconds per step",
}


def cavity_depth(mesh: TriangleMesh, truth: TriangleMesh) -> float:
    """Median depth of the mesh below the true rim in millimeters, seen from above over the floor of the true cavity."""
    camera = Cameras.orbit([0.0], [90.0], height=192)
    depth, true = (render_mesh(each, camera, torch.ones(1, 3)).depth for each in (mesh, truth))
    rim = true[true > 0].min()
    floor = (true - rim > CAVITY * (true.max() - rim)) & (depth > 0)
    return MILLIMETERS * float((depth - rim)[floor].median())


def measured(config: RunConfig, truth: TriangleMesh) -> dict[str, float]:
    """Train the coarse stage, extract its surface, and compare with the true object."""
    stage = Pipeline(config).first()
    start = time.process_time()
    while stage.done < stage.config.steps:
        stage.step()
    seconds = (time.process_time() - start) / stage.config.steps
    scene, export = stage.representation, config.export
    mesh = plain_surface(scene, take_views(scene, export.cameras, export.view_size), export)
    return {
        "normals": mean_normal_error(scene, truth, size=96),
        "mesh_normals": mean_normal_error(mesh, truth, size=96),
        "chamfer": chamfer_millimeters(mesh, truth, size=96),
        "cavity": cavity_depth(mesh, truth),
        "seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", nargs="+", default=PROMPTS)
    parser.add_argument("--candidates", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--out", type=Path, default=Path("runs/gaussian_normals"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for seed, prompt, name in product(options.seeds, options.prompts, options.candidates):
        record = options.out / f"{slug(prompt)}-{slug(name)}-{options.steps}-{seed}.json"
        if not record.exists():
            overrides = [*SETTINGS, *CANDIDATES[name], f"seed={seed}", f"stages.coarse.steps={options.steps}"]
            config = load_config(representation="gaussians", overrides=overrides, prompt=prompt)
            record.write_text(json.dumps(measured(config, true_object(prompt))))
        print(prompt, name, seed, record.read_text(), flush=True)
    write(options.out, options.steps)


def true_object(prompt: str) -> TriangleMesh:
    """The one object that the prior holds."""
    return WorldPrior(WorldPriorConfig(objects=1)).embed(prompt).objects[0]


def write(out: Path, steps: int) -> None:
    """Write the table of all runs in `out`: the mean over the seeds, and in parentheses the value of each."""
    machine = f"{date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} CPU cores, torch {torch.__version__}"
    lines = ["| prompt | normals | " + " | ".join(COLUMNS.values()) + " |", "|---" * (2 + len(COLUMNS)) + "|"]
    for prompt, name in product(PROMPTS, CANDIDATES):
        records = sorted(out.glob(f"{slug(prompt)}-{slug(name)}-{steps}-*.json"))
        if not records:
            continue
        runs = [json.loads(record.read_text()) for record in records]
        cells = [
            "" if column == "cavity" and prompt not in HOLLOW else _cell([run[column] for run in runs], column)
            for column in COLUMNS
        ]
        lines.append(f"| {prompt} | {name} | " + " | ".join(cells) + " |")
    truths = [f"{prompt} {cavity_depth(truth, truth):.0f} mm" for prompt in HOLLOW for truth in [true_object(prompt)]]
    RESULT.write_text(
        f"# Normals of Gaussians\n\n{machine}; `python benchmarks/gaussian_normals.py`\n\n"
        f"{steps} steps of the coarse stage at 96 px. Mean over seeds 0 and 1, or 0 alone (value of each). "
        f"True depth of the cavity: {', '.join(truths)}.\n\n" + "\n".join(lines) + "\n"
    )


def _cell(values: Sequence[float], column: str) -> str:
    digits = {"cavity": 0, "seconds": 3}.get(column, 1)
    each = ", ".join(f"{value:.{digits}f}" for value in values)
    return f"{fmean(values):.{digits}f} ({each})"


if __name__ == "__main__":
    main()
