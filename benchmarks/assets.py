"""Assets of the default command on 24 prompts: time, memory, fidelity, recognition under light, and contact sheets.

    python benchmarks/assets.py [--prior tiny|world|FOLDER] [--out DIR] [--prompts N] [key=value ...]

Finished runs in DIR are kept, so that the same command continues. Writes benchmarks/results/assets.md, assets.jpg
(every asset under light and as clay), and with the default prior docs/images/gallery.jpg, the image of the README.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import numpy as np
import torch
from lit import Asset, Look, read_asset, render_asset
from PIL import Image
from recognition import COLUMNS as RECOGNITION
from recognition import SIZE, VIEWS, cells, recognized

from steindreamer.representations import Cameras
from steindreamer.world.scorer import Accuracy, WorldScorer

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PROMPTS = (
    "a yellow rubber duck",
    "a red mug",
    "a wooden chair",
    "a snowman with a red scarf",
    "a green cactus in a white pot",
    "an orange car",
    "a castle with red roofs",
    "a brown teddy bear",
    "a blue tulip",
    "a red mushroom with white dots",
    "a white sailboat",
    "a blue robot",
    "a house with a red roof",
    "a green teapot",
    "an orange pumpkin",
    "a yellow rocket",
    "a blue train",
    "a black penguin",
    "a green turtle",
    "a pink cupcake",
    "a red lighthouse",
    "a brown treasure chest",
    "a purple gift",
    "a white cat",
)
AZIMUTHS = (20.0, 110.0, 200.0, 290.0)
GALLERY = 12
"""Number of assets in the README's image."""


@dataclass(frozen=True)
class Made:
    """A finished run."""

    prompt: str
    facts: dict[str, Any]
    """Seconds, memory and the export's statistics."""
    asset: Asset
    found: dict[Look, Accuracy]
    """What the scorer recognizes, by look."""


def run(prompt: str, prior: str, folder: Path, settings: Sequence[str]) -> dict[str, Any]:
    """Run the command line in a process of its own, unless the folder holds the finished run; returns its facts."""
    record = folder / "measured.json"
    if record.is_file():
        return json.loads(record.read_text())
    command = [sys.executable, str(ROOT / "pipelines" / "run.py"), "--repr", "gaussians", "--method", "ssd"]
    command += ["--prior", prior, "--prompt", prompt, "--out", str(folder), "--overwrite", "--quiet", *settings]
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode, seconds = os.waitstatus_to_exitcode(status), time.perf_counter() - start
    if status:
        raise SystemExit(f"'{prompt}' failed")
    export = json.loads((folder / "summary.json").read_text())["exports"][0]
    facts = {
        "seconds": seconds,
        "processor_seconds": usage.ru_utime + usage.ru_stime,
        "memory": usage.ru_maxrss / 2**20,
        **{key: export[key] for key in ("faces", "color_difference", "silhouette_iou", "watertight")},
    }
    record.write_text(json.dumps(facts))
    return facts


def images(asset: Asset, looks: Sequence[Look], azimuths: Sequence[float], size: int) -> np.ndarray:
    """Render a row per look, a column per azimuth."""
    cameras = Cameras.orbit(list(azimuths), [15.0] * len(azimuths), field_of_view=35.0, height=size)
    rows = [torch.cat(list(render_asset(asset, cameras, look, supersample=3)), -1) for look in looks]
    pixels = torch.cat(rows, -2).permute(1, 2, 0).clamp(0, 1).numpy()
    return (pixels * 255).round().astype(np.uint8)


def tiled(cells: Sequence[np.ndarray], columns: int) -> Image.Image:
    """Arrange images of one size in rows."""
    blank = [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    filled = [*cells, *blank]
    return Image.fromarray(
        np.concatenate([np.concatenate(filled[i : i + columns], 1) for i in range(0, len(filled), columns)])
    )


def table(made: Sequence[Made], command: str) -> str:
    """The report as Markdown."""
    rows = [
        f"| {each.prompt} | {each.facts['seconds']:.0f} | {each.facts['processor_seconds']:.0f} "
        f"| {each.facts['memory']:.2f} | {each.facts['faces']} | {'yes' if each.facts['watertight'] else 'no'} "
        f"| {each.facts['color_difference']:.2f} | {each.facts['silhouette_iou']:.3f} {cells(each.found)}"
        for each in made
    ]

    def mean(look: Look, what: str) -> str:
        return f"{100 * float(np.mean([getattr(each.found[look], what) for each in made])):.1f} %"

    return (
        f"# Assets of the default command on {len(made)} prompts\n\n"
        f"{date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}; "
        f"`{command}`\n\n"
        "Whole process, start of Python to report; other work may run on the machine, processor seconds tell. Color\n"
        "difference is the mean CIEDE2000 between the scene and the re-rendered GLB, agreement the IoU of their\n"
        f"silhouettes. Unlit, lit and clay: fraction of {VIEWS} views ({SIZE} pixels) of the GLB in which the world's\n"
        "scorer recognizes kind and color, among all kinds; [images](assets.jpg).\n\n"
        f"Means: unlit {mean('unlit', 'kind')} kind, {mean('unlit', 'color')} color; under light "
        f"{mean('lit', 'kind')}, {mean('lit', 'color')}; clay {mean('clay', 'kind')} kind.\n\n"
        "| prompt | seconds | processor seconds | peak memory, GiB | faces | watertight | color difference | agreement "
        f"{RECOGNITION}\n|---|---|---|---|---|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default="tiny")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--prompts", type=int, default=len(PROMPTS), help="number of prompts, from the first")
    parser.add_argument("settings", nargs="*", metavar="key=value")
    options = parser.parse_args()
    command = shlex.join(["python", "benchmarks/assets.py", *sys.argv[1:]])
    scorer, made = WorldScorer.load(), list[Made]()
    for prompt in PROMPTS[: options.prompts]:
        folder = options.out / prompt.replace(" ", "-")
        facts = run(prompt, options.prior, folder, options.settings)
        asset = read_asset(folder / "asset" / "asset.glb")
        made.append(Made(prompt, facts, asset, recognized(asset, scorer)))
        text = table(made, command)
        print(text.splitlines()[-1], flush=True)
        (RESULTS / "assets.md").write_text(text)
    sheets = [images(each.asset, ("lit", "clay"), AZIMUTHS, 192) for each in made]
    tiled(sheets, 2).save(RESULTS / "assets.jpg", quality=88)
    if options.prior == "tiny":
        chosen = [images(each.asset, ("lit", "clay"), AZIMUTHS[:1], 256) for each in made[:GALLERY]]
        tiled(chosen, 6).save(ROOT / "docs" / "images" / "gallery.jpg", quality=90)


if __name__ == "__main__":
    main()
