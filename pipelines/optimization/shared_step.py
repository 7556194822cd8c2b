"""Exchange of gradients and of the renderer's statistics between the processes that share a step."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from steindreamer.distill.ranks import Ranks

from ..errors import UserError


def sum_gradients(ranks: Ranks, parameters: Sequence[nn.Parameter]) -> None:
    """Replace the gradients by their sums over the processes. A parameter without one in any process keeps none."""
    if ranks.count == 1 or not parameters:
        return
    present = ranks.anywhere([each.grad is not None for each in parameters], parameters[0].device)
    used = [each for each, found in zip(parameters, present, strict=True) if found]
    for each in used:
        if each.grad is None:
            each.grad = torch.zeros_like(each)
    ranks.sum_([each.grad for each in used if each.grad is not None])


def statistics_summed(ranks: Ranks, module: nn.Module) -> Callable[[], None]:
    """Begin a step. The returned function, called after its backward pass, adds what the other processes have added to
    the floating-point buffers of `module`, such as the gradients for the densification of Gaussians.
    """
    if ranks.count == 1:
        return lambda: None
    before = {name: buffer.clone() for name, buffer in module.named_buffers() if buffer.is_floating_point()}

    def add() -> None:
        buffers = dict(module.named_buffers())
        changed = [not torch.equal(buffers[name], kept) for name, kept in before.items()]
        if not before:
            return
        found = ranks.anywhere(changed, next(iter(before.values())).device)
        added: dict[str, Tensor] = {
            name: buffers[name] - kept for (name, kept), flag in zip(before.items(), found, strict=True) if flag
        }
        ranks.sum_(list(added.values()))
        for name, change in added.items():
            buffers[name].copy_(before[name] + change)

    return add


def check_equal(ranks: Ranks, parameters: Sequence[Tensor], step: int) -> None:
    """Compare a checksum of the parameters of all processes. Raises UserError if they differ."""
    if ranks.count == 1:
        return
    own = torch.stack([each.detach().double().sum().cpu() for each in parameters])[None]
    sums = ranks.gather(own)
    if not bool((sums == sums[:1]).all()):
        raise UserError(
            f"the processes hold different scenes after step {step}: their arithmetic differs; use equal devices"
        )
