"""What a text encoder says about prompts, one row per prompt, whatever tensors a model wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class TextRows:
    """Named tensors whose first dimension counts prompts: embeddings in float32, and boolean masks of tokens."""

    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: slice | Tensor) -> TextRows:
        return TextRows({name: tensor[rows] for name, tensor in self.tensors.items()})

    def __or__(self, other: TextRows) -> TextRows:
        """The tensors of both, row by row."""
        return TextRows({**self.tensors, **other.tensors})

    def blend(self, weights: Float[Tensor, "b p"]) -> TextRows:
        """Mixtures of the p rows, b of them. A token is masked in unless all that has weight masks it out."""
        return TextRows({name: _blend(tensor, weights) for name, tensor in self.tensors.items()})

    def expand(self, count: int) -> TextRows:
        """A single row, `count` times."""
        return TextRows({name: tensor.expand(count, *tensor.shape[1:]) for name, tensor in self.tensors.items()})

    def to(self, device: torch.device, dtype: torch.dtype) -> TextRows:
        """Masks stay boolean."""
        return TextRows(
            {
                name: tensor.to(device, torch.bool if tensor.dtype == torch.bool else dtype)
                for name, tensor in self.tensors.items()
            }
        )

    @staticmethod
    def concatenate(groups: Sequence[TextRows]) -> TextRows:
        """All rows of all groups, in order."""
        return TextRows({name: torch.cat([group.tensors[name] for group in groups]) for name in groups[0].tensors})


def _blend(tensor: Tensor, weights: Float[Tensor, "b p"]) -> Tensor:
    if tensor.dtype == torch.bool:
        return torch.einsum("bp,p...->b...", (weights > 0).float(), tensor.float()) > 0
    return torch.einsum("bp,p...->b...", weights, tensor)
