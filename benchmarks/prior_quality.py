"""How good a learned prior is: its denoising error, and how often the world's scorer recognizes its samples.

    python benchmarks/prior_quality.py [--prior tiny | --prior FOLDER] [--captions N] [--prompts "a red mug" ...]
                                       [--name prior_quality]

1. Denoising: squared errors of the prior's estimates on objects that its training has not seen, by noise level.
2. Images: how often the scorer recognizes kind and color, of real renders and of the prior's samples.

Pairs of a kind and a color that the prior's training never saw ("held out") are counted on their own. Writes NAME.md
and NAME.png (a row per prompt: real object, samples) to benchmarks/results. `assets.py` judges the assets.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from steindreamer import assets
from steindreamer.representations import Cameras
from steindreamer.training.prior.dataset import ViewSettings
from steindreamer.training.prior.evaluate import CONDITION_TIMESTEPS, TIMESTEPS, Examples, evaluate
from steindreamer.training.prior.model import load_pipeline, load_tiny_prior
from steindreamer.training.prior.sample import default_prompts, sample
from steindreamer.training.scorer.evaluate import DISTANCE, RealViews, captions_of, percent, real_views
from steindreamer.world import Caption, parse_caption
from steindreamer.world.scorer import WorldScorer

ROOT = Path(__file__).parents[1]
SHIPPED = "tiny"
FOLDER = "tiny_world_prior"
PROMPTS = 20
ELEVATIONS = (0.0, 15.0, 30.0, 60.0)
GUIDANCE, SAMPLING_STEPS = 1.0, 25
TILE = 96
"""Pixels of an image in the contact sheet."""


@dataclass(frozen=True)
class LearnedPrior:
    folder: Path
    kinds: tuple[str, ...]
    held_out: frozenset[tuple[str, str]]
    size: int
    """Pixels per side of its images."""

    def knows(self, caption: Caption) -> bool:
        """Whether its training has seen the pair."""
        return caption.kind in self.kinds and (caption.kind, caption.color) not in self.held_out


def find_prior(name: str) -> LearnedPrior:
    """Exits with one line if there is no such prior."""
    shipped = Path(str(resources.files(assets).joinpath(FOLDER)))
    folder = shipped if name == SHIPPED else Path(name)
    if not (folder / "model_index.json").is_file():
        raise SystemExit(f"no prior in {folder}: give {SHIPPED} or the folder `prior` of a run of training.prior.train")
    pipeline = load_pipeline(folder)
    config = pipeline.config
    held_out = frozenset((kind, color) for kind, color in config["held_out"])
    return LearnedPrior(folder, tuple(config["kinds"]), held_out, pipeline.image_size)


def denoising(prior: LearnedPrior, examples: int) -> str:
    """Markdown: mean squared errors in [-1, 1] by timestep."""
    model, tokenizer = load_tiny_prior(prior.folder)
    settings = ViewSettings(
        kinds=prior.kinds,
        held_out=tuple(sorted(prior.held_out)),
        size=model.size,
        modalities=model.modalities,
        varied_light="albedo" in model.modalities,
    )
    found = evaluate(model, tokenizer, Examples.render(settings, examples))
    lines = [f"| conditioning | {' | '.join(map(str, TIMESTEPS))} |", "|---|" + "---|" * len(TIMESTEPS)]
    for modality, conditions in found.items():
        for name, errors in conditions.items():
            cells = (f"{errors[str(t)]:.4f}" if str(t) in errors else "" for t in TIMESTEPS)
            lines.append(f"| {modality}: {name} | {' | '.join(cells)} |")
    note = f"Other than the right conditions are only measured at timesteps {CONDITION_TIMESTEPS}."
    return "\n".join(lines) + f"\n\n{note}"


def sampled_views(
    prior: LearnedPrior, captions: Sequence[Caption], elevations: Sequence[float], seed: int
) -> RealViews:
    """One sample of every caption at every elevation, over white; azimuths are random."""
    pipeline, generator = load_pipeline(prior.folder), torch.Generator().manual_seed(seed)
    elevation = torch.tensor(elevations).repeat(len(captions))
    named = tuple(caption for caption in captions for _ in elevations)
    azimuth = 360 * torch.rand(len(named), generator=generator)
    cameras = Cameras.orbit(azimuth, elevation, distance=DISTANCE, height=pipeline.image_size)
    images = []
    for rows in torch.arange(len(named)).split(32):
        images.append(
            sample(
                pipeline,
                [named[row].text for row in rows.tolist()],
                cameras[rows],
                torch.ones(len(rows), 3),
                guidance=GUIDANCE,
                steps=SAMPLING_STEPS,
                generator=generator,
            )
        )
    return RealViews(torch.cat(images), named, elevation)


def chosen(views: RealViews, rows: Iterable[int]) -> RealViews:
    index = list(rows)
    return RealViews(views.images[index], tuple(views.captions[i] for i in index), views.elevations[index])


def recognized(scorer: WorldScorer, prior: LearnedPrior, groups: dict[str, RealViews]) -> str:
    """Markdown: the scorer's accuracies among the prior's kinds; seen and held-out pairs, then seen by elevation."""
    lines = ["| images | number | kind | color | caption |", "|---|---|---|---|---|"]
    for name, views in groups.items():
        seen = [row for row, caption in enumerate(views.captions) if prior.knows(caption)]
        parts = {"": seen, ", held-out pairs": sorted(set(range(len(views.captions))) - set(seen))}
        for elevation in ELEVATIONS:
            parts[f", {elevation:.0f}° up"] = [row for row in seen if views.elevations[row] == elevation]
        for what, rows in parts.items():
            if rows:
                part = chosen(views, rows)
                found = scorer.accuracy(part.images, part.captions, kinds=prior.kinds)
                lines.append(f"| {name}{what} | {len(rows)} | {percent(found)} |")
    return "\n".join(lines)


def sheet(rows: Sequence[Sequence[Tensor]]) -> Image.Image:
    """Of images of any size; rows may differ in length."""
    width = max(len(row) for row in rows)
    page = torch.ones(3, TILE * len(rows), TILE * width)
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            tile = torch.nn.functional.interpolate(image[None], (TILE, TILE), mode="nearest")[0]
            page[:, TILE * y : TILE * (y + 1), TILE * x : TILE * (x + 1)] = tile
    return Image.fromarray((page.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy().astype(np.uint8))


def choose_prompts(given: Sequence[str], prior: LearnedPrior) -> list[Caption]:
    """The captions named, or the first of the prior's default ones: its kinds, then pairs held out."""
    if given and not (len(given) == 1 and given[0].isdigit()):
        return [parse_caption(text) for text in given]
    defaults = [parse_caption(text) for text in default_prompts(load_pipeline(prior.folder))]
    return defaults[: int(given[0]) if given else PROMPTS]


def contact_sheet(prior: LearnedPrior, prompts: Sequence[Caption], seed: int) -> Image.Image:
    """A row per prompt: a real object, four samples from all around."""
    shown = [caption for caption in prompts if caption.kind in prior.kinds]
    real = real_views(shown, elevations=(15.0,))
    drawn = sampled_views(prior, shown, (15.0,) * 4, seed)
    return sheet([[real.images[i], *drawn.images[4 * i : 4 * i + 4]] for i in range(len(shown))])


def report(command: str, prior: LearnedPrior, tables: dict[str, str]) -> str:
    """The result in Markdown; `tables` by heading."""
    notes = {
        "Denoising": "Mean squared error of the estimated clean image, pixels in [-1, 1], by timestep; objects that "
        "training has not seen.",
        "Images": f"Recognized by the scorer among {len(prior.kinds)} kinds. Over white, {prior.size} pixels; "
        f"samples by DDIM in {SAMPLING_STEPS} steps, guidance {GUIDANCE:g}.",
    }
    head = (
        f"# A learned prior and its samples\n\n{date.today().isoformat()}, {platform.machine()}, "
        f"{os.cpu_count()} cores, torch {torch.__version__}; `{command}`\n"
    )
    return head + "".join(f"\n## {name}\n\n{notes[name]}\n\n{table}\n" for name, table in tables.items())


def judged_prior(prior: LearnedPrior, scorer: WorldScorer, given: argparse.Namespace) -> dict[str, str]:
    """Markdown tables by heading."""
    captions = captions_of(prior.kinds)
    captions = captions[:: max(1, len(captions) // (given.captions or len(captions)))]
    views = {
        "real renders": real_views(captions, elevations=ELEVATIONS, size=prior.size),
        "samples": sampled_views(prior, captions, ELEVATIONS, given.seed),
    }
    return {"Denoising": denoising(prior, given.examples), "Images": recognized(scorer, prior, views)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", default=SHIPPED, metavar="NAME|FOLDER", help="a learned prior")
    parser.add_argument("--scorer", type=Path, metavar="FOLDER", help="default: the one that ships")
    parser.add_argument("--prompts", nargs="+", default=(), help="a number, or the prompts of the image (default: 20)")
    parser.add_argument("--examples", type=int, default=160, help="views to denoise")
    parser.add_argument("--captions", type=int, help="to sample, evenly spread over all (default: all)")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", metavar="FOLDER")
    parser.add_argument("--name", default="prior_quality", help="of the two result files")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    prior, scorer = find_prior(given.prior), WorldScorer.load(given.scorer)
    prompts = choose_prompts(given.prompts, prior)
    tables = judged_prior(prior, scorer, given)
    command = shlex.join(["python", "benchmarks/prior_quality.py", *(sys.argv[1:] if arguments is None else arguments)])
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / f"{given.name}.md").write_text(report(command, prior, tables))
    image = contact_sheet(prior, prompts, given.seed + 1)
    image.save(given.results / f"{given.name}.png", optimize=True)


if __name__ == "__main__":
    main()
