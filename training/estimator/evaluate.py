"""Evaluate a geometry estimator on held-out objects, and draw its predictions.

    python -m steindreamer.training.estimator.evaluate --model FOLDER [--sheet IMAGE.png]

Prints the table of the model card. The objects have the same kinds as those of the training, but other shapes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from steindreamer.distill.control_variates.baselines import weighted_pearson
from steindreamer.distill.geometry.base import GeometryEstimate, GeometryEstimator
from steindreamer.distill.geometry.loading import load_monocular_estimator
from steindreamer.distill.noise.schedule import NoiseSchedule

from .dataset import SIZE, Batch, Views, ViewSettings, noisy_batch, render_views

HELD_OUT = ViewSettings(objects=64, views_per_object=4, seed=1)
TIMESTEPS = (None, 0, 200, 400, 600, 800)
"""Timesteps of `NoiseSchedule.scaled_linear()`; None is an image without noise."""


@dataclass(frozen=True)
class Score:
    """Scores averaged over images."""

    image: float
    """Pearson correlation of the disparity over all pixels; an accurate silhouette alone already scores high."""
    object: float
    """Pearson correlation of the disparity over the object's pixels."""
    degrees: float
    """Mean angle between normals over the object's pixels, in degrees."""
    error: float
    """Mean absolute error of the disparity over the object's pixels; the unit ball spans 0 (far) to 1 (near)."""


def evaluate(estimator: GeometryEstimator, views: Views, size: int, timestep: int | None, seed: int = 0) -> Score:
    """Score an estimator on all views; the seed determines backgrounds and noise."""
    batches = noisy_batches(views, size, timestep, seed)
    with torch.no_grad():
        return mean_score([(estimator(batch.image, batch.noise_level), batch) for batch in batches])


def mean_score(estimated: Sequence[tuple[GeometryEstimate, Batch]]) -> Score:
    """Average the scores of several batches over all images."""
    rows = torch.cat([_scores(estimate, batch) for estimate, batch in estimated], 1)
    return Score(*rows.mean(1).tolist())


def silhouette_score(views: Views, size: int) -> Score:
    """Score a flat object that faces the camera and has the true silhouette, as a baseline."""
    batches = noisy_batches(views, size, None)
    forward = torch.tensor([0.0, 0.0, -1.0])[:, None, None]
    return mean_score([(GeometryEstimate(b.mask.float(), forward.expand_as(b.normal)), b) for b in batches])


def table(estimator: GeometryEstimator, views: Views, sizes: Sequence[int] = (SIZE // 2, SIZE)) -> str:
    """Return a Markdown table with one row per size and timestep."""
    lines = [
        "| pixels | timestep | Pearson, image | Pearson, object only | normal error | disparity error |",
        "|---|---|---|---|---|---|",
    ]
    for size in sizes:
        scores: list[tuple[str, Score]] = [("silhouette alone", silhouette_score(views, size))]
        scores += [("no noise" if t is None else str(t), evaluate(estimator, views, size, t)) for t in TIMESTEPS]
        lines += [
            f"| {size} | {name} | {s.image:.3f} | {s.object:.3f} | {s.degrees:.1f}° | {s.error:.3f} |"
            for name, s in scores
        ]
    return "\n".join(lines)


def sheet(estimator: GeometryEstimator, views: Views, size: int, timesteps: Sequence[int | None] = TIMESTEPS) -> Tensor:
    """Draw a grid with one row per view: true disparity and normal, then input and predictions per timestep."""
    columns: list[Tensor] = []
    for timestep in timesteps:
        for batch in noisy_batches(views, size, timestep, count=len(views.foreground)):
            with torch.no_grad():
                estimate = estimator(batch.image, batch.noise_level)
            if not columns:
                columns += [_gray(batch.disparity), batch.normal * 0.5 + 0.5]
            columns += [batch.image, _gray(estimate.disparity), estimate.normal * 0.5 + 0.5]
    return torch.cat(list(torch.cat(columns, 3)), 1).clamp(0, 1)


def milliseconds(estimator: GeometryEstimator, size: int = SIZE, batch: int = 2, repeats: int = 20) -> float:
    """Measure the CPU time of the disparity and its image gradient, in milliseconds; the minimum of the repeats."""
    image = torch.full((batch, 3, size, size), 0.5, requires_grad=True)
    times = []
    for _ in range(repeats):
        start = time.process_time()
        estimate = estimator(image, torch.full((batch,), 0.5))
        torch.autograd.grad(estimate.disparity.sum(), image)
        times.append(time.process_time() - start)
    return 1000 * min(times)


def noisy_batches(views: Views, size: int, timestep: int | None, seed: int = 0, count: int = 32) -> list[Batch]:
    """Return all views in order, `count` per batch; the seed determines backgrounds and noise."""
    schedule, generator = NoiseSchedule.scaled_linear(), torch.Generator().manual_seed(seed)
    alpha, sigma = torch.ones(()), torch.zeros(())
    if timestep is not None:
        alpha, sigma = schedule.alphas[timestep], schedule.sigmas[timestep]
    out = []
    for start in range(0, len(views.foreground), count):
        part = views[start : start + count]
        rows = len(part.foreground)
        out.append(noisy_batch(part, size, alpha.expand(rows), sigma.expand(rows), generator))
    return out


def _scores(estimate: GeometryEstimate, batch: Batch) -> Float[Tensor, "4 b"]:
    mask = batch.mask.float()
    covered = mask.sum((1, 2, 3)).clamp(min=1)
    cosine = (estimate.normal * batch.normal).sum(1, keepdim=True).clamp(-1, 1)
    degrees = torch.rad2deg(torch.acos(cosine)) * mask
    return torch.stack(
        [
            weighted_pearson(estimate.disparity, batch.disparity, torch.ones_like(mask)),
            weighted_pearson(estimate.disparity, batch.disparity, mask),
            degrees.sum((1, 2, 3)) / covered,
            ((estimate.disparity - batch.disparity).abs() * mask).sum((1, 2, 3)) / covered,
        ]
    )


def _gray(disparity: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 3 h w"]:
    return disparity.expand(-1, 3, -1, -1)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--objects", type=int, default=HELD_OUT.objects, help="to score on, 4 views each")
    parser.add_argument("--sheet", type=Path, metavar="PNG", help="also draw eight views at 128 pixels")
    given = parser.parse_args(arguments)
    estimator = load_monocular_estimator(str(given.model))
    views = render_views(HELD_OUT, 0, given.objects)
    print(table(estimator, views))
    print(f"\n{milliseconds(estimator):.0f} ms for 2 images of {SIZE} pixels, forward and backward, ", end="")
    print(f"{torch.get_num_threads()} threads")
    if given.sheet:
        image = sheet(estimator, views[: 4 * 8 : 4], SIZE)
        Image.fromarray((image.permute(1, 2, 0).numpy() * 255).astype(np.uint8)).save(given.sheet)


if __name__ == "__main__":
    main()
