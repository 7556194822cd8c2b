"""Train the small prior on the procedural world: python -m steindreamer.training.prior.train --run FOLDER

If interrupted, the same command resumes from the last checkpoint and ends with the same weights. --steps may be changed
until the cool-down begins (the last 30 % of the steps). On a shared machine, one thread is the most efficient; --device
cuda trains on a GPU. The views are rendered once, next to the run. With --rendered-elsewhere another process renders
them (steindreamer.training.prior.dataset), and the training uses those that are complete. The result is RUN/prior, the
evaluation log RUN/evaluation.jsonl.

With few CPU cores, a network for 64 px is cheapest in two runs. The first learns objects, words and cameras on coarse
patches:

    --patch 8 --channels 64,128,128 --warm-start PRIOR_OF_32_PX

The second adds a finer level in front, initialized from that of the 32 px prior:

    --patch 4 --channels 64,64,128,128 --warm-start PRIOR_OF_32_PX,FIRST_RUN/prior
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

from steindreamer.distill.noise.schedule import NoisySample

from ..checkpoints import check_settings, learning_rate_factor, load_checkpoint, save_checkpoint
from .dataset import Batch, ViewCache, add_view_arguments, draw_batch, view_settings
from .evaluate import Examples, evaluate
from .model import CameraConditionedPipeline, PriorShape, TinyPrior, load_pipeline, save_tiny_prior, tokenize
from .warm_start import warm_start
from .wording import build_tokenizer, vocabulary

STEPS = 30000


@dataclass(frozen=True)
class TrainingSettings:
    """Settings that determine the weights, besides the views, the shape of the network and the number of steps."""

    images: int = 32
    """Images per step."""
    learning_rate: float = 2e-3
    warm_up: int = 100
    cool_down: float = 0.3
    """Fraction of the steps, at the end, over which the learning rate falls to 0.

    Before the cool-down the learning rate does not depend on the number of steps.
    """
    weight_decay: float = 0.01
    ema: float = 0.999
    noise_exponent: float = 0.6
    """Exponent of the timestep sampling.

    Uniform numbers are raised to this power, so values below 1 favor noisy timesteps. There only the prompt and the
    camera determine the image, and learning to use them takes the longest.
    """
    largest_weight: float = 2.0
    """Maximum importance weight of an image's squared error.

    Weights are 1 / sigma^2 up to this value ("min-SNR" of Hang et al. 2023, plus one).
    """
    posterior_target: bool = True
    """Train on the mean over the caption's objects, weighted by their posterior given the noisy image."""
    seed: int = 0
    warm_start: str = ""
    """Comma-separated folders of priors whose matching weights are taken over, in this order; empty for none."""


class Trainer:
    """Network, optimizer and moving average of a training."""

    def __init__(
        self, settings: TrainingSettings, shape: PriorShape, cache: ViewCache, steps: int, device: str = "cpu"
    ) -> None:
        """Create the network. Raises ValueError if the views have another image size or other modalities."""
        views = cache.settings
        if views.crop_fraction and not shape.crops:
            raise ValueError("the views show parts of images, on which the network is not conditioned: set crops=True")
        if (shape.size, shape.modalities) != (views.size, views.modalities):
            raise ValueError(
                f"the network is for {shape.size} pixels and {', '.join(shape.modalities)}, "
                f"the views have {views.size} and {', '.join(views.modalities)}: make them agree"
            )
        self.settings, self.cache, self.steps, self.device = settings, cache, steps, torch.device(device)
        self.tokenizer: Any = build_tokenizer(vocabulary(cache.settings.kinds))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.model = TinyPrior(shape, self.tokenizer).to(self.device).train()
        self.schedule = self.model.schedule
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), settings.learning_rate, (0.9, 0.98), weight_decay=settings.weight_decay, fused=True
        )
        self.steps_done = 0

    def step(self) -> tuple[float, float]:
        """Take one optimizer step; returns the loss and the mean squared error of predicted x0."""
        for group in self.optimizer.param_groups:
            factor = learning_rate_factor(self.steps_done, self.steps, self.settings.warm_up, self.settings.cool_down)
            group["lr"] = self.settings.learning_rate * factor
        batch, sample, target = self._draw()
        tokens = tokenize(self.tokenizer, batch.texts).to(self.device)
        features = batch.features(self.model.features).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            estimate = self.model(sample.noisy, sample.timestep, tokens, features).float()
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

    def begin_from(self, source: CameraConditionedPipeline) -> float:
        """Take over the weights that fit; returns the fraction of the parameters that was taken, see `warm_start`."""
        fraction = warm_start(self.model, self.tokenizer, source)
        self.average.load_state_dict(self.model.state_dict())
        return fraction

    def _draw(self) -> tuple[Batch, NoisySample, Float[Tensor, "b 3 h w"]]:
        # The seed depends on the step, so that a resumed run draws the same images without a saved state.
        batch = draw_batch(self.cache, self.settings.images, (self.settings.seed, self.steps_done))
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.steps_done)
        count = len(batch.texts)
        spread = (torch.rand((), generator=generator) + torch.arange(count) / count) % 1
        timestep = (spread**self.settings.noise_exponent * self.schedule.steps).long().to(self.device)
        noise = torch.randn(batch.images[:, 0].shape, generator=generator).to(self.device)
        images = batch.images.to(self.device)
        sample = self.schedule.add_noise(images[:, 0], noise, timestep)
        return batch, sample, posterior_mean(sample, images) if self.settings.posterior_target else sample.clean

    def save(self, folder: Path) -> None:
        """Save the checkpoint, and the averaged weights in the format of `load_pipeline`."""
        checkpoint, average = folder / "checkpoint.safetensors", self.average.state_dict()
        save_checkpoint(checkpoint, self.model, average, self.optimizer, self.steps_done)
        views = self.cache.settings
        save_tiny_prior(folder / "prior", self.average, self.tokenizer, views.kinds, views.held_out, self.steps_done)

    def load(self, folder: Path) -> None:
        """Restore a checkpoint written by `save`."""
        checkpoint, average = folder / "checkpoint.safetensors", self.average.state_dict()
        self.steps_done = load_checkpoint(checkpoint, self.model, average, self.optimizer)


def posterior_mean(sample: NoisySample, images: Float[Tensor, "b k 3 h w"]) -> Float[Tensor, "b 3 h w"]:
    """Posterior mean of images from one distribution, the true image among them, given the noisy image.

    As a regression target it has the same expectation as the true image alone, and less variance (Rao-Blackwell).
    """
    alpha, variance = sample.alpha.flatten(1), sample.sigma.flatten(1).square()
    flat, noisy = images.flatten(2), sample.noisy.flatten(1)
    # This is -|noisy - alpha image|^2 / 2 without the term common to all images.
    likelihood = alpha * torch.bmm(flat, noisy[:, :, None])[..., 0] - alpha**2 / 2 * flat.square().sum(2)
    weight = (likelihood / variance).softmax(1)
    return torch.bmm(weight[:, None], flat)[:, 0].reshape(noisy.shape[0], *images.shape[2:])


def train(
    folder: Path,
    steps: int,
    settings: TrainingSettings,
    shape: PriorShape,
    cache: ViewCache,
    *,
    device: str = "cpu",
    save_every: int = 300,
    save_seconds: float = 200.0,
    evaluate_every: int = 1200,
    cpu_seconds: float = math.inf,
) -> Path:
    """Train to `steps` steps, or resume from the checkpoint in the folder; returns the folder of the trained prior.

    Args:
        folder: Folder of the run.
        steps: Total number of steps.
        settings: Settings of the training.
        shape: Shape of the network.
        cache: Views to train on.
        device: Device of the network.
        save_every: Maximum number of steps between checkpoints.
        save_seconds: Maximum number of seconds between checkpoints.
        evaluate_every: Steps between evaluations; 0 disables them, including the one at the end.
        cpu_seconds: CPU time in seconds after which the training stops.

    Raises:
        ValueError: The folder holds a run with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    views = json.loads(json.dumps(asdict(cache.settings)))
    check_settings(folder / "settings.json", {"training": asdict(settings), "network": asdict(shape), "views": views})
    trainer = Trainer(settings, shape, cache, steps, device)
    if (folder / "checkpoint.safetensors").exists():
        trainer.load(folder)
        print(f"going on from step {trainer.steps_done}", flush=True)
    elif settings.warm_start:
        for source in settings.warm_start.split(","):
            fraction = trainer.begin_from(load_pipeline(Path(source)))
            print(f"{fraction:.0%} of the weights from {source}", flush=True)
    examples = Examples.render(cache.settings) if evaluate_every else None
    course, spent, saved = [], 0.0, time.monotonic()
    while trainer.steps_done < steps and spent < cpu_seconds:
        started = time.process_time()
        course.append(trainer.step())
        done, spent = trainer.steps_done, spent + time.process_time() - started
        if done % 100 == 0:
            loss, error = (sum(values) / len(course) for values in zip(*course, strict=True))
            print(f"step {done}  {spent:.0f} CPU-s  loss {loss:.4f}  squared error {error:.4f}", flush=True)
            course = []
        finished = done == steps or spent >= cpu_seconds
        if done % save_every == 0 or finished or time.monotonic() - saved > save_seconds:
            trainer.save(folder)
            cache.refresh()
            saved = time.monotonic()
        if examples and (done % evaluate_every == 0 or finished):
            scores = evaluate(trainer.average, trainer.tokenizer, examples)
            with (folder / "evaluation.jsonl").open("a") as file:
                file.write(json.dumps({"step": done, "cpu_seconds": round(spent), **scores}) + "\n")
    return folder / "prior"


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    defaults, shape = TrainingSettings(), PriorShape()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="checkpoints and the result")
    parser.add_argument("--views", type=Path, metavar="FOLDER", help="rendered views (default: RUN/views)")
    parser.add_argument("--rendered-elsewhere", action="store_true", help="use the views that are there, and wait not")
    add_view_arguments(parser)
    parser.add_argument("--warm-start", default="", metavar="FOLDERS", help="priors whose weights to begin with")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--cpu-seconds", type=float, default=math.inf, help="stop after these, with a checkpoint")
    parser.add_argument("--images", type=int, default=defaults.images, help="per step")
    parser.add_argument("--learning-rate", type=float, default=defaults.learning_rate)
    parser.add_argument("--noise-exponent", type=float, default=defaults.noise_exponent, help="below 1: more noise")
    parser.add_argument("--largest-weight", type=float, default=defaults.largest_weight, help="of a squared error")
    parser.add_argument("--plain-target", action="store_true", help="learn the single image, not a posterior mean")
    parser.add_argument("--patch", type=int, default=shape.patch, help="pixels per side that become channels")
    parser.add_argument("--channels", default=",".join(map(str, shape.channels)), help="of the levels, finest first")
    parser.add_argument("--evaluate-every", type=int, default=1200, metavar="STEPS", help="0: never")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of the training")
    parser.add_argument("--processes", type=int, default=1, help="that render the views")
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    views, folder = view_settings(given), given.views or given.run / "views"
    if given.rendered_elsewhere:
        cache = ViewCache.open(folder, views)
    else:
        cache = ViewCache.open_or_render(folder, views, given.processes)
    settings = TrainingSettings(
        images=given.images,
        learning_rate=given.learning_rate,
        noise_exponent=given.noise_exponent,
        largest_weight=given.largest_weight,
        posterior_target=not given.plain_target,
        seed=given.seed,
        warm_start=given.warm_start,
    )
    channels = tuple(int(count) for count in given.channels.split(","))
    shape = PriorShape(
        given.patch, channels, size=views.size, modalities=views.modalities, crops=views.crop_fraction > 0
    )
    finished = train(
        given.run,
        given.steps,
        settings,
        shape,
        cache,
        device=given.device,
        evaluate_every=given.evaluate_every,
        cpu_seconds=given.cpu_seconds,
    )
    print(f"{finished}")


if __name__ == "__main__":
    main()
