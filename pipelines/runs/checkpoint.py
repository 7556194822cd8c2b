"""Checkpoints: tensors in safetensors, metadata in JSON, written so that a process killed at any time loses nothing.

A checkpoint is two files, `000200.safetensors` and `000200.json`. The JSON is written last: without it, the checkpoint
does not exist. It holds the SHA-256 of the tensors and a SHA-256 of itself, so a checkpoint is either intact as a
whole, including its settings, or rejected.
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

from ..errors import DamagedCheckpoint, UserError
from ..files import read_regular, write_atomically
from .checkpoint_record import checkpoint_steps, is_checkpoint, kept_steps, last_steps, new_record, read_record

Found = TypeVar("Found")


@dataclass(frozen=True)
class Checkpoint:
    """A restored checkpoint: its step, its tensors, and the JSON record in `metadata`."""

    step: int
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def write_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write the state after `step` steps.

    Args:
        folder: Folder of the checkpoints.
        step: Number of steps done.
        tensors: The state.
        metadata: JSON data stored in the record.

    Raises:
        ValueError: A tensor contains NaN.
    """
    if spoiled := holding_nan(tensors):
        raise ValueError(f"refusing to save step {step}: {', '.join(spoiled[:3])} contains NaN")
    folder.mkdir(parents=True, exist_ok=True)
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    write_atomically(folder / f"{step:06d}.safetensors", content)
    record = new_record(step, hashlib.sha256(content).hexdigest(), metadata)
    write_atomically(folder / f"{step:06d}.json", record)
    _prune(folder, step)


def restore_newest(folder: Path, use: Callable[[Checkpoint], Found]) -> tuple[Found | None, list[str]]:
    """Restore the newest undamaged checkpoint.

    Args:
        folder: Folder of the checkpoints.
        use: Builds the result from a checkpoint. It may also detect damage and raise DamagedCheckpoint.

    Returns:
        The result of `use`, or None if there are no checkpoints, and one line per damaged checkpoint that was skipped.

    Raises:
        UserError: There are checkpoints, but none can be used.
    """
    damage: list[str] = []
    for step in reversed(checkpoint_steps(folder)):
        try:
            return use(read_checkpoint(folder, step)), damage
        except DamagedCheckpoint as error:
            damage.append(f"checkpoint {folder / f'{step:06d}'} {error}")
    if damage:
        raise UserError(f"{damage[0]}; nothing to resume from, start again with --overwrite or another --out")
    return None, []


def read_newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """Read the newest undamaged checkpoint; see `restore_newest`."""
    return restore_newest(folder, lambda checkpoint: checkpoint)


def holding_nan(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN."""
    return [name for name, tensor in tensors.items() if tensor.is_floating_point() and bool(tensor.isnan().any())]


def read_checkpoint(folder: Path, step: int) -> Checkpoint:
    """Read one checkpoint. Raises DamagedCheckpoint."""
    record = read_record(folder, step)
    try:
        content = read_regular(folder / f"{step:06d}.safetensors")
        tensors = load(content) if hashlib.sha256(content).hexdigest() == record.get("sha256") else None
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise DamagedCheckpoint(f"is damaged: {' '.join(str(error).split())[:200]}") from None
    if tensors is None:
        raise DamagedCheckpoint("is damaged: its checksum does not match")
    if spoiled := holding_nan(tensors):
        raise DamagedCheckpoint(f"is damaged: {', '.join(spoiled[:3])} contains NaN")
    return Checkpoint(step, tensors, record)


def _prune(folder: Path, newest: int) -> None:
    """Remove older checkpoints that are not kept, and skipped ones with a later step than `newest`."""
    steps = [step for step in checkpoint_steps(folder) if step <= newest]
    kept = {f"{step:06d}" for step in (*kept_steps(steps), *last_steps(folder).values()) if step <= newest}
    # Remove the JSON first: without it the tensors are not a checkpoint.
    for path in sorted(folder.iterdir()):
        if is_checkpoint(path.name) and path.stem not in kept:
            path.unlink(missing_ok=True)
