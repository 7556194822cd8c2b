"""A program that takes a few steps of several small stages in one process and in two, and saves their states."""

from __future__ import annotations

import sys
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
import torch.distributed as dist
from forked_ranks import all_ended_well, fork_ranks
from safetensors.torch import save_file
from tiny_diffusion_models import save_tiny_model

from steindreamer.distill.ranks import Ranks
from steindreamer.pipelines.config.run_config import load_config
from steindreamer.pipelines.runs.pipeline import Pipeline

SMALL = [
    "prompt=a red mug", "stages.coarse.steps=4", "stages.coarse.resolution=24", "stages.coarse.warmup_resolution=24",
    "stages.coarse.views.per_step=2", "stages.coarse.probe_every=2", "stages.coarse.rates=1",
    "stages.coarse.modalities={color: 1, albedo: 0, normal: 0, depth: 0}",
]  # fmt: skip
SCENES = {
    "gaussians": ["representation={name: gaussians, count: 150, densify: {interval: 2, start: 0}}"],
    "nerf": ["representation={name: nerf, samples: 24, radiance: {hash_grid: {levels: 2, log2_size: 10}}}"],
    "dmtet": ["representation={name: dmtet, resolution: 12, color: {grid: {levels: 2, log2_size: 10}}}"],
}
CASES = {
    f"{scene}-{method}": [*settings, f"method.name={method}"]
    for scene, settings in SCENES.items()
    for method in ("sds", "ssd", "vsd")
} | {
    "shaded": [*SCENES["gaussians"], "stages.coarse.shading={enabled: true, begin: 0}"],
    "descent": [*SCENES["gaussians"], "method.control_variates.coefficients=second_moment"],
    "importance": [*SCENES["gaussians"], "method.timesteps={importance: true, stratified: true}"],
    "draws": [*SCENES["gaussians"], "method.draws=2"],
    "chosen_draws": [*SCENES["gaussians"], "method.draws=auto"],
    "collaborative": [*SCENES["gaussians"], "method.name=collaborative"],
    "z_variance": [*SCENES["nerf"], "stages.coarse.regularizers={z_variance: 1000}", "method.name=sds"],
    "reused": [*SCENES["gaussians"], "method.name=sds", "stages.coarse.reuse=2"],
    "background": [*SCENES["gaussians"], "stages.coarse.environment=true"],
    "particles": [*SCENES["gaussians"], "method.name=vsd", "particles=3", "representation.densify.interval=0"],
}  # fmt: skip


def take_steps(model: Path, out: Path, rank: int, count: int) -> None:
    """Run all cases, those of VSD on a text-to-image model; rank 0 saves one file of tensors per case in `out`."""
    if count > 1:
        dist.init_process_group("gloo", init_method=f"file://{out / 'meeting'}", rank=rank, world_size=count)
    ranks = Ranks(rank, count)
    for name, settings in CASES.items():
        needs_model = "method.name=vsd" in settings
        config = load_config("cpu", overrides=[*SMALL, *settings], prior=str(model) if needs_model else "world")
        stage = Pipeline(config, ranks=ranks).first()
        losses, gradients = list[float](), dict[str, torch.Tensor]()
        for _ in range(4):
            losses.append(stage.step().loss)
            # After the first step the first moment of Adam is the gradient, up to a factor.
            gradients = gradients or {
                f"gradient.{key}": tensor.clone() for key, tensor in stage.tensors().items() if key.endswith("exp_avg")
            }
        if ranks.leads:
            tensors = {key: tensor.detach().contiguous() for key, tensor in stage.tensors().items()}
            save_file({**tensors, **gradients, "losses": torch.tensor(losses)}, out / f"{name}.safetensors")
    if count > 1:
        dist.destroy_process_group()


def main(out: Path) -> bool:
    """Run the cases in one process and in two, and save the states in the folders `1` and `2`; returns whether none
    failed.
    """
    torch.set_num_threads(1)
    Pipeline._rehearse = lambda self, stage: None  # costs more than the steps
    model = save_tiny_model(out, "StableDiffusionPipeline")
    running = list[BaseProcess]()
    for count in (1, 2):
        folder = out / str(count)
        folder.mkdir()
        running += fork_ranks(count, partial(take_steps, model, folder))
    return all_ended_well(running)


if __name__ == "__main__":
    sys.exit(not main(Path(sys.argv[1])))
