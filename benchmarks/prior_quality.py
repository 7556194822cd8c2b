"""How good a learned prior is, and what is distilled from it: judged by the world's independent scorer.

    python benchmarks/prior_quality.py [--prior tiny | --prior FOLDER] [--prompts N | --prompts "a red mug" ...]
                                       [--no-refine] [--steps N] [--assets FOLDER] [--no-runs] [--settings k=v ...]
                                       [--only-assets] [--name prior_quality]

1. Denoising: squared errors of the prior's estimates on objects that its training has not seen, by noise level.
2. Images: how often the scorer recognizes kind and color, of real renders and of the prior's samples.
3. Assets: the same of what `pipelines/run.py` makes with the learned prior and with `--prior world`, drawn from the
   exported GLB files. Runs lie in ASSETS/PRIOR/PROMPT; those that are finished are read, the others made, or left out
   with --no-runs.

Pairs of a kind and a color that the prior's training never saw ("held out") are counted on their own. Writes NAME.md
and NAME.png (a row per prompt: real object, samples, assets) to benchmarks/results.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from glb import placed, read_glb
from PIL import Image
from torch import Tensor

from steindreamer import assets
from steindreamer.pipelines.runs.folder import slug
from steindreamer.representations import Cameras, render_mesh
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
REFERENCE = "world"
PROMPTS = 20
ELEVATIONS = (0.0, 15.0, 30.0, 60.0)
AZIMUTHS = (20.0, 110.0, 200.0, 290.0)
GUIDANCE, SAMPLING_STEPS = 1.0, 25
TILE = 96
"""Pixels of an image in the contact sheet."""


@dataclass(frozen=True)
class LearnedPrior:
    folder: Path
    arguments: tuple[str, ...]
    """Of pipelines/run.py, to distil it."""
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
    arguments = ("--prior", SHIPPED, *([] if name == SHIPPED else [f"prior.model={folder.resolve()}"]))
    held_out = frozenset((kind, color) for kind, color in config["held_out"])
    return LearnedPrior(folder, arguments, tuple(config["kinds"]), held_out, pipeline.image_size)


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


def asset(folder: Path, prompt: str, arguments: Sequence[str], settings: Sequence[str], make: bool) -> Path | None:
    """The run's GLB file, made by the command line if it is not there; None without one."""
    path = folder / slug(prompt) / "asset" / "asset.glb"
    if path.exists() or not make:
        return path if path.exists() else None
    command = [sys.executable, str(ROOT / "pipelines" / "run.py"), "--overwrite", "--quiet", "--prompt", prompt]
    command += ["--out", str(folder / slug(prompt)), *arguments, *settings]
    if subprocess.run(command, check=False).returncode:
        raise SystemExit(f"failed: {shlex.join(command)}")
    return path


def asset_views(path: Path, caption: Caption, size: int = 64) -> RealViews:
    """The asset from every azimuth at every elevation, unlit, placed like the world's objects, over white."""
    mesh = placed(read_glb(path))
    elevations = torch.tensor(ELEVATIONS).repeat_interleave(len(AZIMUTHS))
    azimuths = torch.tensor(AZIMUTHS).repeat(len(ELEVATIONS))
    cameras = Cameras.orbit(azimuths, elevations, distance=DISTANCE, height=size)
    images = render_mesh(mesh, cameras, torch.ones(len(cameras), 3), supersample=2).rgb
    return RealViews(images, (caption,) * len(cameras), elevations)


def assets_table(scorer: WorldScorer, prior: LearnedPrior, made: dict[str, list[RealViews]]) -> str:
    """Markdown: one row per asset, then the means of seen and held-out pairs of every prior."""
    known = [caption for caption in scorer.known if caption.kind in prior.kinds]
    lines = ["| prior | prompt | views: kind | color | caption | taken for |", "|---|---|---|---|---|---|"]
    for name, scenes in made.items():
        for views in scenes:
            caption = views.captions[0]
            found = scorer.accuracy(views.images, views.captions, kinds=prior.kinds)
            with torch.no_grad():
                best = scorer.score(views.images, known).log_softmax(1).mean(0).argmax()
            star = "" if prior.knows(caption) else " (held out)"
            lines.append(f"| {name} | {caption.text}{star} | {percent(found)} | {known[int(best)].text} |")
        for what, wanted in (("mean, seen pairs", True), ("mean, held-out pairs", False)):
            group = [views for views in scenes if prior.knows(views.captions[0]) == wanted]
            if group:
                images = torch.cat([views.images for views in group])
                captions = [caption for views in group for caption in views.captions]
                found = scorer.accuracy(images, captions, kinds=prior.kinds)
                lines.append(f"| **{name}** | **{what}, {len(group)} assets** | {percent(found)} | |")
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


def contact_sheet(
    prior: LearnedPrior, prompts: Sequence[Caption], made: dict[str, list[RealViews]], seed: int
) -> Image.Image:
    """A row per prompt: a real object, two samples, every asset from four sides."""
    shown = [caption for caption in prompts if caption.kind in prior.kinds]
    real = real_views(shown, elevations=(15.0,))
    drawn = sampled_views(prior, shown, (15.0, 15.0), seed)
    sides = slice(len(AZIMUTHS), 2 * len(AZIMUTHS))  # of the second elevation
    rows = []
    for i, caption in enumerate(shown):
        scenes = [views for many in made.values() for views in many if views.captions[0] == caption]
        rows.append([real.images[i], *drawn.images[2 * i : 2 * i + 2]])
        rows[-1] += [side for views in scenes for side in views.images[sides]]
    return sheet(rows)


def report(command: str, prior: LearnedPrior, tables: dict[str, str]) -> str:
    """The result in Markdown; `tables` by heading."""
    notes = {
        "Denoising": "Mean squared error of the estimated clean image, pixels in [-1, 1], by timestep; objects that "
        "training has not seen.",
        "Images": f"Recognized by the scorer among {len(prior.kinds)} kinds. Over white, {prior.size} pixels; "
        f"samples by DDIM in {SAMPLING_STEPS} steps, guidance {GUIDANCE:g}.",
        "Assets": f"{len(AZIMUTHS) * len(ELEVATIONS)} views of every GLB file, unlit, over white, recognized among the "
        'same kinds. "Taken for": the caption with the highest mean log-likelihood over the views.',
    }
    head = (
        f"# A learned prior, its samples and its assets\n\n{date.today().isoformat()}, {platform.machine()}, "
        f"{os.cpu_count()} cores, torch {torch.__version__}; `{command}`\n"
    )
    return head + "".join(f"\n## {name}\n\n{notes[name]}\n\n{table}\n" for name, table in tables.items())


def judged_prior(prior: LearnedPrior, scorer: WorldScorer, given: argparse.Namespace) -> dict[str, str]:
    """What does not depend on assets: Markdown tables by heading."""
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
    parser.add_argument("--prompts", nargs="+", default=(), help="a number, or the prompts of the assets (default: 20)")
    parser.add_argument("--steps", type=int, help="of the coarse stage (default: the preset's)")
    parser.add_argument("--no-refine", action="store_true", help="distil the coarse stage only")
    parser.add_argument("--assets", type=Path, default=Path("runs/prior_quality"), metavar="FOLDER")
    parser.add_argument("--no-runs", action="store_true", help="judge the assets that are there, make none")
    parser.add_argument("--only-assets", action="store_true", help="leave out denoising and images")
    parser.add_argument("--examples", type=int, default=160, help="views to denoise")
    parser.add_argument("--captions", type=int, help="to sample, evenly spread over all (default: all)")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results", metavar="FOLDER")
    parser.add_argument("--name", default="prior_quality", help="of the two result files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", nargs="*", default=(), metavar="key=value", help="of the runs")
    given = parser.parse_args(arguments)
    prior, scorer = find_prior(given.prior), WorldScorer.load(given.scorer)
    settings = [*given.settings, *(["--no-refine"] if given.no_refine else [])]
    settings += [f"stages.coarse.steps={given.steps}"] if given.steps else []

    prompts = choose_prompts(given.prompts, prior)
    made: dict[str, list[RealViews]] = {}
    for name, choice in ((SHIPPED, prior.arguments), (REFERENCE, ("--prior", REFERENCE))):
        found = {c: asset(given.assets / name, c.text, choice, settings, not given.no_runs) for c in prompts}
        made[name] = [asset_views(path, caption) for caption, path in found.items() if path]
    tables = {} if given.only_assets else judged_prior(prior, scorer, given)
    tables["Assets"] = assets_table(scorer, prior, made)
    command = shlex.join(["python", "benchmarks/prior_quality.py", *(sys.argv[1:] if arguments is None else arguments)])
    given.results.mkdir(parents=True, exist_ok=True)
    (given.results / f"{given.name}.md").write_text(report(command, prior, tables))
    image = contact_sheet(prior, prompts, made, given.seed + 1)
    image.save(given.results / f"{given.name}.png", optimize=True)


if __name__ == "__main__":
    main()
