"""Text embeddings of prompts, one row per prompt, for any tensors that a model requires."""

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
        """Mix the p rows to b weighted sums. A token is masked only if all rows with nonzero weight mask it."""
        return TextRows({name: _blend(tensor, weights) for name, tensor in self.tensors.items()})

    def expand(self, count: int) -> TextRows:
        """Repeat a single row `count` times."""
        return TextRows({name: tensor.expand(count, *tensor.shape[1:]) for name, tensor in self.tensors.items()})

    def to(self, device: torch.device, dtype: torch.dtype) -> TextRows:
        """Convert device and dtype; masks stay boolean."""
        return TextRows(
            {
                name: tensor.to(device, torch.bool if tensor.dtype == torch.bool else dtype)
                for name, tensor in self.tensors.items()
            }
        )

    @staticmethod
    def concatenate(groups: Sequence[TextRows]) -> TextRows:
        """Concatenate the rows of all groups, in order."""
        return TextRows({name: torch.cat([group.tensors[name] for group in groups]) for name in groups[0].tensors})


def _blend(tensor: Tensor, weights: Float[Tensor, "b p"]) -> Tensor:
    if tensor.dtype == torch.bool:
        return torch.einsum("bp,p...->b...", (weights > 0).float(), tensor.float()) > 0
    return torch.einsum("bp,p...->b...", weights, tensor)
