"""Train the small prior on the procedural world: python -m steindreamer.training.prior.train --run FOLDER

Interrupted, the same command goes on from its last checkpoint and ends with the same weights; until the cool-down (the
last 30 % of the steps) begins, --steps may be changed. One thread is the best use of a shared machine; --device cuda
trains on a GPU. The views are rendered once, next to the run. RUN/prior is the result, RUN/evaluation.jsonl its course.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...distill.schedule import NoiseSchedule, NoisySample
from ..checkpoints import check_settings, learning_rate_factor, load_checkpoint, save_checkpoint
from .dataset import Batch, ViewCache, ViewSettings, draw_batch
from .evaluate import Examples, evaluate
from .model import PriorShape, TinyPrior, save_tiny_prior, tokenize
from .wording import build_tokenizer, vocabulary

STEPS = 22000
"""Of the shipped weights."""


@dataclass(frozen=True)
class TrainingSettings:
    """What the weights depend on, besides the views, the network's shape and the number of steps."""

    pictures: int = 32
    """Per step."""
    learning_rate: float = 2e-3
    warm_up: int = 100
    cool_down: float = 0.3
    """Of the steps, at the end: the learning rate falls to 0. Until then it does not depend on their number."""
    weight_decay: float = 0.01
    ema: float = 0.999
    noise_exponent: float = 0.6
    """Timesteps are uniform numbers to this power: below 1, the noisy ones come more often. There nothing but the words
    and the camera says what is in the picture, and learning to listen to them takes the longest."""
    largest_weight: float = 2.0
    """Of a picture's squared error; weights are 1 / sigma^2 up to here (Hang et al. 2023, "min-SNR", plus one)."""
    posterior_target: bool = True
    """Learn the mean of the caption's other objects, too, weighted by how well they explain the noisy picture."""
    seed: int = 0


class Trainer:
    """The network, its optimizer and its moving average; one `step` at a time."""

    def __init__(
        self, settings: TrainingSettings, shape: PriorShape, cache: ViewCache, steps: int, device: str = "cpu"
    ) -> None:
        self.settings, self.cache, self.steps, self.device = settings, cache, steps, torch.device(device)
        self.schedule = NoiseSchedule.scaled_linear()
        self.tokenizer: Any = build_tokenizer(vocabulary(cache.settings.kinds))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.model = TinyPrior(shape, self.tokenizer).to(self.device).train()
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), settings.learning_rate, (0.9, 0.98), weight_decay=settings.weight_decay, fused=True
        )
        self.steps_done = 0

    def step(self) -> tuple[float, float]:
        """One optimizer step; the loss, and the mean squared error of the estimated pictures."""
        for group in self.optimizer.param_groups:
            factor = learning_rate_factor(self.steps_done, self.steps, self.settings.warm_up, self.settings.cool_down)
            group["lr"] = self.settings.learning_rate * factor
        batch, sample, target = self._draw()
        tokens = tokenize(self.tokenizer, batch.texts).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            estimate = self.model(sample.noisy, sample.timestep, tokens, batch.features.to(self.device)).float()
        weight = sample.sigma.flatten().pow(-2).clamp(max=self.settings.largest_weight)
        loss = (weight * (estimate - target).square().mean((1, 2, 3))).mean()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.steps_done += 1
        decay = min(self.settings.ema, self.steps_done / (self.steps_done + 10))
        for averaged, current in zip(self.average.parameters(), self.model.parameters(), strict=True):
            averaged.lerp_(current.detach(), 1 - decay)
        return loss.item(), (estimate.detach() - sample.clean).square().mean().item()

    def _draw(self) -> tuple[Batch, NoisySample, Float[Tensor, "b 3 h w"]]:
        # Seeded by the step, so that a resumed run sees the same pictures without any state to save.
        batch = draw_batch(self.cache, self.settings.pictures, (self.settings.seed, self.steps_done))
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.steps_done)
        count = len(batch.texts)
        spread = (torch.rand((), generator=generator) + torch.arange(count) / count) % 1
        timestep = (spread**self.settings.noise_exponent * self.schedule.steps).long().to(self.device)
        noise = torch.randn(batch.pictures[:, 0].shape, generator=generator).to(self.device)
        pictures = batch.pictures.to(self.device)
        sample = self.schedule.add_noise(pictures[:, 0], noise, timestep)
        return batch, sample, posterior_mean(sample, pictures) if self.settings.posterior_target else sample.clean

    def save(self, folder: Path) -> None:
        """The checkpoint, and the averaged weights as `load_pipeline` reads them."""
        checkpoint, average = folder / "checkpoint.safetensors", self.average.state_dict()
        save_checkpoint(checkpoint, self.model, average, self.optimizer, self.steps_done)
        views = self.cache.settings
        save_tiny_prior(folder / "prior", self.average, self.tokenizer, views.kinds, views.held_out, self.steps_done)

    def load(self, folder: Path) -> None:
        checkpoint, average = folder / "checkpoint.safetensors", self.average.state_dict()
        self.steps_done = load_checkpoint(checkpoint, self.model, average, self.optimizer)


def posterior_mean(sample: NoisySample, pictures: Float[Tensor, "b k 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """The mean of pictures drawn from one distribution, the true one among them, given the noisy one.

    As a regression target it has the same expectation as the true picture alone, and less variance (Rao-Blackwell).
    """
    alpha, sigma = sample.alpha[:, None], sample.sigma.flatten()[:, None]
    distance = (sample.noisy[:, None] - alpha * pictures).square().sum((2, 3, 4))
    weight = (-distance / (2 * sigma**2)).softmax(1)
    return torch.einsum("bk,bkchw->bchw", weight, pictures)


def train(
    folder: Path,
    steps: int,
    settings: TrainingSettings,
    shape: PriorShape,
    cache: ViewCache,
    *,
    device: str = "cpu",
    save_every: int = 300,
    evaluate_every: int = 1200,
    cpu_seconds: float = math.inf,
) -> Path:
    """Train, or go on from the folder's checkpoint, to `steps` steps; returns the folder of the finished prior.

    After `cpu_seconds` of steps it stops in any case. `evaluate_every` 0: never, not even at the end.

    Raises ValueError if the folder holds a run of other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    views = json.loads(json.dumps(asdict(cache.settings)))
    check_settings(folder / "settings.json", {"training": asdict(settings), "network": asdict(shape), "views": views})
    trainer = Trainer(settings, shape, cache, steps, device)
    if (folder / "checkpoint.safetensors").exists():
        trainer.load(folder)
        print(f"going on from step {trainer.steps_done}", flush=True)
    examples = Examples.render(cache.settings) if evaluate_every else None
    course, spent = [], 0.0
    while trainer.steps_done < steps and spent < cpu_seconds:
        started = time.process_time()
        course.append(trainer.step())
        done, spent = trainer.steps_done, spent + time.process_time() - started
        if done % 100 == 0:
            loss, error = (sum(values) / len(course) for values in zip(*course, strict=True))
            print(f"step {done}  {spent:.0f} CPU-s  loss {loss:.4f}  squared error {error:.4f}", flush=True)
            course = []
        finished = done == steps or spent >= cpu_seconds
        if done % save_every == 0 or finished:
            trainer.save(folder)
        if examples and (done % evaluate_every == 0 or finished):
            scores = evaluate(trainer.average, trainer.tokenizer, examples)
            with (folder / "evaluation.jsonl").open("a") as file:
                file.write(json.dumps({"step": done, "cpu_seconds": round(spent), **scores}) + "\n")
    return folder / "prior"


def main(arguments: list[str] | None = None) -> None:
    defaults, views, shape = TrainingSettings(), ViewSettings(), PriorShape()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="checkpoints and the result")
    parser.add_argument("--views", type=Path, metavar="FOLDER", help="rendered views (default: RUN/views)")
    parser.add_argument("--sets", type=int, default=views.sets_per_caption, help="of 8 objects to render per caption")
    parser.add_argument("--kinds", default=",".join(views.kinds), help="separated by commas")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--pictures", type=int, default=defaults.pictures, help="per step")
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--noise-exponent", type=float, default=defaults.noise_exponent, help="below 1: more noise")
    parser.add_argument("--largest-weight", type=float, default=defaults.largest_weight, help="of a squared error")
    parser.add_argument("--plain-target", action="store_true", help="learn the single picture, not a posterior mean")
    parser.add_argument("--patch", type=int, default=shape.patch, help="pixels per side that become channels")
    parser.add_argument("--channels", default=",".join(map(str, shape.channels)), help="of the levels, finest first")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--evaluate-every", type=int, default=1200, metavar="STEPS", help="0: never")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the training")
    parser.add_argument("--processes", type=int, default=1, help="that render the views")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    kinds = tuple(given.kinds.split(","))
    views = ViewSettings(
        kinds=kinds,
        held_out=tuple(pair for pair in views.held_out if pair[0] in kinds),
        sets_per_caption=given.sets,
        seed=given.seed,
    )
    cache = ViewCache.open_or_render(given.views or given.run / "views", views, given.processes)
    settings = TrainingSettings(
        pictures=given.pictures,
        learning_rate=given.learning_rate,
        noise_exponent=given.noise_exponent,
        largest_weight=given.largest_weight,
        posterior_target=not given.plain_target,
        seed=given.seed,
    )
    channels = tuple(int(count) for count in given.channels.split(","))
    shape = PriorShape(given.patch, channels)
    finished = train(
        given.run, given.steps, settings, shape, cache, device=given.device, evaluate_every=given.evaluate_every
    )
    print(f"finished: {finished}")


if __name__ == "__main__":
    main()
