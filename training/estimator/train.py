"""Train a geometry estimator: python -m steindreamer.training.estimator.train --run FOLDER [--network timm]

If interrupted, the same command resumes from the last checkpoint and ends with the same weights. On a shared machine,
one thread is the most efficient; --device cuda trains on a GPU. The views are rendered once, next to the run.
--start FOLDER begins with the weights of a trained estimator.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steindreamer.distill.control_variates.baselines import weighted_pearson
from steindreamer.distill.files.digests import file_digest, write_manifest
from steindreamer.distill.geometry.base import GeometryEstimate
from steindreamer.distill.geometry.files import WEIGHTS_FILE, EstimatorConfig, save_half
from steindreamer.distill.geometry.loading import load_monocular_estimator
from steindreamer.distill.geometry.timm_estimator import TimmEstimatorConfig, TimmGeometryEstimator
from steindreamer.distill.geometry.tiny_estimator import TinyEstimatorConfig, TinyGeometryEstimator
from steindreamer.distill.noise.schedule import NoiseSchedule

from ..checkpoints import check_settings, learning_rate_factor, load_checkpoint, save_checkpoint
from .dataset import SIZE, Batch, ViewCache, ViewSettings, augmented, noisy_batch

STEPS = 6000
NETWORKS: dict[str, type[EstimatorConfig]] = {"tiny": TinyEstimatorConfig, "timm": TimmEstimatorConfig}


@dataclass(frozen=True)
class TrainingSettings:
    """Settings that determine the weights, besides the views, the shape of the network and the number of steps."""

    images: int = 16
    """Images per step at half the stored size; half of that at the full size, where the head costs more."""
    full_size_share: float = 0.4
    """Fraction of the steps at the full size."""
    clean_share: float = 0.15
    """Fraction of clean images; the others use a timestep of the whole schedule, less noisy ones more often."""
    learning_rate: float = 2e-3
    warm_up: int = 200
    cool_down: float = 0.3
    """Fraction of the steps, at the end, over which the learning rate falls to 0.

    Before the cool-down the learning rate does not depend on the number of steps.
    """
    weight_decay: float = 1e-3
    ema: float = 0.999
    seed: int = 0


class Trainer:
    """Network, optimizer and moving average of a training."""

    def __init__(
        self,
        settings: TrainingSettings,
        config: EstimatorConfig,
        cache: ViewCache,
        steps: int,
        device: str = "cpu",
        start: Path | None = None,
    ) -> None:
        self.settings, self.cache, self.steps, self.device = settings, cache, steps, torch.device(device)
        self.schedule = NoiseSchedule.scaled_linear()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.model = build_estimator(config)
        if start is not None:
            self.model.load_state_dict(_trained(start, config))
        self.model.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), settings.learning_rate, (0.9, 0.98), weight_decay=settings.weight_decay
        )
        self.steps_done = 0

    def step(self) -> dict[str, float]:
        """Take one optimizer step; returns the losses by name."""
        for group in self.optimizer.param_groups:
            factor = learning_rate_factor(self.steps_done, self.steps, self.settings.warm_up, self.settings.cool_down)
            group["lr"] = self.settings.learning_rate * factor
        batch = self._batch().to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            estimate = self.model(batch.image.contiguous(memory_format=torch.channels_last), batch.noise_level)
        terms = losses(GeometryEstimate(estimate.disparity.float(), estimate.normal.float()), batch)
        self.optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.steps_done += 1
        decay = min(self.settings.ema, self.steps_done / (self.steps_done + 10))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:  # step counters of BatchNorm
                self.average[name].copy_(value)
        return {name: value.item() for name, value in terms.items()}

    def _batch(self) -> Batch:
        # The seed depends on the step, so that a resumed run draws the same images without a saved state.
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.steps_done)
        full = bool(torch.rand((), generator=generator) < self.settings.full_size_share)
        count = max(self.settings.images // 2, 1) if full else self.settings.images
        rows = torch.randint(len(self.cache), (count,), generator=generator)
        timestep = (torch.rand(count, generator=generator) ** 1.3 * self.schedule.steps).long()
        clean = torch.rand(count, generator=generator) < self.settings.clean_share
        alpha, sigma = (value.flatten() for value in self.schedule.at(timestep))
        views = augmented(self.cache.views(rows), generator)
        return noisy_batch(
            views,
            SIZE if full else SIZE // 2,
            torch.where(clean, 1.0, alpha),
            torch.where(clean, 0.0, sigma),
            generator,
        )

    def save(self, path: Path) -> None:
        """Save everything needed to resume, atomically."""
        save_checkpoint(path, self.model, self.average, self.optimizer, self.steps_done)

    def load(self, path: Path) -> None:
        """Restore a checkpoint written by `save`."""
        self.steps_done = load_checkpoint(path, self.model, self.average, self.optimizer)


def build_estimator(config: EstimatorConfig) -> nn.Module:
    """Build the network of a config with random weights. Raises ValueError for an unknown config type."""
    if isinstance(config, TimmEstimatorConfig):
        return TimmGeometryEstimator(config)
    if isinstance(config, TinyEstimatorConfig):
        return TinyGeometryEstimator(config)
    raise ValueError(f"no network for a {type(config).__name__}; there are {', '.join(NETWORKS)}")


def losses(estimate: GeometryEstimate, batch: Batch) -> dict[str, Float[Tensor, ""]]:
    """Compute the weighted terms of the training loss, each averaged over the images."""
    mask = batch.mask.float()
    everywhere = torch.ones_like(mask)
    cosine = (estimate.normal * batch.normal).sum(1, keepdim=True)
    return {
        "disparity": 3 * (estimate.disparity - batch.disparity).abs().mean(),
        "image": (1 - weighted_pearson(estimate.disparity, batch.disparity, everywhere)).mean(),
        "object": 2 * (1 - weighted_pearson(estimate.disparity, batch.disparity, mask)).mean(),
        "detail": 0.5 * gradient_difference(estimate.disparity, batch.disparity, mask),
        "normal": ((1 - cosine) * mask).sum() / mask.sum().clamp(min=1),
    }


def gradient_difference(
    estimate: Float[Tensor, "b 1 h w"], target: Float[Tensor, "b 1 h w"], mask: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, ""]:
    """Mean absolute difference of the gradients inside the object at four scales, in units of the object's relief.

    Source: Li and Snavely, "MegaDepth" (2018), Eq. 3.
    """
    weight = mask / mask.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (weight * target).sum((2, 3), keepdim=True)
    relief = (weight * (target - mean).square()).sum((2, 3), keepdim=True).sqrt().clamp(min=0.02)
    difference = (estimate - target) / relief
    total = estimate.new_zeros(())
    for spacing in (1, 2, 4, 8):
        for axis in (2, 3):
            length = difference.shape[axis] - spacing
            both = mask.narrow(axis, 0, length) * mask.narrow(axis, spacing, length)
            slope = difference.narrow(axis, spacing, length) - difference.narrow(axis, 0, length)
            total = total + (slope.abs() * both).sum() / both.sum().clamp(min=1) / 8
    return total


def train(
    folder: Path,
    steps: int,
    settings: TrainingSettings,
    config: EstimatorConfig,
    cache: ViewCache,
    *,
    device: str = "cpu",
    save_every: int = 200,
    start: Path | None = None,
) -> Path:
    """Train to `steps` steps, or resume from the checkpoint in the folder; returns the folder of the trained estimator.

    The number of steps may be changed until the cool-down begins, since the learning rate is constant until then.

    Args:
        folder: Folder of the run.
        steps: Total number of steps.
        settings: Settings of the training.
        config: Config of the network.
        cache: Views to train on.
        device: Device of the network.
        save_every: Steps between checkpoints.
        start: Folder of a trained estimator with the same config, whose weights the training begins with.

    Raises:
        ValueError: The folder holds a run with other settings, or `start` an estimator with another config.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described = {"training": asdict(settings), "network": asdict(config), "views": cache.settings}
    if start is not None:
        described["start"] = {WEIGHTS_FILE: file_digest(start / WEIGHTS_FILE)}
    check_settings(folder / "settings.json", described)
    trainer, checkpoint = Trainer(settings, config, cache, steps, device, start), folder / "checkpoint.safetensors"
    if checkpoint.exists():
        trainer.load(checkpoint)
        print(f"going on from step {trainer.steps_done}", flush=True)
    started = time.process_time()
    while trainer.steps_done < steps:
        terms = trainer.step()
        if trainer.steps_done % 50 == 0:
            text = "  ".join(f"{name} {value:.3f}" for name, value in terms.items())
            print(f"step {trainer.steps_done}  {time.process_time() - started:.0f} CPU-s  {text}", flush=True)
        if trainer.steps_done % save_every == 0 or trainer.steps_done == steps:
            trainer.save(checkpoint)
            save_half(folder / "estimator", config, trainer.average)
            write_manifest(folder / "estimator")
    return folder / "estimator"


def _trained(folder: Path, config: EstimatorConfig) -> dict[str, Tensor]:
    trained = load_monocular_estimator(str(folder))
    if trained.config != config:
        raise ValueError(
            f"{folder} holds an estimator with {trained.config}, not {config}: choose another to start with"
        )
    return trained.state_dict()


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    defaults, views, timm = TrainingSettings(), ViewSettings(), TimmEstimatorConfig()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="checkpoints and the result")
    parser.add_argument("--network", choices=NETWORKS, default="tiny")
    parser.add_argument("--backbone", default=timm.backbone, metavar="NAME", help="of timm, for --network timm")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="trained estimator to begin with")
    parser.add_argument("--views", type=Path, metavar="FOLDER", help="rendered views (default: RUN/views)")
    parser.add_argument("--objects", type=int, default=views.objects, help="to render, 4 views each")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--images", type=int, default=defaults.images, help="per step")
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the training")
    parser.add_argument("--processes", type=int, default=1, help="that render the views")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    cache = ViewCache.open_or_render(
        given.views or given.run / "views", ViewSettings(objects=given.objects, seed=given.seed), given.processes
    )
    settings = TrainingSettings(images=given.images, learning_rate=given.learning_rate, seed=given.seed)
    config = TimmEstimatorConfig(backbone=given.backbone) if given.network == "timm" else TinyEstimatorConfig()
    done = train(given.run, given.steps, settings, config, cache, device=given.device, start=given.start)
    print(f"finished: {done}")


if __name__ == "__main__":
    main()
