"""Evaluate the scorer on held-out objects: python -m steindreamer.training.scorer.evaluate [--model FOLDER]

Prints the table of the model card: accuracy of kinds and colors by light and elevation, and on degraded images.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from steindreamer.representations import Cameras, TriangleMesh
from steindreamer.world import KINDS, Caption, caption_of, sample_object
from steindreamer.world.scorer import SIZE, Accuracy, WorldScorer
from steindreamer.world.views import Light, render_all, render_surfaces, shade

from ..workers import torch_threads_kept
from .lighting import Lights, lit

Look = Literal["mild", "unlit", "lit", "gray"]
"""The world's default light, no light, a random key light from above with little ambient light, and gray under it."""
LOOKS: dict[Look, str] = {"mild": "mild light", "unlit": "unlit", "lit": "key light", "gray": "gray, key light"}
"""Looks with their names in the table."""
GRAY = 0.75
"""Display value of gray objects."""
ELEVATIONS = (-10.0, 0.0, 15.0, 30.0, 45.0, 60.0, 75.0)
USUAL = (0.0, 15.0, 30.0, 45.0, 60.0)
"""Elevations that are summarized in one row."""
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

    def at(self, *elevations: float) -> RealViews:
        """Select the views at the given elevations in degrees."""
        rows = torch.isin(self.elevations, torch.tensor(elevations)).nonzero().flatten().tolist()
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
    look: Look = "mild",
) -> RealViews:
    """Render one new object per caption, with `azimuths` images at each elevation.

    The seed alone determines the objects, azimuths and directions of light.

    Args:
        captions: One caption per object.
        elevations: Elevations in degrees.
        azimuths: Number of images per elevation.
        distance: Distance of the camera in meters.
        background: Gray value of the background; None for random colors.
        size: Size of the images in pixels per side.
        seed: Seed of the objects.
        look: Light and color of the objects.
    """
    images, named, angles = [], [], []
    for index, caption in enumerate(captions):
        rng = np.random.default_rng([seed, index])
        mesh = sample_object(caption, rng)
        count = len(elevations) * azimuths
        azimuth = torch.from_numpy(rng.uniform(-180, 180, count)).float()
        elevation = torch.tensor(elevations).repeat_interleave(azimuths)
        cameras = Cameras.orbit(azimuth, elevation, distance=distance, height=size)
        colors = torch.full((count, 3), background) if background is not None else _any_colors(rng, count)
        if look in ("lit", "gray"):
            key = np.random.default_rng([seed, index, 1]).normal(size=3)
            images.append(_under_key_light(mesh, cameras, colors, key, gray=look == "gray"))
        else:
            shaded = shade(mesh) if look == "mild" else mesh
            images.append(render_all([shaded], cameras, colors, supersample=3)[:, 0])
        named += [caption] * count
        angles.append(elevation)
    return RealViews(torch.cat(images), tuple(named), torch.cat(angles))


def captions_of(kinds: Sequence[str]) -> list[Caption]:
    """Return every kind in every color."""
    return [caption_of(kind, color) for kind in kinds for color in KINDS[kind].colors]


def table(scorer: WorldScorer, kinds: Sequence[str]) -> str:
    """Return a Markdown table: by light and elevation over white, then under other conditions; chosen among `kinds`."""
    captions, generator = captions_of(kinds), torch.Generator().manual_seed(SEED)
    lines = ["| views | images | kind | color | caption |", "|---|---|---|---|---|"]

    def add(name: str, views: RealViews, change: Callable[[Tensor], Tensor] = lambda x: x, gray: bool = False) -> None:
        found = scorer.accuracy(change(views.images), views.captions, kinds=kinds)
        lines.append(f"| {name} | {len(views.captions)} | {percent(found, gray=gray)} |")

    others = [elevation for elevation in ELEVATIONS if elevation not in USUAL]
    for look, name in LOOKS.items():
        views = real_views(captions, look=look)
        add(f"{name}, 0° to 60°", views.at(*USUAL), gray=look == "gray")
        for elevation in others:
            add(f"{name}, {elevation:.0f}°", views.at(elevation), gray=look == "gray")
    white = real_views(captions, elevations=USUAL[::2])
    add("blurred, σ = 1.5 pixels of 64", white, _blurred)
    add("noise of σ = 0.05", white, lambda x: (x + 0.05 * torch.randn(x.shape, generator=generator)).clamp(0, 1))
    changes = {
        "gray background": {"background": 0.5},
        "any background": {"background": None},
        "from 2.9 m": {"distance": 2.9},
        "from 4.2 m": {"distance": 4.2},
        "32 pixels": {"size": 32},
        "128 pixels": {"size": 128},
    }
    for name, change in changes.items():
        add(name, real_views(captions, elevations=USUAL[::2], **change))
    return "\n".join(lines)


def percent(found: Accuracy, *, gray: bool = False) -> str:
    """Format the three accuracies as table cells; gray objects have no color."""
    if gray:
        return f"{100 * found.kind:.1f} % | | "
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


def _under_key_light(
    mesh: TriangleMesh, cameras: Cameras, background: Float[Tensor, "b 3"], key: np.ndarray, *, gray: bool
) -> Float[Tensor, "b 3 h w"]:
    """Render under a key light from above with direction `key`, which is dark where it does not shine."""
    seen = render_surfaces(mesh, Light(), cameras, supersample=3)
    opacity, count = seen.render.opacity, len(cameras)
    toward = F.normalize(torch.tensor([key[0], abs(key[1]), key[2]]).float(), dim=0)
    lights = Lights(
        key=toward.expand(count, 3),
        up=torch.tensor([0.0, 1.0, 0.0]).expand(count, 3),
        darkest=torch.full((count,), 0.2),
        sky=torch.full((count,), 0.1),
        direct=torch.full((count,), 0.9),
        wrap=torch.zeros(count),
        gloss=torch.zeros(count),
    )
    color = GRAY * opacity.expand(-1, 3, -1, -1) if gray else seen.albedo
    return lit(color, seen.render.normal, opacity, lights) + (1 - opacity) * background[:, :, None, None]


def _any_colors(rng: np.random.Generator, count: int) -> Float[Tensor, "b 3"]:
    return torch.from_numpy(rng.random((count, 3)).astype(np.float32))


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="a trained scorer (default: the shipped one)")
    given = parser.parse_args(arguments)
    scorer = WorldScorer.load(given.model)
    print(f"Among all {len(scorer.config.kinds)} kinds:\n\n{table(scorer, scorer.config.kinds)}\n")
    print(f"{milliseconds(scorer):.2f} CPU-ms per image in batches of 64, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
