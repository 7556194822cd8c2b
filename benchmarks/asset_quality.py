"""Quality of finished assets: exported GLB files against the true objects of the world.

    python benchmarks/asset_quality.py [--kinds tuning|held-out|all|mug ...] [--priors tiny,world] [--seeds 0,1]
                                       [--reprs gaussians,nerf,mesh] [--preset cpu] [--settings key=value ...]
                                       [--out FOLDER] [--rows FILE] [--no-runs] [--against OLD.jsonl]
    python benchmarks/asset_quality.py --judge RUN|GLB ... [--label TEXT]

Runs the command line for every asset, one after another, and measures each file (asset_measures.py says how) against
the nearest of `--truths` true objects of its caption. These are not the objects that `--prior world` distills. There is
no alignment beyond undoing the export's placement. A prior may also be the folder of a learned one. Two names export
true objects instead of a run: `truth` is one of the truths (the best that the exporter reaches), `other` is another
object of the caption (the distance between two objects of a caption).

Every row is appended to ROWS (JSON lines; default OUT/asset_quality.jsonl) once it is measured, with a table beside it
(.md) and renders under OUT/sheets. The same command continues: it keeps finished rows and resumes an interrupted run.
`--judge` measures finished runs, or exported files, whose seconds and calls are unknown. `--against` compares with the
rows of another file: paired differences of assets with the same prior, representation, prompt and seed.

Tune on the kinds of `TUNING` only; those of `HELD_OUT` are reported.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import numpy as np
import torch
from asset_measures import in_scene, measure, nearest
from glb import extras, read_glb
from PIL import Image, ImageDraw
from true_asset import export_true_object

from steindreamer.distill.geometry_buffers import GeometryBuffers
from steindreamer.distill.variance.probe import count_predictions
from steindreamer.pipelines.comparison.intervals import Interval
from steindreamer.pipelines.config.run_config import RunConfig, read_config
from steindreamer.pipelines.export.lighting import clay, lit
from steindreamer.pipelines.geometry_models import load_estimator
from steindreamer.pipelines.runs.folder import slug
from steindreamer.representations import Cameras, TriangleMesh, render_mesh
from steindreamer.world import parse_caption, sample_object
from steindreamer.world.prior import WorldPrior, WorldPriorConfig

ROOT = Path(__file__).parents[1]
TUNING = {
    "mug": "a red mug",
    "chair": "a wooden chair",
    "duck": "a yellow rubber duck",
    "snowman": "a snowman with a red scarf",
    "house": "a house with a red roof",
    "robot": "a blue robot",
}
HELD_OUT = {
    "tulip": "a blue tulip",
    "sailboat": "a red sailboat",
    "teddy bear": "a brown teddy bear",
    "car": "an orange car",
    "cactus": "a cactus in a white pot",
    "mushroom": "a red mushroom",
}
"""Both halves hold a cavity (mug, tulip) and handles (mug, chair, sailboat); the default prior knows all kinds."""
GROUPS = {"tuning": TUNING, "held-out": HELD_OUT}
PROMPTS = TUNING | HELD_OUT
TRUTH_SEED = 20_000
"""Seed of the true objects; the exact prior draws its own from another stream."""
REFERENCES = {"truth": 0, "other": -1}
"""Names in place of a prior, and the true object that is exported: the first candidate, or one more that is none."""
UNSEEN = ("output.turntable_frames=0", "output.preview_every=0")
"""Settings of every run that save time and do not change its asset."""
RESAMPLES = 4000
Row: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """A column of the tables."""

    title: str
    digits: int = 1


MEASURES = {
    "flat": Measure("flat, deg", 2),
    "flat_truth": Measure("flat of the truth", 2),
    "wall": Measure("wall, deg", 2),
    "wall_error": Measure("normal error of walls, deg"),
    "normal_error": Measure("normal error, deg"),
    "chamfer": Measure("Chamfer, mm"),
    "psnr_albedo": Measure("PSNR to the albedo, dB"),
    "psnr_lit": Measure("PSNR to the lit truth, dB"),
    "light": Measure("baked light, %"),
    "light_truth": Measure("light of the lit truth, %"),
    "grain": Measure("grain, /255", 2),
    "edge_width": Measure("width of color edges, mm"),
    "edge_width_truth": Measure("width of the truth's edges, mm"),
    "cavity": Measure("cavity, mm", 0),
    "cavity_fraction": Measure("cavity, fraction of the truth's", 2),
    "handles_off": Measure("handles too many or missing", 1),
    "parts": Measure("parts", 1),
    "triangles": Measure("triangles", 0),
    "coverage": Measure("atlas coverage", 2),
    "charts": Measure("charts", 0),
    "small_charts": Measure("charts under 10 faces", 1),
    "seconds": Measure("seconds", 0),
    "calls": Measure("prior calls", 0),
}


@dataclass(frozen=True)
class Variant:
    """The way in which assets are made."""

    prior: str
    representation: str
    preset: str = "cpu"
    settings: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name in tables, without what is the default."""
        preset = () if self.preset == "cpu" else (self.preset,)
        names = (self.prior,) if self.prior in REFERENCES else (self.prior, self.representation, *preset)
        return ", ".join((*names, *self.settings))

    @property
    def is_folder(self) -> bool:
        """Whether the prior is the folder of a learned one."""
        return (Path(self.prior) / "model_index.json").is_file()

    def names(self) -> Row:
        """Columns of a row; rows with the same prior and representation are compared, whatever the label."""
        prior = "tiny" if self.is_folder else self.prior
        return {"label": self.label, "prior": prior, "representation": self.representation}

    def folder(self, seed: int) -> str:
        """Folder name of the runs with a seed; a digest tells settings apart."""
        digest = "-" + hashlib.sha256(self.label.encode()).hexdigest()[:8] if self.settings else ""
        return f"{slug(self.label)}{digest}-{seed}"

    def arguments(self, prompt: str, seed: int) -> list[str]:
        """Arguments of pipelines/run.py that start a run."""
        model = [f"prior.model={Path(self.prior).resolve()}"] if self.is_folder else []
        prior = ["--prior", self.names()["prior"], *model]
        names = ["--prompt", prompt, "--seed", str(seed), "--repr", self.representation, "--preset", self.preset]
        return [*names, *prior, *UNSEEN, *self.settings]


def make(folder: Path, variant: Variant, prompt: str, seed: int, truths: int) -> Path:
    """The asset's GLB file, made by the command line unless it is finished. Exits if the run fails."""
    path = folder / "asset" / "asset.glb"
    if variant.prior in REFERENCES:
        chosen = true_objects(prompt, truths + 1)[REFERENCES[variant.prior]]
        return path if path.is_file() else export_true_object(chosen, path.parent)
    if not (folder / "summary.json").is_file():
        command = [sys.executable, str(ROOT / "pipelines" / "run.py"), "--quiet", "--out", str(folder)]
        begun = (folder / "config.yaml").is_file()
        command += ["--resume"] if begun else variant.arguments(prompt, seed)
        if subprocess.run(command, check=False).returncode:
            raise SystemExit(f"failed: {shlex.join(command)}")
    return path


@cache
def true_objects(prompt: str, count: int) -> tuple[TriangleMesh, ...]:
    """Unlit objects of the prompt's caption; more of them begin with the same ones."""
    rng = np.random.default_rng(TRUTH_SEED)
    return tuple(sample_object(parse_caption(prompt), rng) for _ in range(count))


def judge(path: Path, prompt: str, truths: int, sheet: Path) -> Row:
    """Measure a GLB file and save its renders.

    Args:
        path: The file.
        prompt: Its prompt.
        truths: Number of true objects, of which the nearest counts.
        sheet: Path of the renders.
    """
    mesh, candidates = in_scene(read_glb(path), extras(path).get("scene_height")), true_objects(prompt, truths)
    chosen = nearest(mesh, candidates)
    save_sheet(mesh, candidates[chosen], sheet, prompt)
    return {"truth": chosen, **measure(mesh, candidates[chosen])}


def judge_run(folder: Path, truths: int, sheet: Path) -> tuple[RunConfig, Row]:
    """Measure a finished run; its settings, and its row. Exits if the folder holds none."""
    path = folder / "asset" / "asset.glb"
    if not path.is_file() or not (folder / "config.yaml").is_file():
        raise SystemExit(f"no finished run in {folder}: give a folder with config.yaml and asset/asset.glb")
    config = read_config(folder / "config.yaml")
    if getattr(config.representation, "initial_mesh", None):
        raise SystemExit(f"{folder} started from a mesh file: its asset is not placed like an object of the world")
    row = judge(path, config.prompt, truths, sheet)
    return config, row | recorded(folder, config)


def recorded(folder: Path, config: RunConfig) -> Row:
    """Seconds and prior calls in total and by stage, from the run's own records.

    Calls are network evaluations of the steps; those that measure the variance are not included.
    """
    stages: dict[str, dict[str, float]] = {}
    before = 0
    for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        stage = stages.setdefault(record["stage"], {"steps": 0, "seconds": 0.0})
        stage["steps"] += record["step"] - before
        stage["seconds"] += (record["step"] - before) * record["seconds_per_step"]
        before = record["step"]
    for name, stage in stages.items():
        stage["calls"] = stage["steps"] * config.stages[name].views.per_step * calls_per_view(config, name)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    export = sum(sum(each["seconds"].values()) for each in summary["exports"])
    stages["export"] = {"steps": 0, "seconds": export, "calls": 0}
    calls = sum(stage["calls"] for stage in stages.values())
    return {"seconds": summary["seconds"], "calls": calls, "stages": stages}


def calls_per_view(config: RunConfig, stage: str) -> int:
    """Evaluations of the prior per image of a stage's step, counted on a small exact prior."""
    prior, method = WorldPrior(WorldPriorConfig(objects=1, unconditional_objects=1)), config.methods[stage]
    estimator = load_estimator(config.estimator, prior.device) if method.needs_estimator else None
    distiller = method.build(prior, estimator)
    embedding, cameras, white = prior.embed(config.prompt), Cameras.orbit([0.0], [15.0], height=32), torch.ones(1, 3)
    seen = render_mesh(embedding.objects[0], cameras, white)
    geometry = GeometryBuffers(seen.opacity, seen.depth, seen.normal, cameras.camera_to_world)
    condition, generator = prior.condition(embedding, cameras, white), torch.Generator().manual_seed(0)
    with count_predictions(distiller) as counter:
        distiller.update(distiller(seen.rgb, geometry, condition, progress=0.5, generator=generator))
    return counter.predictions


def save_sheet(mesh: TriangleMesh, truth: TriangleMesh, path: Path, title: str, size: int = 256) -> None:
    """Save two rows of renders, the truth above the asset: four lit views, then the same four in clay."""
    cameras = Cameras.orbit([25.0, 115.0, 205.0, 295.0], [20.0, 20.0, 20.0, 55.0], height=size)
    rows = []
    for each in (truth, mesh):
        output = render_mesh(each, cameras, torch.ones(len(cameras), 3), supersample=3)
        rows.append(torch.cat([*lit(output, cameras), *clay(output, cameras)], 2))
    pixels = (torch.cat(rows, 1).permute(1, 2, 0).clamp(0, 1) * 255).round().byte().numpy()
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    for row, text in enumerate((f"{title}: truth", "asset")):
        draw.text((8, 8 + row * size), text, fill=(0, 0, 0))
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, optimize=True)


def join_sheets(folder: Path) -> None:
    """Stack the renders of all assets of a folder in one image beside it."""
    images = [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]
    page = Image.new("RGB", (max(each.width for each in images), sum(each.height for each in images)))
    top = 0
    for image in images:
        page.paste(image, (0, top))
        top += image.height
    page.save(folder.with_suffix(".png"), optimize=True)


def read_rows(path: Path) -> list[Row]:
    """Rows of a result file; empty if there is none."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []


def append_row(path: Path, row: Row) -> None:
    """Append a row; what is not a finite number becomes null."""
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(plain) + "\n")


def bootstrap(values: Sequence[float]) -> Interval:
    """Mean with the 2.5 and 97.5 % quantiles of the means of resampled values; nan bounds for fewer than two."""
    count = len(values)
    if count < 2:
        return Interval(values[0] if count else math.nan, math.nan, math.nan, count)
    given = np.asarray(values)
    means = given[np.random.default_rng(0).integers(count, size=(RESAMPLES, count))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(given.mean()), float(low), float(high), count)


def by_kind(rows: Sequence[Row], name: str) -> list[float]:
    """One value per kind: the mean over its rows that have the measure."""
    values: dict[str, list[float]] = {}
    for row in rows:
        if row.get(name) is not None:
            values.setdefault(row["kind"], []).append(float(row[name]))
    return [float(np.mean(each)) for each in values.values()]


def differences(new: Sequence[Row], old: Sequence[Row]) -> list[Row]:
    """New less old value of every measure, for assets that both have; of several rows of one asset the last counts."""
    earlier = {_asset(row): row for row in old}
    found = []
    for key, row in {_asset(row): row for row in new}.items():
        if key in earlier:
            both = [name for name in MEASURES if None not in (row.get(name), earlier[key].get(name))]
            names = ("kind", "prior", "representation", "label")
            found.append({k: row[k] for k in names} | {n: row[n] - earlier[key][n] for n in both})
    return found


def _asset(row: Row) -> tuple[object, ...]:
    return row["prior"], row["representation"], row["prompt"], row["seed"]


def summary_table(rows: Sequence[Row]) -> str:
    """Means over kinds with intervals in Markdown, a column per half of the kinds and one for all."""
    groups = {name: [row for row in rows if row["kind"] in kinds] for name, kinds in GROUPS.items()}
    groups = {name: some for name, some in {**groups, "all": list(rows)}.items() if some}
    kinds = {name: len({row["kind"] for row in some}) for name, some in groups.items()}
    lines = ["| measure | " + " | ".join(f"{name} ({kinds[name]} kinds)" for name in groups) + " |"]
    lines.append("|---" * (1 + len(groups)) + "|")
    for name, column in MEASURES.items():
        cells = [_cell(bootstrap(by_kind(some, name)), column.digits) for some in groups.values()]
        if any(cells):
            lines.append(f"| {column.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(interval: Interval, digits: int) -> str:
    if not interval.count:
        return ""
    text = f"{interval.mean:.{digits}f}"
    return text if math.isnan(interval.low) else f"{text} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def asset_table(rows: Sequence[Row]) -> str:
    """Every asset's measures in Markdown."""
    lines = ["| measure | " + " | ".join(f"{row['prompt']}, seed {row['seed']}" for row in rows) + " |"]
    lines.append("|---" * (1 + len(rows)) + "|")
    for name, column in MEASURES.items():
        cells = ["" if row.get(name) is None else f"{row[name]:.{column.digits}f}" for row in rows]
        if any(cells):
            lines.append(f"| {column.title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def report(rows: Sequence[Row], old: Sequence[Row] | None, against: str) -> str:
    """The result in Markdown."""
    dates, machines = sorted({row["date"] for row in rows}), sorted({row["machine"] for row in rows})
    parts = [
        "# Exported assets against the world's true objects",
        f"{', '.join(dates)}; {'; '.join(machines)}. Means over kinds with 95 % bootstrap intervals; "
        "benchmarks/asset_measures.py defines the measures. Seconds are wall-clock, on a busy machine too. "
        "The same command continues and keeps finished rows.",
    ]
    for label in dict.fromkeys(row["label"] for row in rows):
        own = [row for row in rows if row["label"] == label]
        commands = "\n".join(f"`{command}`" for command in dict.fromkeys(row["command"] for row in own))
        parts += [f"## {label}", commands, summary_table(own), asset_table(own)]
    if old is not None:
        parts += [
            f"## Difference to {against}",
            "New less old value of the same prior, representation, prompt and seed.",
        ]
        found = differences(rows, old)
        for label in dict.fromkeys(row["label"] for row in found):
            parts += [f"### {label}", summary_table([row for row in found if row["label"] == label])]
        if not found:
            parts.append("No asset is in both files.")
    return "\n\n".join(parts) + "\n"


def chosen_prompts(kinds: Sequence[str]) -> Mapping[str, str]:
    """Prompts by kind, of kinds or groups by name. Exits if a name is unknown."""
    groups = {**GROUPS, "all": PROMPTS}
    found: dict[str, str] = {}
    for name in kinds:
        if name not in groups and name not in PROMPTS:
            raise SystemExit(f"no kind {name!r} here: give {', '.join((*groups, *PROMPTS))}")
        found |= groups.get(name, {name: PROMPTS.get(name, "")})
    return found


def _kind_of(prompt: str) -> str:
    return next((kind for kind, text in PROMPTS.items() if text == prompt), parse_caption(prompt).kind)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["all"], help="kinds, or tuning, held-out, all")
    parser.add_argument("--priors", default="tiny", help="names or folders of priors, or truth, other; with commas")
    parser.add_argument("--reprs", default="gaussians", help="representations, with commas")
    parser.add_argument("--seeds", default="0", help="with commas")
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--settings", nargs="*", default=(), metavar="key=value", help="of the runs")
    parser.add_argument("--truths", type=int, default=16, help="true objects of a caption (default: 16)")
    parser.add_argument("--out", type=Path, default=Path("runs/asset_quality"), metavar="FOLDER")
    parser.add_argument("--rows", type=Path, metavar="FILE", help="default: OUT/asset_quality.jsonl")
    parser.add_argument("--no-runs", action="store_true", help="only write the table of the rows that are there")
    parser.add_argument(
        "--judge", nargs="+", type=Path, metavar="RUN|GLB", help="measure what is finished, run nothing"
    )
    parser.add_argument("--label", help="name of the judged runs in the tables")
    parser.add_argument("--against", type=Path, metavar="OLD.jsonl", help="rows to compare with")
    given = parser.parse_args(arguments)
    words = sys.argv[1:] if arguments is None else arguments
    path = given.rows or given.out / "asset_quality.jsonl"
    fixed = {
        "truths": given.truths,
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, torch {torch.__version__}",
        "command": shlex.join(["python", "benchmarks/asset_quality.py", *words]),
    }
    if given.judge:
        judge_all(given, path, fixed)
    elif not given.no_runs:
        run_all(given, path, fixed)
    rows = read_rows(path)
    if not rows:
        raise SystemExit(f"no rows in {path}")
    if given.against and not given.against.is_file():
        raise SystemExit(f"--against {given.against}: no such file")
    text = report(rows, read_rows(given.against) if given.against else None, str(given.against))
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text)


def run_all(given: argparse.Namespace, path: Path, fixed: Row) -> None:
    """Make and measure all assets that have no row yet."""
    finished = {(row["label"], row["prompt"], row["seed"], row["truths"]) for row in read_rows(path)}
    for prior in given.priors.split(","):
        # A true object has no representation.
        for representation in ["mesh"] if prior in REFERENCES else given.reprs.split(","):
            variant = Variant(prior, representation, given.preset, tuple(given.settings))
            for seed in map(int, given.seeds.split(",")):
                sheets = given.out / "sheets" / variant.folder(seed)
                for kind, prompt in chosen_prompts(given.kinds).items():
                    if (variant.label, prompt, seed, given.truths) in finished:
                        continue
                    folder = given.out / variant.folder(seed) / slug(prompt)
                    glb, sheet = make(folder, variant, prompt, seed, given.truths), sheets / f"{slug(prompt)}.png"
                    if prior in REFERENCES:
                        found = judge(glb, prompt, given.truths, sheet)
                    else:
                        found = judge_run(folder, given.truths, sheet)[1]
                    named = variant.names() | {"kind": kind, "prompt": prompt, "seed": seed}
                    append_row(path, named | fixed | found)
                    join_sheets(sheets)


def judge_all(given: argparse.Namespace, path: Path, fixed: Row) -> None:
    """Measure finished runs, and append a row for each."""
    for source in given.judge:
        sheet = given.out / "sheets" / "judged" / f"{slug(str(source))}.png"
        named, found = (judge_file if source.suffix == ".glb" else judge_folder)(source, given.truths, sheet)
        append_row(path, named | fixed | found | ({"label": given.label} if given.label else {}))
        join_sheets(sheet.parent)


def judge_folder(folder: Path, truths: int, sheet: Path) -> tuple[Row, Row]:
    """The names and measures of a finished run."""
    config, found = judge_run(folder, truths, sheet)
    named = Variant(config.names["prior"], config.first_representation).names()
    return named | {"kind": _kind_of(config.prompt), "prompt": config.prompt, "seed": config.seed}, found


def judge_file(path: Path, truths: int, sheet: Path) -> tuple[Row, Row]:
    """The names and measures of an exported file. Exits if it does not say how it was made."""
    made = extras(path)
    missing = {"prompt", "prior", "representation", "seed"} - made.keys()
    if missing:
        raise SystemExit(f"{path} does not say its {', '.join(sorted(missing))}: give a file of this program")
    named = Variant(made["prior"], made["representation"]).names()
    named |= {"kind": _kind_of(made["prompt"]), "prompt": made["prompt"], "seed": made["seed"]}
    return named, judge(path, made["prompt"], truths, sheet)


if __name__ == "__main__":
    main()
