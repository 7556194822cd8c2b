"""Report of the estimated GPU memory, logged before the first step of a run."""

from __future__ import annotations

import torch

from steindreamer.distill.priors.diffusion import DiffusersPrior, MemoryEstimate, estimate_memory
from steindreamer.distill.priors.guidance import guidance_prompts

from .pipeline import Pipeline


def memory_lines(pipeline: Pipeline) -> list[str]:
    """Estimate the memory of the stage with the most views, and compare it with the free GPU memory.

    Returns:
        Lines for the log; empty for priors without an estimate.
    """
    prior = pipeline.prior
    if not isinstance(prior, DiffusersPrior):
        return []
    methods = [pipeline.config.methods[name] for name in pipeline.stages]
    try:
        estimate = estimate_memory(
            prior,
            pipeline.embedding,
            max(stage.views.per_step for stage in pipeline.stages.values()),
            prompts=max((guidance_prompts(method.guidance_scale) for method in methods), key=len),
            decodes=any(method.needs_estimator for method in methods),
        )
    except (NotImplementedError, RuntimeError) as error:  # an operation has no shape-only implementation: not fatal
        return [f"memory: cannot be estimated ({' '.join(str(error).split())[:200]})"]
    lines, free = [describe(estimate)], free_bytes(prior.device)
    if free is not None and estimate.step > free:
        lines.append(too_much(free, prior))
    return lines


def describe(estimate: MemoryEstimate) -> str:
    """Format an estimate as one log line, in GB of 10^9 bytes."""
    weights = ", ".join(f"{name} {_gb(size)}" for name, size in estimate.weights.items())
    return (
        f"estimated memory: {_gb(estimate.step)} GB per step without the scene: {weights}; saved for the backward "
        f"pass of the image encoder {_gb(estimate.kept)}, one denoiser call {_gb(estimate.predict - estimate.kept)}. "
        f"Text encoders, freed before: {_gb(estimate.text_encoders)}"
    )


def too_much(free: int, prior: DiffusersPrior) -> str:
    """Return advice on which setting to lower, starting with the one that costs the least."""
    autoencoder = prior.parts.get("autoencoder")
    if prior.micro_batch != 1:
        advice = "set prior.micro_batch=1"
    elif autoencoder is not None and not autoencoder.is_gradient_checkpointing:
        advice = "set prior.gradient_checkpointing=true"
    else:
        advice = "lower prior.image_size or choose a smaller model"
    return f"that is more than the {_gb(free)} GB available on the GPU: {advice}"


def free_bytes(device: torch.device) -> int | None:
    """Return the memory available to this process, including what it has already allocated; None if unknown."""
    if device.type != "cuda":
        return None
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f}"
