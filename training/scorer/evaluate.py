"""Evaluate the scorer on held-out objects: python -m steindreamer.training.scorer.evaluate [--model FOLDER]

Prints the tables of the model card: accuracy of kinds and colors on clean renders by elevation, and on degraded images.
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

from steindreamer.representations import Cameras
from steindreamer.world import KINDS, Caption, caption_of, sample_object
from steindreamer.world.scorer import SIZE, Accuracy, WorldScorer
from steindreamer.world.views import render_all, shade

from ..prior.dataset import DEFAULT_KINDS
from ..workers import torch_threads_kept

ELEVATIONS = (-10.0, 0.0, 15.0, 30.0, 45.0, 60.0, 75.0)
SEED = 1_000_003
"""Seed of the held-out objects; nothing is trained on them."""
DISTANCE = 3.2
"""Distance of the camera in meters, at a field of view of 40 degrees."""


@dataclass(frozen=True)
class RealViews:
    """Rendered objects over one background each; row i of every field is one view."""

    images: Float[Tensor, "n 3 h w"]
    """Images in sRGB in [0, 1]."""
    captions: tuple[Caption, ...]
    elevations: Float[Tensor, " n"]

    def at(self, elevation: float) -> RealViews:
        """Select the views at an elevation in degrees."""
        rows = (self.elevations == elevation).nonzero().flatten().tolist()
        return RealViews(self.images[rows], tuple(self.captions[row] for row in rows), self.elevations[rows])


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
    """Render one new object per caption, with `azimuths` images at each elevation.

    The seed alone determines the objects and azimuths.

    Args:
        captions: One caption per object.
        elevations: Elevations in degrees.
        azimuths: Number of images per elevation.
        distance: Distance of the camera in meters.
        background: Gray value of the background; None for random colors.
        size: Size of the images in pixels per side.
        seed: Seed of the objects.
    """
    images, named, angles = [], [], []
    for index, caption in enumerate(captions):
        rng = np.random.default_rng([seed, index])
        mesh = shade(sample_object(caption, rng))
        count = len(elevations) * azimuths
        azimuth = torch.from_numpy(rng.uniform(-180, 180, count)).float()
        elevation = torch.tensor(elevations).repeat_interleave(azimuths)
        cameras = Cameras.orbit(azimuth, elevation, distance=distance, height=size)
        colors = torch.full((count, 3), background) if background is not None else _any_colors(rng, count)
        images.append(render_all([mesh], cameras, colors, supersample=3)[:, 0])
        named += [caption] * count
        angles.append(elevation)
    return RealViews(torch.cat(images), tuple(named), torch.cat(angles))


def captions_of(kinds: Sequence[str]) -> list[Caption]:
    """Return every kind in every color."""
    return [caption_of(kind, color) for kind in kinds for color in KINDS[kind].colors]


def table(scorer: WorldScorer, kinds: Sequence[str]) -> str:
    """Return a Markdown table: by elevation over white, then under other conditions; chosen among `kinds`."""
    captions, generator = captions_of(kinds), torch.Generator().manual_seed(SEED)
    white = real_views(captions)
    lines = ["| views | images | kind | color | caption |", "|---|---|---|---|---|"]

    def add(name: str, views: RealViews, change: Callable[[Tensor], Tensor] = lambda x: x) -> None:
        found = scorer.accuracy(change(views.images), views.captions, kinds=kinds)
        lines.append(f"| {name} | {len(views.captions)} | {percent(found)} |")

    add("white background", white)
    for elevation in ELEVATIONS:
        add(f"elevation {elevation:.0f}°", white.at(elevation))
    add("gray background", real_views(captions, background=0.5))
    add("any background", real_views(captions, background=None))
    add("from 2.9 m", real_views(captions, distance=2.9))
    add("from 4.2 m", real_views(captions, distance=4.2))
    add("32 pixels", real_views(captions, size=32))
    add("128 pixels", real_views(captions, size=128))
    add("blurred, σ = 1.5 pixels of 64", white, _blurred)
    add("noise of σ = 0.05", white, lambda x: (x + 0.05 * torch.randn(x.shape, generator=generator)).clamp(0, 1))
    return "\n".join(lines)


def percent(found: Accuracy) -> str:
    """Format the three accuracies as table cells."""
    return " | ".join(f"{100 * fraction:.1f} %" for fraction in (found.kind, found.color, found.caption))


def milliseconds(scorer: WorldScorer, batch: int = 64, repeats: int = 10) -> float:
    """Measure the CPU time per image in milliseconds; the minimum of the repeats."""
    images, times = torch.full((batch, 3, SIZE, SIZE), 0.5), []
    for _ in range(repeats):
        start = time.process_time()
        scorer.score(images, scorer.known)
        times.append(time.process_time() - start)
    return 1000 * min(times) / batch


def _blurred(images: Float[Tensor, "b 3 h w"], sigma: float = 1.5) -> Float[Tensor, "b 3 h w"]:
    offsets = torch.arange(-5.0, 6.0)
    kernel = (-offsets.square() / (2 * sigma**2)).exp()
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(images, (5, 5, 5, 5), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.transpose(2, 3), groups=3)


def _any_colors(rng: np.random.Generator, count: int) -> Float[Tensor, "b 3"]:
    return torch.from_numpy(rng.random((count, 3)).astype(np.float32))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a trained scorer (default: the shipped one)")
    given = parser.parse_args(arguments)
    scorer = WorldScorer.load(given.model)
    print(f"Among the embedded prior's {len(DEFAULT_KINDS)} kinds:\n\n{table(scorer, DEFAULT_KINDS)}\n")
    print(f"Among all {len(scorer.config.kinds)} kinds:\n\n{table(scorer, scorer.config.kinds)}\n")
    print(f"{milliseconds(scorer):.2f} CPU-ms per image in batches of 64, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
