"""The optimizer of a stage: its settings, parameter groups and learning rates, and its state as named tensors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import torch
from annotated_types import Interval
from torch import Tensor

from steindreamer.representations import Representation
from steindreamer.representations.background import Environment

from ..errors import UserError

_MOMENTS = ("exp_avg", "exp_avg_sq")
"""State with the shape of the parameter; all other state is scalar."""

_STATE = {
    "adam": {"step", *_MOMENTS},
    "adamw": {"step", *_MOMENTS},
    "nadam": {"step", "mu_product", *_MOMENTS},
    "radam": {"step", *_MOMENTS},
}
"""Names of the state that torch keeps per parameter, by optimizer."""

_FUSED = ("adam", "adamw")
"""Optimizers of which torch has a kernel for the CPU that updates a parameter and its state in one pass."""


@dataclass
class OptimizerConfig:
    """The optimizer of a stage, one of the Adam family.

    The learning rates of a representation are roughly distances that a parameter moves per step. Only optimizers that
    normalize the gradient preserve this, hence no SGD. beta and eps are those of threestudio's configurations.
    """

    name: Literal["adam", "adamw", "nadam", "radam"] = "adam"
    """Optimizer: `adam` [Kingma & Ba 2015], `adamw` [Loshchilov & Hutter 2019], `nadam` [Dozat 2016] or `radam` [Liu et
    al. 2020]."""
    betas: list[Annotated[float, Interval(ge=0, lt=1)]] = field(default_factory=lambda: [0.9, 0.99])
    """Decay rates per step of the running means of the gradient and of its square."""
    eps: Annotated[float, Interval(gt=0, le=1)] = 1e-15
    """Constant added to the root mean square of a parameter's gradient, in units of the loss."""
    weight_decay: Annotated[float, Interval(ge=0, le=1)] = 0.0
    """Weight decay of all parameters and of the learned background. For adamw, the fraction weight_decay * learning
    rate of a parameter is subtracted per step; for the others, weight_decay times the parameter is added to the
    gradient."""

    def __post_init__(self) -> None:
        if len(self.betas) != 2:
            raise ValueError(f"betas is {list(self.betas)}; give two numbers, such as [0.9, 0.99]")

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """Build the optimizer for these parameter groups (`optimizer_groups`)."""
        kinds = {
            "adam": torch.optim.Adam,
            "adamw": torch.optim.AdamW,
            "nadam": torch.optim.NAdam,
            "radam": torch.optim.RAdam,
        }
        beta1, beta2 = self.betas
        options: dict[str, Any] = {}
        if self.name in _FUSED and all(p.device.type == "cpu" for group in groups for p in group["params"]):
            options["fused"] = True
        return kinds[self.name](groups, betas=(beta1, beta2), eps=self.eps, weight_decay=self.weight_decay, **options)


def optimizer_groups(representation: Representation, environment: Environment | None) -> list[dict[str, Any]]:
    """One group per parameter, with its name and learning rate. Raises UserError for an invalid learning rate."""
    groups = representation.optimizer_groups()
    _check_rates(representation, {str(group["name"]): group["lr"] for group in groups})
    if environment is not None:
        rates, prefix = environment.learning_rates(""), "environment."
        groups += [
            {"name": prefix + name, "params": [p], "lr": rates[name]} for name, p in environment.named_parameters()
        ]
    return groups


def set_learning_rates(
    optimizer: torch.optim.Optimizer, representation: Representation, progress: float, factor: float
) -> None:
    """Set the learning rates of the representation's groups to those at `progress`, times `factor`. The rates of the
    environment are not changed.

    Raises UserError for an invalid learning rate.
    """
    rates = representation.learning_rates(progress)
    _check_rates(representation, rates)
    for group in optimizer.param_groups:
        if group["name"] in rates:
            group["lr"] = rates[group["name"]] * factor


def check_still_optimized(optimizer: torch.optim.Optimizer, representation: Representation) -> None:
    """Raises UserError if the optimizer's parameters are not the scene's any more, after `Adaptive.adapt`."""
    optimized = {id(p): p for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in representation.named_parameters():
        state = optimizer.state.get(parameter, {}) if id(parameter) in optimized else None
        wrong = "a different tensor than the one that the optimizer updates" if state is None else ""
        for key, value in (state or {}).items():
            if torch.is_tensor(value) and value.dim() and value.shape != parameter.shape:
                wrong = (
                    f"of shape {tuple(parameter.shape)}, but the optimizer's '{key}' is of shape {tuple(value.shape)}"
                )
        if wrong and parameter.requires_grad:
            raise UserError(
                f"after {type(representation).__name__}.adapt the parameter '{name}' is {wrong}; adapt must change "
                "both the parameters and the optimizer's state in place"
            )


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as PARAMETER.KEY; empty before its first step."""
    return {
        f"{group['name']}.{key}": torch.as_tensor(value)
        for group in optimizer.param_groups
        for key, value in optimizer.state.get(group["params"][0], {}).items()
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors that `optimizer_tensors` returned. Raises ValueError for other names, types or shapes."""
    for group in optimizer.param_groups:
        prefix = f"{group['name']}."
        state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
        parameter = group["params"][0]
        optimizer.state.pop(parameter, None)
        if not state:
            continue  # before its first step
        if state.keys() != _STATE[type(optimizer).__name__.lower()]:
            raise ValueError(
                f"the optimizer's state of '{group['name']}' has the unexpected keys {', '.join(sorted(state))}"
            )
        for name, value in state.items():
            expected = parameter.shape if name in _MOMENTS else torch.Size()
            if value.shape != expected or not value.is_floating_point():
                raise ValueError(
                    f"the optimizer's {name} of '{group['name']}' is {value.dtype} {tuple(value.shape)}, but the "
                    f"parameter is {tuple(parameter.shape)}"
                )
        optimizer.state[parameter] = {
            k: v.to(parameter.device if k in _MOMENTS else "cpu").clone() for k, v in state.items()
        }


def _check_rates(representation: Representation, rates: Mapping[str, Any]) -> None:
    """Raises UserError that names the representation and the parameter for a rate that is none."""
    for name, rate in rates.items():
        if not 0 <= rate < math.inf:
            raise UserError(
                f"{type(representation).__name__}.learning_rates returned {rate} for '{name}'; a finite number of at "
                "least 0 is accepted"
            )
