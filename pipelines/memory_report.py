"""What a run says about memory before its first step."""

from __future__ import annotations

import torch

from ..distill.diffusion import DiffusersPrior, MemoryEstimate, estimate_memory
from .pipeline import Pipeline


def memory_lines(pipeline: Pipeline) -> list[str]:
    """An estimate for the stage with the most views, and whether the GPU has as much; none for other priors."""
    prior = pipeline.prior
    if not isinstance(prior, DiffusersPrior):
        return []
    methods = [pipeline.config.method_of(name) for name in pipeline.stages]
    try:
        estimate = estimate_memory(
            prior,
            pipeline.embedding,
            max(stage.views.per_step for stage in pipeline.stages.values()),
            unconditional=any(method.guidance_scale != 1 for method in methods),
            decodes=any(method.needs_estimator for method in methods),
        )
    except (NotImplementedError, RuntimeError) as error:  # an operation that has no shapes-only form: no reason to stop
        return [f"memory: not known beforehand ({' '.join(str(error).split())[:200]})"]
    lines, free = [describe(estimate)], free_bytes(prior.device)
    if free is not None and estimate.step > free:
        lines.append(too_much(free, prior))
    return lines


def describe(estimate: MemoryEstimate) -> str:
    """One line of the run's log, in GB of 10^9 bytes."""
    weights = ", ".join(f"{name} {_gb(size)}" for name, size in estimate.weights.items())
    return (
        f"memory, estimated: {_gb(estimate.step)} GB in a step without the scene: {weights}; kept for the gradient of "
        f"the pictures {_gb(estimate.kept)}, one call of the denoiser {_gb(estimate.predict - estimate.kept)}. Text "
        f"encoders, gone by then: {_gb(estimate.text_encoders)}"
    )


def too_much(free: int, prior: DiffusersPrior) -> str:
    """Which setting to lower, what costs least first."""
    autoencoder = prior.parts.get("autoencoder")
    if prior.micro_batch != 1:
        advice = "set prior.micro_batch=1"
    elif autoencoder is not None and not autoencoder.is_gradient_checkpointing:
        advice = "set prior.gradient_checkpointing=true"
    else:
        advice = "lower prior.picture_size or choose a smaller model"
    return f"that is more than the {_gb(free)} GB that the GPU has for it: {advice}"


def free_bytes(device: torch.device) -> int | None:
    """What this process can have in all, with what it has already; None if that is not known."""
    if device.type != "cuda":
        return None
    return torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device)


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f}"
