"""Nine prompts through the command line with `--prior world`: time, memory, agreement, and the image of the README.

    python benchmarks/assets.py [--out DIR] [key=value ...]

Writes benchmarks/results/assets.md, docs/images/gallery.png (drawn from the exported GLB files, softly lit) and
benchmarks/results/assets.jpg (large, under a key light and as clay).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np
import torch
from lit import read_asset
from PIL import Image
from recognition import COLUMNS as RECOGNITION
from recognition import SIZE, VIEWS, cells, grid, recognized

from steindreamer.representations import Cameras, TriangleMesh, render_mesh
from steindreamer.world.scorer import WorldScorer

ROOT = Path(__file__).parents[1]
PROMPTS = (
    "a yellow rubber duck",
    "a red mug",
    "a wooden chair",
    "a blue tulip",
    "a green cactus in a white pot",
    "a snowman with a purple scarf",
    "an orange car",
    "a castle with red roofs",
    "a brown teddy bear",
)
AZIMUTHS = (20.0, 110.0, 200.0, 290.0)
COLUMNS = 3


def run(prompt: str, folder: Path, settings: list[str]) -> dict[str, float]:
    """One run in a process of its own: its summary, wall-clock seconds and peak memory."""
    command = [sys.executable, str(ROOT / "pipelines" / "run.py"), "--repr", "gaussians", "--method", "ssd"]
    command += ["--prior", "world"]  # which knows all of the prompts
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--prompt", prompt, "--out", str(folder), "--quiet", *settings])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"'{prompt}' failed")
    export = json.loads((folder / "summary.json").read_text())["exports"][0]
    return {
        "seconds": seconds,
        "memory": usage.ru_maxrss / 2**20,
        **{key: export[key] for key in ("faces", "color_difference", "silhouette_iou", "watertight")},
    }


def draw(mesh: TriangleMesh, size: int = 192) -> np.ndarray:
    """Four sides in a row, softly lit so that the shape can be judged too."""
    cameras = Cameras.orbit(AZIMUTHS, [15.0] * len(AZIMUTHS), field_of_view=35.0, height=size)
    output = render_mesh(mesh, cameras, torch.ones(len(AZIMUTHS), 3), supersample=3)
    light = torch.nn.functional.normalize(torch.tensor([0.5, 0.8, 0.6]), dim=0)
    lit = 0.8 + 0.25 * (output.normal * light[None, :, None, None]).sum(1, keepdim=True).clamp(0, 1)
    image = output.rgb * (lit * output.opacity + 1 - output.opacity)
    return (torch.cat(list(image), -1).permute(1, 2, 0).clamp(0, 1).numpy() * 255).round().astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("settings", nargs="*")
    options = parser.parse_args()
    rows, images, made, scorer = [], [], [], WorldScorer.load()
    for prompt in PROMPTS:
        folder = options.out / prompt.replace(" ", "-")
        measured = run(prompt, folder, ["--overwrite", *options.settings])
        asset = read_asset(folder / "asset" / "asset.glb")
        made.append(asset)
        rows.append(
            f"| {prompt} | {measured['seconds']:.0f} | {measured['memory']:.2f} | {measured['faces']} "
            f"| {'yes' if measured['watertight'] else 'no'} | {measured['color_difference']:.2f} "
            f"| {measured['silhouette_iou']:.3f} {cells(recognized(asset, scorer))}"
        )
        print(rows[-1], flush=True)
        images.append(draw(asset.mesh))
    while len(images) % COLUMNS:
        images.append(np.full_like(images[0], 255))
    lines = [np.concatenate(images[i : i + COLUMNS], 1) for i in range(0, len(images), COLUMNS)]
    gallery = ROOT / "docs" / "images" / "gallery.png"
    gallery.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(lines)).save(gallery, optimize=True)
    grid(made).save(ROOT / "benchmarks" / "results" / "assets.jpg", quality=90)
    (ROOT / "benchmarks" / "results" / "assets.md").write_text(
        "# The main job on nine prompts\n\n"
        f"{date.today().isoformat()}, {platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}; "
        f"`{' '.join(['python benchmarks/assets.py', *options.settings])}`\n\n"
        "Whole process, start of Python to report; color difference is the mean CIEDE2000 between the Gaussians and\n"
        "the re-rendered GLB, agreement the IoU of their silhouettes. Unlit, lit and clay: fraction of "
        f"{VIEWS} views\n({SIZE} pixels) of the GLB in which the world's scorer recognizes kind and color, among all "
        "kinds; [images](assets.jpg).\n\n"
        f"| prompt | seconds | peak memory, GiB | faces | watertight | color difference | agreement {RECOGNITION}\n"
        "|---|---|---|---|---|---|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


if __name__ == "__main__":
    main()
