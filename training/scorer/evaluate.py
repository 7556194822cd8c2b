"""Score the scorer on objects it has not seen: python -m steindreamer.training.scorer.evaluate [--model FOLDER]

Prints the tables of the model card: kinds and colours of real renders by elevation, and under what pictures suffer.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ...representations import Cameras
from ..prior.dataset import DEFAULT_KINDS
from ..workers import torch_threads_kept
from ..world import KINDS, Caption, caption_of, sample_object
from ..world.views import render_all, shade
from .model import SIZE, Accuracy, WorldScorer

ELEVATIONS = (-10.0, 0.0, 15.0, 30.0, 45.0, 60.0, 75.0)
SEED = 1_000_003
"""Of the held-out objects; nothing is trained on them."""
DISTANCE = 3.2
"""Metres, at 40 degrees field of view."""


@dataclass(frozen=True)
class RealViews:
    """Objects over one background each; row i of every field is one view."""

    pictures: Float[Tensor, "n 3 h w"]
    """sRGB in [0, 1]."""
    captions: tuple[Caption, ...]
    elevations: Float[Tensor, " n"]

    def at(self, elevation: float) -> RealViews:
        rows = (self.elevations == elevation).nonzero().flatten().tolist()
        return RealViews(self.pictures[rows], tuple(self.captions[row] for row in rows), self.elevations[rows])


@torch_threads_kept()
def real_views(
    captions: Sequence[Caption],
    *,
    elevations: Sequence[float] = ELEVATIONS,
    azimuths: int = 1,
    distance: float = DISTANCE,
    background: float | None = 1.0,
    size: int = SIZE,
    seed: int = SEED,
) -> RealViews:
    """One new object per caption, `azimuths` pictures at each elevation; `background` None: any colour.

    The same seed gives the same objects and azimuths, whatever the other arguments.
    """
    pictures, named, angles = [], [], []
    for index, caption in enumerate(captions):
        rng = np.random.default_rng([seed, index])
        mesh = shade(sample_object(caption, rng))
        count = len(elevations) * azimuths
        azimuth = torch.from_numpy(rng.uniform(-180, 180, count)).float()
        elevation = torch.tensor(elevations).repeat_interleave(azimuths)
        cameras = Cameras.orbit(azimuth, elevation, distance=distance, height=size)
        colours = torch.full((count, 3), background) if background is not None else _any_colours(rng, count)
        pictures.append(render_all([mesh], cameras, colours, supersample=3)[:, 0])
        named += [caption] * count
        angles.append(elevation)
    return RealViews(torch.cat(pictures), tuple(named), torch.cat(angles))


def captions_of(kinds: Sequence[str]) -> list[Caption]:
    """Every kind in every colour."""
    return [caption_of(kind, colour) for kind in kinds for colour in KINDS[kind].colours]


def table(scorer: WorldScorer, kinds: Sequence[str]) -> str:
    """Markdown: by elevation over white, then other conditions over all elevations. Chosen among `kinds`."""
    captions, generator = captions_of(kinds), torch.Generator().manual_seed(SEED)
    white = real_views(captions)
    lines = ["| views | pictures | kind | colour | caption |", "|---|---|---|---|---|"]

    def add(name: str, views: RealViews, change: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        found = scorer.accuracy(change(views.pictures), views.captions, kinds=kinds)
        lines.append(f"| {name} | {len(views.captions)} | {percent(found)} |")

    add("white background", white)
    for elevation in ELEVATIONS:
        add(f"elevation {elevation:.0f}°", white.at(elevation))
    add("grey background", real_views(captions, background=0.5))
    add("any background", real_views(captions, background=None))
    add("from 2.9 m", real_views(captions, distance=2.9))
    add("from 4.2 m", real_views(captions, distance=4.2))
    add("32 pixels", real_views(captions, size=32))
    add("128 pixels", real_views(captions, size=128))
    add("blurred, σ = 1.5 pixels of 64", white, _blurred)
    add("noise of σ = 0.05", white, lambda x: (x + 0.05 * torch.randn(x.shape, generator=generator)).clamp(0, 1))
    return "\n".join(lines)


def percent(found: Accuracy) -> str:
    """Three cells."""
    return " | ".join(f"{100 * share:.1f} %" for share in (found.kind, found.colour, found.caption))


def milliseconds(scorer: WorldScorer, batch: int = 64, repeats: int = 10) -> float:
    """Of processor time per picture; the least of the repeats."""
    pictures, times = torch.full((batch, 3, SIZE, SIZE), 0.5), []
    for _ in range(repeats):
        start = time.process_time()
        scorer.score(pictures, scorer.known)
        times.append(time.process_time() - start)
    return 1000 * min(times) / batch


def _blurred(pictures: Float[Tensor, "b 3 h w"], sigma: float = 1.5) -> Float[Tensor, "b 3 h w"]:
    offsets = torch.arange(-5.0, 6.0)
    kernel = (-offsets.square() / (2 * sigma**2)).exp()
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(pictures, (5, 5, 5, 5), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def _any_colours(rng: np.random.Generator, count: int) -> Float[Tensor, "b 3"]:
    return torch.from_numpy(rng.random((count, 3)).astype(np.float32))


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a trained scorer (default: the shipped one)")
    given = parser.parse_args(arguments)
    scorer = WorldScorer.load(given.model)
    print(f"Among the embedded prior's {len(DEFAULT_KINDS)} kinds:\n\n{table(scorer, DEFAULT_KINDS)}\n")
    print(f"Among all {len(scorer.config.kinds)} kinds:\n\n{table(scorer, scorer.config.kinds)}\n")
    print(f"{milliseconds(scorer):.2f} CPU-ms per picture in batches of 64, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
