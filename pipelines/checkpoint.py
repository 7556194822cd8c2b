"""Checkpoints: safetensors for the state, JSON for what it is, written so that a kill at any moment loses nothing.

A checkpoint is two files, `000200.safetensors` and `000200.json`. The JSON is written last: a checkpoint without it
does not exist. It holds the SHA-256 of the tensors, and one of itself, so that a checkpoint is believed as a whole, its
settings too, or not at all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .checkpoint_record import checkpoint_steps, is_checkpoint, kept_steps, new_record, read_record
from .errors import DamagedCheckpoint, UserError
from .files import read_regular, write_atomically

Found = TypeVar("Found")


@dataclass(frozen=True)
class Checkpoint:
    """What was saved; `metadata` is its JSON."""

    step: int
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def write_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write the state after `step` steps; `metadata` is JSON. Raises ValueError for tensors that hold NaN."""
    if spoiled := holding_nan(tensors):
        raise ValueError(f"refusing to save step {step}: {', '.join(spoiled[:3])} holds NaN")
    folder.mkdir(parents=True, exist_ok=True)
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    write_atomically(folder / f"{step:06d}.safetensors", content)
    record = new_record(step, hashlib.sha256(content).hexdigest(), metadata)
    write_atomically(folder / f"{step:06d}.json", record)
    _prune(folder, step)


def restore_newest(folder: Path, use: Callable[[Checkpoint], Found]) -> tuple[Found | None, list[str]]:
    """What `use` makes of the newest undamaged checkpoint (None if there never was one), and a line about each that was
    passed over; `use` may find damage too, and raise DamagedCheckpoint.

    Raises UserError if there are checkpoints and none can be used.
    """
    damage: list[str] = []
    for step in reversed(checkpoint_steps(folder)):
        try:
            return use(_read(folder, step)), damage
        except DamagedCheckpoint as error:
            damage.append(f"checkpoint {folder / f'{step:06d}'} {error}")
    if damage:
        raise UserError(f"{damage[0]}; nothing to resume from, start again with --overwrite or another --out")
    return None, []


def read_newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest undamaged checkpoint itself; see `restore_newest`."""
    return restore_newest(folder, lambda checkpoint: checkpoint)


def holding_nan(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN."""
    return [name for name, tensor in tensors.items() if tensor.is_floating_point() and bool(tensor.isnan().any())]


def _read(folder: Path, step: int) -> Checkpoint:
    """Raises DamagedCheckpoint."""
    record = read_record(folder, step)
    try:
        content = read_regular(folder / f"{step:06d}.safetensors")
        tensors = load(content) if hashlib.sha256(content).hexdigest() == record.get("sha256") else None
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise DamagedCheckpoint(f"is damaged: {' '.join(str(error).split())[:200]}") from None
    if tensors is None:
        raise DamagedCheckpoint("is damaged: its checksum does not match")
    if spoiled := holding_nan(tensors):
        raise DamagedCheckpoint(f"is damaged: {', '.join(spoiled[:3])} holds NaN")
    return Checkpoint(step, tensors, record)


def _prune(folder: Path, newest: int) -> None:
    """Remove what is not to be kept: most of the older ones, and those of a future that was passed over."""
    kept = {f"{step:06d}" for step in kept_steps([step for step in checkpoint_steps(folder) if step <= newest])}
    # The JSON goes first: without it the tensors are no checkpoint.
    for path in sorted(folder.iterdir()):
        if is_checkpoint(path.name) and path.stem not in kept:
            path.unlink(missing_ok=True)
