"""The processes that share the views of a step, and the collective operations between them.

Every process draws the whole step from the same random numbers, renders its own views and predicts for them. Gradients
are summed, and the small tensors that steer a run are gathered, so that all processes continue with the same state.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor

Rows = TypeVar("Rows")


class Ranks:
    """Processes of one run, by rank; view i of a step belongs to rank `i % count`.

    A single process needs no `torch.distributed`: every method then returns its argument.

    Example:
        >>> from steindreamer.distill.ranks import Ranks
        >>> Ranks().leads
        True
    """

    def __init__(self, rank: int = 0, count: int = 1) -> None:
        """Describe this process.

        Args:
            rank: its number, from 0.
            count: number of processes; if it is above 1, the default group of `torch.distributed` has as many.

        Raises ValueError unless 0 <= rank < count.
        """
        if not 0 <= rank < count:
            raise ValueError(f"need 0 <= rank < count, got {rank} of {count}")
        self.rank, self.count = rank, count

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Within the context, this process works as if it were the only one."""
        kept = self.rank, self.count
        self.rank, self.count = 0, 1
        try:
            yield
        finally:
            self.rank, self.count = kept

    def own(self, rows: Rows) -> Rows:
        """The rows of this process, of anything that slices along its first axis, such as tensors and cameras."""
        return rows if self.count == 1 else rows[self.rank :: self.count]  # pyright: ignore[reportIndexIssue, reportUnknownVariableType]

    def gather(self, rows: Shaped[Tensor, ...], dim: int = 0) -> Shaped[Tensor, ...]:
        """The rows of all processes in the order of the views, without a graph. Every process has equally many.

        Args:
            rows: those of this process.
            dim: the axis of the views.
        """
        if self.count == 1:
            return rows
        mine = rows.detach().movedim(dim, 0).contiguous()
        as_numbers = mine.to(torch.uint8) if mine.dtype == torch.bool else mine
        parts = [torch.empty_like(as_numbers) for _ in range(self.count)]
        dist.all_gather(parts, as_numbers)
        return torch.stack(parts, 1).flatten(0, 1).to(mine.dtype).movedim(0, dim)

    def gather_around(self, rows: Shaped[Tensor, "r ..."]) -> Shaped[Tensor, "b ..."]:
        """The rows of all processes, where those of this process keep their graph."""
        if self.count == 1:
            return rows
        parts = list(self.gather(rows).unbind(0))
        parts[self.rank :: self.count] = list(rows.unbind(0))
        return torch.stack(parts)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace floating-point tensors by their sums over the processes, which are the same bits everywhere."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def anywhere(self, flags: Sequence[bool], device: torch.device) -> list[bool]:
        """Whether each flag is set in any process."""
        if self.count == 1 or not flags:
            return list(flags)
        found = torch.tensor(flags, dtype=torch.int32, device=device)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return [bool(flag) for flag in found.tolist()]

    def means(self, values: Mapping[str, float]) -> dict[str, float]:
        """The means over the processes, by name; all processes have the same names."""
        if self.count == 1 or not values:
            return dict(values)
        total = torch.tensor(list(values.values()), dtype=torch.float64)
        dist.all_reduce(total)
        return dict(zip(values, (total / self.count).tolist(), strict=True))

    def from_leader(self, value: Any) -> Any:
        """The plain value (numbers, text, lists and dictionaries of them) that rank 0 passes; others pass anything."""
        if self.count == 1:
            return value
        return _received_json(value if self.leads else None, self.leads)

    def tensors_from_leader(self, tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor]:
        """The named tensors that rank 0 passes, on the CPU; others pass None."""
        if self.count == 1:
            assert tensors is not None
            return dict(tensors)
        from safetensors.torch import load, save

        content = b"" if tensors is None else save({k: v.detach().cpu().contiguous() for k, v in tensors.items()})
        return load(_received(content, self.leads))


def _received_json(value: Any, leads: bool) -> Any:
    import json

    return json.loads(_received(json.dumps(value).encode() if leads else b"", leads))


def _received(content: bytes, leads: bool) -> bytes:
    """The bytes of rank 0."""
    length = torch.tensor([len(content)])
    dist.broadcast(length, 0)
    buffer = (
        torch.frombuffer(bytearray(content), dtype=torch.uint8)
        if leads
        else torch.empty(int(length), dtype=torch.uint8)
    )
    dist.broadcast(buffer, 0)
    return bytes(buffer.numpy().tobytes())


ALONE = Ranks()
"""A run of one process."""
