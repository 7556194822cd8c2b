"""Checkpoints: safetensors for the state, JSON for what it is, written so that a kill at any moment loses nothing.

A checkpoint is two files, `000200.safetensors` and `000200.json`. The JSON holds the SHA-256 of the tensors and is
written last: a checkpoint without it does not exist.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .errors import UserError
from .files import write_atomically

KEPT = 2
"""Older checkpoints are removed; the one before the newest stays, in case the newest is damaged later."""


@dataclass(frozen=True)
class Checkpoint:
    step: int
    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def write_checkpoint(folder: Path, step: int, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write the state after `step` steps; `metadata` is JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    write_atomically(folder / f"{step:06d}.safetensors", content)
    record = {"step": step, "sha256": hashlib.sha256(content).hexdigest(), **metadata}
    write_atomically(folder / f"{step:06d}.json", json.dumps(record, indent=1).encode())
    for old in checkpoint_steps(folder)[:-KEPT]:
        # The JSON goes first: without it the tensors are no checkpoint.
        (folder / f"{old:06d}.json").unlink(missing_ok=True)
        (folder / f"{old:06d}.safetensors").unlink(missing_ok=True)


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints, ascending."""
    return sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit())


def read_newest_checkpoint(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest undamaged checkpoint (None if there never was one), and a line about each damaged one passed over.

    Raises UserError if there are checkpoints and all are damaged.
    """
    damage: list[str] = []
    for step in reversed(checkpoint_steps(folder)):
        try:
            return _read(folder, step), damage
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            damage.append(f"checkpoint {folder / f'{step:06d}'} is damaged: {error}")
    if damage:
        raise UserError(f"{damage[0]}; nothing to resume from, start again with --overwrite or another --out")
    return None, []


def _read(folder: Path, step: int) -> Checkpoint:
    record = json.loads((folder / f"{step:06d}.json").read_text())
    content = (folder / f"{step:06d}.safetensors").read_bytes()
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise ValueError("its checksum does not match")
    return Checkpoint(int(record["step"]), load(content), record)
