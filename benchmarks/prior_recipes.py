"""Recipes for the small prior at equal CPU seconds: how well each denoises, and whether it listens to its camera.

    python benchmarks/prior_recipes.py [--seconds 300] [--recipes shipped,single-target] [--out FOLDER]
    python benchmarks/prior_recipes.py --runs FOLDER FOLDER ...

The first trains each recipe anew, one after the other, all on the same views; the second reads folders that
`steindreamer.training.prior.train` has left, at the latest time that all have reached. Writes
benchmarks/results/prior_recipes.md.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import torch

from steindreamer.training.prior.card import read_records
from steindreamer.training.prior.dataset import DEFAULT_KINDS, ViewCache, ViewSettings
from steindreamer.training.prior.model import PriorShape, load_pipeline
from steindreamer.training.prior.train import TrainingSettings, train

RESULT = Path(__file__).parent / "results" / "prior_recipes.md"
STEPS = 10**6
"""More than there is time for: no recipe reaches its cool-down."""
_MODALITY = "color"
CAMERA_GATE = 0.2
"""By how much the error at t = 950 must rise where the camera is turned by 90 degrees."""


VIEWS = ViewSettings(DEFAULT_KINDS, sets_per_caption=16, size=32, modalities=("color",), varied_light=False)
"""Of color alone, small and of few kinds, so that minutes tell recipes apart."""


def _shape(patch: int = 4, channels: tuple[int, ...] = (64, 128, 128)) -> PriorShape:
    return PriorShape(patch, channels, size=VIEWS.size, modalities=VIEWS.modalities)


@dataclass(frozen=True)
class Recipe:
    what: str
    """In what it differs from the shipped one."""
    training: TrainingSettings = field(default_factory=TrainingSettings)
    shape: PriorShape = field(default_factory=_shape)


RECIPES = {
    "shipped": Recipe("the defaults"),
    "single-target": Recipe(
        "learns the single image instead of a posterior mean", TrainingSettings(posterior_target=False)
    ),
    "even-noise": Recipe(
        "timesteps evenly drawn, weights up to 5", TrainingSettings(noise_exponent=1.0, largest_weight=5.0)
    ),
    "patch-2": Recipe("patches of 2 x 2 pixels, 32, 64, 128 channels", shape=_shape(2, (32, 64, 128))),
    "wide": Recipe("two levels of 96 and 160 channels", shape=_shape(4, (96, 160))),
}


def trained(recipe: Recipe, folder: Path, cache: ViewCache, seconds: float) -> Path:
    """The run's folder."""
    train(folder, STEPS, recipe.training, recipe.shape, cache, evaluate_every=STEPS, cpu_seconds=seconds)
    return folder


def row(name: str, what: str, folder: Path, seconds: float) -> list[str]:
    """The cells of a run's last evaluation within so many CPU seconds."""
    record = next(
        each for each in reversed(read_records(folder / "evaluation.jsonl")) if each["cpu_seconds"] <= seconds
    )
    pipeline = load_pipeline(folder / "prior")
    parameters = sum(p.numel() for part in (pipeline.unet, pipeline.text_encoder) for p in part.parameters())
    turned, opposite, words = (
        _rise(record, name, "right") for name in ("turned by 90 degrees", "turned by 180 degrees", "wrong words")
    )
    return [
        *(name, what, f"{parameters / 1e6:.1f} M", f"{record['step']:,}", f"{record['cpu_seconds']:,}"),
        *(f"{record[_MODALITY]['right'][timestep]:.4f}" for timestep in ("200", "800", "950")),
        *(f"{value:+.0%}" for value in (turned, opposite, words)),
        _held_out(record),
        "yes" if turned >= CAMERA_GATE else "no",
    ]


def _rise(record: dict[str, Any], name: str, right: str) -> float:
    return record[_MODALITY][name]["950"] / record[_MODALITY][right]["950"] - 1


def _held_out(record: dict[str, Any]) -> str:
    errors = record[_MODALITY]
    return f"{errors['held-out pairs']['950']:.4f}" if "held-out pairs" in errors else ""


def table(rows: Sequence[Sequence[str]]) -> str:
    head = ["recipe", "differs in", "parameters", "steps", "CPU seconds", "t = 200", "t = 800", "t = 950"]
    head += ["camera +90", "camera +180", "wrong words", "held-out pairs", "listens to the camera"]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows])


def report(rows: Sequence[Sequence[str]], command: str) -> str:
    machine = f"{date.today()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}; `{command}`"
    return f"""# Recipes for the small prior at equal CPU seconds

{machine}

Every recipe trains in one thread on the same views with seed 0, and none reaches the cool-down of its learning rate.
Mean squared error of the estimated clean image, in [-1, 1], for objects that training has not seen, by timestep.
Then, at t = 950, where the conditioning alone determines the image: by how much the error rises when the camera of the
conditioning is turned, or the words are another object's; and the error for held-out pairs of kind and color. A recipe
listens to its camera if the error rises by at least {CAMERA_GATE:.0%} at 90 degrees: without that, every side of a
distilled object looks the same. One seed each: small differences say nothing.

{table(rows)}
"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="of CPU for each recipe")
    parser.add_argument("--recipes", default=",".join(RECIPES), help=f"of {', '.join(RECIPES)}")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="keeps the views and the runs (default: they go)")
    parser.add_argument("--views", type=Path, metavar="FOLDER", help="rendered views (default: OUT/views)")
    parser.add_argument("--runs", type=Path, nargs="+", metavar="FOLDER", help="read these instead of training")
    parser.add_argument("--result", type=Path, default=RESULT, metavar="MD")
    given = parser.parse_args(arguments)
    if given.runs:
        rows, command = _read(given.runs), "python benchmarks/prior_recipes.py --runs ..."
    else:
        rows = _train(given)
        command = f"python benchmarks/prior_recipes.py --seconds {given.seconds:g} --recipes {given.recipes}"
    given.result.write_text(report(rows, command), encoding="utf-8")
    print(table(rows))


def _read(folders: Sequence[Path]) -> list[list[str]]:
    shared = min(read_records(folder / "evaluation.jsonl")[-1]["cpu_seconds"] for folder in folders)
    return [row(folder.name, "", folder, shared) for folder in folders]


def _train(given: argparse.Namespace) -> list[list[str]]:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        out = given.out or Path(temporary)
        cache = ViewCache.open_or_render(given.views or out / "views", VIEWS)
        rows = []
        for name in given.recipes.split(","):
            folder = trained(RECIPES[name], out / name, cache, given.seconds)
            rows.append(row(name, RECIPES[name].what, folder, float("inf")))
    return rows


if __name__ == "__main__":
    main()
