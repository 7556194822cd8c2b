"""A LoRA denoiser: trainable, camera-conditioned low-rank updates of a frozen denoiser (LoRA, 2106.09685).

The updates are applied by forward hooks only while the LoRA denoiser is active. The denoiser's modules, parameters and
outputs are unchanged, and several LoRA denoisers may share one denoiser. All families are supported in the same way,
since their attention projections and time embeddings have the same names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

_PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
"""Names in diffusers of the linear layers of attention."""
_TIME_EMBEDDINGS = ("time_embedding", "timestep_embedder")
"""Names in diffusers of the layers that embed the noise level, in U-Nets and in transformers."""


class LoRADenoiser(nn.Module):
    """LoRA of a denoiser: every attention projection W becomes W + B A with trainable A [rank, in] and B [out, rank].

    The camera, a 4 x 4 matrix, is embedded by a small network and added to the time embedding, as in ProlificDreamer
    (2305.16213). B and the network's last layer are initialized with zero, so that the initial predictions are those of
    the denoiser. Parameters are float32 and are cast to the denoiser's precision on use. The state dict holds only
    them; below `layers.` they have the names that diffusers and peft give LoRA weights.
    """

    def __init__(self, denoiser: nn.Module, rank: int = 4, *, camera: bool = True, generator: torch.Generator) -> None:
        """Create the updates.

        Args:
            denoiser: a diffusers denoiser, frozen by the caller.
            camera: whether predictions are conditioned on the camera.

        Raises ValueError unless rank >= 1, and for a network without the required layers.
        """
        super().__init__()
        if rank < 1:
            raise ValueError(f"a LoRA denoiser needs rank >= 1, got {rank}")
        # Neither it nor its layers are submodules: their weights do not belong in this module's state.
        object.__setattr__(self, "denoiser", denoiser)
        self.denoiser: Any
        self.layers = nn.Module()
        self._updates: list[tuple[nn.Linear, _LoRAUpdate]] = []
        for path, layer in denoiser.named_modules():
            if isinstance(layer, nn.Linear) and f".{path}".endswith(tuple(f".{name}" for name in _PROJECTIONS)):
                update = _LoRAUpdate(layer, rank, generator)
                _place(self.layers, path, update)
                self._updates.append((layer, update))
        if not self._updates:
            raise ValueError(f"{type(denoiser).__name__} has no attention projections {', '.join(_PROJECTIONS)}")
        self.camera = _camera_network(_time_embedding(denoiser).linear_2.out_features, generator) if camera else None
        self.to(next(denoiser.parameters()).device)

    @contextmanager
    def active(self, camera: Float[Tensor, "b 4 4"] | None = None) -> Iterator[None]:
        """Apply the updates to calls of the denoiser within the context; backward passes may follow outside.

        The LoRA denoiser does not use `torch.compile`.

        Args:
            camera: one camera-to-world matrix per row of the call; zeros, or None for all rows, drop the camera
                condition.

        Raises ValueError for cameras if it was created without the camera condition.
        """
        if camera is not None and self.camera is None:
            raise ValueError("this LoRA denoiser was made with camera=False and is not camera-conditioned")
        handles = [layer.register_forward_hook(_adding(update)) for layer, update in self._updates]
        if self.camera is not None:
            handles.append(_time_embedding(self.denoiser).register_forward_hook(_adding_camera(self.camera, camera)))
        try:
            # A compiled denoiser would be recompiled for each call, since the hooks are new.
            with torch.compiler.set_stance("force_eager"):
                yield
        finally:
            for handle in handles:
                handle.remove()


class _LoRAUpdate(nn.Module):
    def __init__(self, layer: nn.Linear, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.lora_A = _linear(layer.in_features, rank, 2.0, generator)
        self.lora_B = _linear(rank, layer.out_features, 0.0, generator)

    def forward(self, x: Float[Tensor, "... i"]) -> Float[Tensor, "... o"]:
        down, up = self.lora_A.weight.to(x.dtype), self.lora_B.weight.to(x.dtype)
        return F.linear(F.linear(x, down), up)


def _camera_network(width: int, generator: torch.Generator) -> nn.Sequential:
    first = _linear(16, width, 0.25, generator, bias=True)
    return nn.Sequential(first, nn.SiLU(), _linear(width, width, 0.0, generator, bias=True))


def _linear(inputs: int, outputs: int, spread: float, generator: torch.Generator, *, bias: bool = False) -> nn.Linear:
    """A linear layer with weights from N(0, spread^2) and zero biases."""
    layer: Any = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(spread * torch.randn(outputs, inputs, generator=generator, device=generator.device))
        if bias:
            layer.bias.zero_()
    return layer


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    """Insert a layer below `root` at its path in the denoiser, so that the state dict has the denoiser's names."""
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, nn.Module())
        root = root.get_submodule(parent)
    root.add_module(name, module)


def _time_embedding(denoiser: nn.Module) -> Any:
    found = [module for path, module in denoiser.named_modules() if path.rpartition(".")[2] in _TIME_EMBEDDINGS]
    if len(found) != 1:
        raise ValueError(f"{type(denoiser).__name__} has {len(found)} of {', '.join(_TIME_EMBEDDINGS)}; one is needed")
    return found[0]


def _adding(update: _LoRAUpdate) -> Any:
    def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        return output + update(inputs[0])

    return hook


def _adding_camera(network: nn.Sequential, camera: Tensor | None) -> Any:
    def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        matrix = output.new_zeros(len(output), 4, 4) if camera is None else camera
        if len(matrix) != len(output):
            raise ValueError(f"the denoiser is called with {len(output)} rows, and there are {len(matrix)} cameras")
        return output + network(matrix.flatten(1).float()).to(output.dtype)

    return hook
