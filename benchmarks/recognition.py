"""How often the world's scorer recognizes exported assets, unlit, under light, and as clay.

    python benchmarks/recognition.py ASSET.glb [...] [--image FILE] [--scorer FOLDER]

Each asset is rendered from 16 views around it. Its caption is the prompt stored in the file. Prints a Markdown table;
--image saves a preview grid with large lit and clay views of every asset.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import numpy as np
import torch
from lit import Asset, Look, read_asset, render_asset
from PIL import Image

from steindreamer.representations import Cameras
from steindreamer.world.scorer import Accuracy, WorldScorer

LOOKS: tuple[Look, ...] = ("unlit", "lit", "clay")
VIEWS, ELEVATIONS = 16, (0.0, 15.0, 30.0, 45.0)
"""Number of views, with azimuths all around; their elevations in degrees, in turn."""
SIZE, LARGE = 128, 256
"""Pixels per side of the views that are scored, and of those that are saved."""
COLUMNS = "| unlit: kind, color | lit: kind, color | clay: kind |"


def recognized(asset: Asset, scorer: WorldScorer) -> dict[Look, Accuracy]:
    """Compute the scorer's accuracies over the views, among all of its kinds; of clay, only the kind is meaningful.

    Raises:
        ValueError: The file does not name a prompt of the world.
    """
    if asset.prompt is None:
        raise ValueError("the file names no prompt; export it with a run of this version")
    azimuths = [360 * i / VIEWS for i in range(VIEWS)]
    cameras = Cameras.orbit(azimuths, [ELEVATIONS[i % len(ELEVATIONS)] for i in range(VIEWS)], height=SIZE)
    return {look: scorer.accuracy(render_asset(asset, cameras, look), [asset.prompt] * VIEWS) for look in LOOKS}


def cells(found: dict[Look, Accuracy]) -> str:
    """Format accuracies as the table cells of COLUMNS."""
    colored = [f"{100 * found[look].kind:.0f} %, {100 * found[look].color:.0f} %" for look in ("unlit", "lit")]
    return f"| {' | '.join(colored)} | {100 * found['clay'].kind:.0f} % |"


def grid(assets: Sequence[Asset]) -> Image.Image:
    """Draw four sides of every asset: a row under light, and a row of clay."""
    cameras = Cameras.orbit([20.0, 110.0, 200.0, 290.0], [15.0] * 4, height=LARGE)
    rows = [
        torch.cat(list(render_asset(asset, cameras, look, supersample=3)), -1) for asset in assets for look in LOOKS[1:]
    ]
    pixels = torch.cat(rows, -2).permute(1, 2, 0).clamp(0, 1).numpy()
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path, nargs="+", metavar="ASSET.glb")
    parser.add_argument("--image", type=Path, metavar="FILE", help="preview grid, PNG or JPEG")
    parser.add_argument("--scorer", type=Path, metavar="FOLDER", help="default: the one that ships")
    given = parser.parse_args(arguments)
    scorer, assets = WorldScorer.load(given.scorer), [read_asset(path) for path in given.assets]
    print(f"| prompt {COLUMNS}\n|---|---|---|---|")
    for asset in assets:
        print(f"| {asset.prompt} {cells(recognized(asset, scorer))}", flush=True)
    if given.image:
        grid(assets).save(given.image, quality=90)


if __name__ == "__main__":
    main()
