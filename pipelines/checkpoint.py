"""Checkpoints: safetensors for the state, JSON for what it is, written so that a kill at any moment loses nothing.

A checkpoint is two files, `000200.safetensors` and `000200.json`. The JSON is written last: a checkpoint without it does
not exist. It holds the SHA-256 of the tensors, and one of itself, so that a checkpoint is believed as a whole (its
settings too) or not at all.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from .errors import DamagedCheckpoint, UserError
from .files import read_regular, write_atomically

FORMAT = 2
"""Of what is written and can be read; 1 knew neither settings nor the digest."""

NEWEST, OLDER = 2, 2
"""How many are kept: the one before the newest in case that is damaged later, and older ones, at about a half and a
quarter of the steps or more, in case a run went wrong so slowly that nothing was noticed."""

LARGEST_RECORD = 1 << 22
"""Bytes of JSON that are read."""


Found = TypeVar("Found")


@dataclass(frozen=True)
class Checkpoint:
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
    record = {"format": FORMAT, "step": step, "finite": True, "sha256": hashlib.sha256(content).hexdigest(), **metadata}
    record["digest"] = _digest(record)
    write_atomically(folder / f"{step:06d}.json", json.dumps(record, indent=1).encode())
    _prune(folder, step)


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the complete checkpoints, ascending."""
    return sorted(int(path.stem) for path in folder.glob("*.json") if is_checkpoint(path.name))


def is_checkpoint(name: str) -> bool:
    """Whether a file of this name is half of a checkpoint."""
    found = re.fullmatch(r"([0-9]{6,18})\.(json|safetensors)", name)
    return found is not None and f"{int(found[1]):06d}" == found[1]


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


def newest_metadata(folder: Path) -> dict[str, Any]:
    """Of the newest checkpoint whose JSON is undamaged, its tensors unread; empty if there is none."""
    for step in reversed(checkpoint_steps(folder)):
        try:
            return _read_record(folder, step)
        except DamagedCheckpoint:
            continue
    return {}


def holding_nan(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that hold NaN."""
    return [name for name, tensor in tensors.items() if tensor.is_floating_point() and bool(tensor.isnan().any())]


def _read(folder: Path, step: int) -> Checkpoint:
    """Raises DamagedCheckpoint."""
    record = _read_record(folder, step)
    try:
        content = read_regular(folder / f"{step:06d}.safetensors")
        if hashlib.sha256(content).hexdigest() != record["sha256"]:
            raise DamagedCheckpoint("is damaged: its checksum does not match")
        tensors = load(content)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        if isinstance(error, DamagedCheckpoint):
            raise
        raise DamagedCheckpoint(f"is damaged: {_told(error)}") from None
    if spoiled := holding_nan(tensors):
        raise DamagedCheckpoint(f"is damaged: {', '.join(spoiled[:3])} holds NaN")
    return Checkpoint(step, tensors, record)


def _read_record(folder: Path, step: int) -> dict[str, Any]:
    """Raises DamagedCheckpoint."""
    try:
        record = json.loads(read_regular(folder / f"{step:06d}.json", LARGEST_RECORD))
        if not isinstance(record, dict):
            raise ValueError(f"its JSON is no record but {str(record)[:40]}")
        digest, expected = record.pop("digest", None), _digest(record)
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"is damaged: {_told(error)}") from None
    if _is_of_format_1(record):
        raise DamagedCheckpoint(
            f"is of format 1, which an earlier version wrote, without its settings; this one reads format {FORMAT}: "
            "finish that run with the version that began it"
        )
    version = record.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise DamagedCheckpoint(f"is of format {version}, which a later version wrote; this one reads {FORMAT}")
    if version != FORMAT or digest != expected or record.get("step") != step:
        raise DamagedCheckpoint("is damaged: its JSON does not match its own digest")
    return record


def _is_of_format_1(record: Mapping[str, Any]) -> bool:
    """Those had a stage and no format."""
    return (
        "format" not in record
        and isinstance(record.get("step"), int)
        and isinstance(record.get("stage"), str)
        and re.fullmatch("[0-9a-f]{64}", str(record.get("sha256"))) is not None
    )


def _digest(record: Mapping[str, Any]) -> str:
    """SHA-256 of the record's canonical JSON."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _told(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _prune(folder: Path, newest: int) -> None:
    """Remove what is not to be kept: most of the older ones, and those of a future that was passed over."""
    kept = {f"{step:06d}" for step in kept_steps([step for step in checkpoint_steps(folder) if step <= newest])}
    # The JSON goes first: without it the tensors are no checkpoint.
    for path in sorted(folder.iterdir()):
        if is_checkpoint(path.name) and path.stem not in kept:
            path.unlink(missing_ok=True)


def kept_steps(steps: Sequence[int]) -> list[int]:
    """Which of these (ascending) stay: the newest ones, and older ones at least a factor of two apart."""
    older: list[int] = []
    for step in steps[:-NEWEST]:
        if not older or step >= 2 * older[-1]:
            older.append(step)
    return [*older[-OLDER:], *steps[-NEWEST:]]
