"""Train the scorer: python -m steindreamer.training.scorer.train --run FOLDER [--views FOLDER]

If interrupted, the same command resumes from the last checkpoint and ends with the same weights; --device cuda trains
on a GPU. The views are rendered once, by default into RUN/views. The result is RUN/scorer, the training log
RUN/training.jsonl.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from steindreamer.distill.files.digests import write_manifest
from steindreamer.world import Caption
from steindreamer.world.scorer import ScorerConfig, WorldScorer, kind_indices, kind_logits, save_scorer

from ..checkpoints import check_settings, learning_rate_factor, load_checkpoint, save_checkpoint
from ..prior.dataset import ViewCache
from .dataset import VIEWS, Augmentation, Batch, LabeledViews
from .lighting import Lighting

STEPS = 3000


@dataclass(frozen=True)
class TrainingSettings:
    """Settings that determine the weights, besides the views, the shape of the network and the number of steps."""

    images: int = 64
    """Images per step."""
    learning_rate: float = 2e-3
    warm_up: int = 100
    cool_down: float = 0.5
    """Fraction of the steps, at the end, over which the learning rate falls to 0.

    Before the cool-down the learning rate does not depend on the number of steps.
    """
    weight_decay: float = 0.02
    label_smoothing: float = 0.05
    ema: float = 0.995
    seed: int = 0
    start: str | None = None
    """Folder of the scorer whose weights the training starts from; None for random weights."""


def caption_loss(
    logits: Float[Tensor, "b c"], batch: Batch, captions: Sequence[Caption], smoothing: float
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the captions of colored images and of the kinds of gray images.

    Args:
        logits: Logits of all captions, not only those of the batch, since there are few.
        batch: The images with their labels.
        captions: All captions; those of one kind are adjacent.
        smoothing: Label smoothing.
    """
    kinds = kind_indices(captions).to(logits.device)
    of_caption = F.cross_entropy(logits, batch.labels, label_smoothing=smoothing, reduction="none")
    of_kind = F.cross_entropy(
        kind_logits(logits, captions), kinds[batch.labels], label_smoothing=smoothing, reduction="none"
    )
    return torch.where(batch.colored, of_caption, of_kind).mean()


class Trainer:
    """Network, optimizer and moving average of a training."""

    def __init__(
        self, settings: TrainingSettings, config: ScorerConfig, cache: ViewCache, steps: int, device: str = "cpu"
    ) -> None:
        self.settings, self.steps, self.device = settings, steps, torch.device(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.model = WorldScorer(config)
        if settings.start is not None:
            self.model.load_state_dict(WorldScorer.load(Path(settings.start)).state_dict())
        self.views = LabeledViews(cache, self.model.known)
        self.lighting, self.augmentation = Lighting(), Augmentation()
        self.model.to(self.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
        # Not fused: it needs its state in the memory format of the weights, which checkpoints do not preserve.
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), settings.learning_rate, (0.9, 0.98), weight_decay=settings.weight_decay
        )
        self.steps_done = 0

    def step(self) -> dict[str, float]:
        """Take one optimizer step; returns the loss and the fraction of images with the correct kind."""
        settings, known = self.settings, self.model.known
        for group in self.optimizer.param_groups:
            factor = learning_rate_factor(self.steps_done, self.steps, settings.warm_up, settings.cool_down)
            group["lr"] = settings.learning_rate * factor
        # The seed depends on the step, so that a resumed run draws the same images without a saved state.
        generator = torch.Generator().manual_seed(settings.seed * 1_000_003 + self.steps_done)
        batch = self.views.draw(settings.images, self.lighting, self.augmentation, generator).to(self.device)
        images = batch.images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = self.model.score(images, known)
        loss = caption_loss(logits.float(), batch, known, settings.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.steps_done += 1
        decay = min(settings.ema, self.steps_done / (self.steps_done + 10))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, 1 - decay)
            else:  # step counters of BatchNorm
                self.average[name].copy_(value)
        kinds = kind_indices(known).to(self.device)
        right = kind_logits(logits, known).argmax(1) == kinds[batch.labels]
        return {"loss": loss.item(), "right": right.float().mean().item()}

    def save(self, folder: Path) -> None:
        """Save the checkpoint, and the averaged weights in the format of `WorldScorer.load`."""
        save_checkpoint(folder / "checkpoint.safetensors", self.model, self.average, self.optimizer, self.steps_done)
        save_scorer(folder / "scorer", self.model.config, self.average)
        write_manifest(folder / "scorer")

    def load(self, folder: Path) -> None:
        """Restore a checkpoint written by `save`."""
        path = folder / "checkpoint.safetensors"
        self.steps_done = load_checkpoint(path, self.model, self.average, self.optimizer)


def train(
    folder: Path,
    steps: int,
    settings: TrainingSettings,
    config: ScorerConfig,
    cache: ViewCache,
    *,
    device: str = "cpu",
    save_every: int = 100,
) -> Path:
    """Train to `steps` steps, or resume from the checkpoint in the folder; returns the folder of the trained scorer.

    Raises:
        ValueError: The folder holds a run with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described = {
        "training": asdict(settings),
        "network": asdict(config),
        "lighting": asdict(Lighting()),
        "augmentation": asdict(Augmentation()),
        "views": asdict(cache.settings),
    }
    check_settings(folder / "settings.json", described)
    trainer = Trainer(settings, config, cache, steps, device)
    if (folder / "checkpoint.safetensors").exists():
        trainer.load(folder)
        print(f"going on from step {trainer.steps_done}", flush=True)
    started, course = time.process_time(), []
    while trainer.steps_done < steps:
        course.append(trainer.step())
        done = trainer.steps_done
        if done % save_every == 0 or done == steps:
            trainer.save(folder)
            means = {name: round(sum(entry[name] for entry in course) / len(course), 4) for name in course[0]}
            record = {"step": done, "cpu_seconds": round(time.process_time() - started), **means}
            print(json.dumps(record), flush=True)
            with (folder / "training.jsonl").open("a") as file:
                file.write(json.dumps(record) + "\n")
            course = []
    return folder / "scorer"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    defaults = TrainingSettings()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="checkpoints and the result")
    parser.add_argument("--views", type=Path, metavar="FOLDER", help="rendered views (default: RUN/views)")
    parser.add_argument("--sets", type=int, default=VIEWS.sets_per_caption, help="of views to render, per caption")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--images", type=int, default=defaults.images, help="per step")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--start", metavar="FOLDER", help="scorer whose weights to start from")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the training")
    parser.add_argument("--processes", type=int, default=1, help="that render the views")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    views = replace(VIEWS, sets_per_caption=given.sets)
    cache = ViewCache.open_or_render(given.views or given.run / "views", views, given.processes)
    settings = TrainingSettings(images=given.images, seed=given.seed, start=given.start)
    print(f"finished: {train(given.run, given.steps, settings, ScorerConfig(), cache, device=given.device)}")


if __name__ == "__main__":
    main()
