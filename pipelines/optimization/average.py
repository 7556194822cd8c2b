"""Exponential moving average of a scene's parameters over the steps of a stage."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from steindreamer.representations import Representation


class ParameterAverage:
    """Exponential moving average of a scene's parameters, without the bias toward its start.

    After n steps it is the sum over steps i of decay^(n - i) * parameter_i, divided by the sum of these weights.
    """

    def __init__(self, representation: Representation, decay: float) -> None:
        """Start an average that replaces the parameters in `apply`.

        Args:
            representation: the scene; the shapes of its parameters must not change during a stage.
            decay: factor on the weight of a step per further step, in [0, 1).
        """
        self.representation, self.decay = representation, decay
        self._mean = {name: parameter.detach().clone() for name, parameter in representation.named_parameters()}

    @torch.no_grad()
    def update(self, steps: int) -> None:
        """Include the current parameters, those after `steps` steps of the stage, counted from 1."""
        weight = (1 - self.decay) / (1 - self.decay**steps)
        for name, parameter in self.representation.named_parameters():
            self._mean[name].lerp_(parameter, weight)

    @torch.no_grad()
    def apply(self) -> None:
        """Replace the parameters by their average."""
        for name, parameter in self.representation.named_parameters():
            parameter.copy_(self._mean[name])

    def tensors(self) -> dict[str, Tensor]:
        """The average by the parameters' names; the initial parameters before the first step."""
        return dict(self._mean)

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from saved tensors, once the parameters are loaded. Raises ValueError for other names or shapes."""
        own = dict(self.representation.named_parameters())
        if tensors.keys() != own.keys():
            given = ", ".join(sorted(tensors)) or "nothing"
            raise ValueError(f"the average is of {given}, not of {', '.join(sorted(own))}")
        for name, tensor in tensors.items():
            if tensor.shape != own[name].shape or tensor.dtype != own[name].dtype:
                raise ValueError(
                    f"the average of '{name}' is {tensor.dtype} {tuple(tensor.shape)}, but the parameter is "
                    f"{own[name].dtype} {tuple(own[name].shape)}"
                )
        self._mean = {name: tensor.to(own[name].device).clone() for name, tensor in tensors.items()}
