"""JSON record of a checkpoint: its format, the files that belong to it, and the retention rule.

This module does not import torch, so the settings of a run can be read quickly.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import DamagedCheckpoint
from ..files import read_regular

FORMAT = 2
"""Version of the format that is written and can be read; version 1 had neither settings nor a digest."""

NEWEST, OLDER = 2, 2
"""Numbers of checkpoints that are kept.

Of the newest ones, the second is kept in case the first is damaged later. The older ones are at least a factor of two
apart in steps, for runs that degrade so slowly that it is noticed late. The last one of each stage is kept as well, so
that stages can be compared.
"""

_LARGEST = 1 << 22
"""Maximum size of the JSON, in bytes."""


def checkpoint_steps(folder: Path) -> list[int]:
    """Return the steps of all complete checkpoints, ascending."""
    return sorted(int(path.stem) for path in folder.glob("*.json") if is_checkpoint(path.name))


def is_checkpoint(name: str) -> bool:
    """Whether a file of this name is half of a checkpoint."""
    found = re.fullmatch(r"([0-9]{6,18})\.(json|safetensors)", name)
    return found is not None and f"{int(found[1]):06d}" == found[1]


def kept_steps(steps: Sequence[int]) -> list[int]:
    """Return the steps, out of `steps` in ascending order, whose checkpoints are kept."""
    older: list[int] = []
    for step in steps[:-NEWEST]:
        if not older or step >= 2 * older[-1]:
            older.append(step)
    return [*older[-OLDER:], *steps[-NEWEST:]]


def last_steps(folder: Path) -> dict[str, int]:
    """The step of the newest undamaged checkpoint of each stage, by its name; the earliest stage first."""
    out: dict[str, int] = {}
    for step in checkpoint_steps(folder):
        with suppress(DamagedCheckpoint):
            stage = read_record(folder, step).get("stage")
            if isinstance(stage, str):
                out[stage] = step
    return out


def new_record(step: int, sha256: str, metadata: Mapping[str, Any]) -> bytes:
    """Return the JSON of a checkpoint whose tensors have this SHA-256."""
    record = {"format": FORMAT, "step": step, "finite": True, "sha256": sha256, **metadata}
    return json.dumps({**record, "digest": digest_of(record)}, indent=1).encode()


def read_record(folder: Path, step: int) -> dict[str, Any]:
    """Read the JSON record of a step. Raises DamagedCheckpoint if it was altered or has another format."""
    try:
        record = json.loads(read_regular(folder / f"{step:06d}.json", _LARGEST))
        if not isinstance(record, dict):
            raise ValueError(f"its JSON is not a record: {str(record)[:40]}")
        digest, expected = record.pop("digest", None), digest_of(record)
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedCheckpoint(f"is damaged: {' '.join(str(error).split())[:200]}") from None
    version = record.get("format")
    if _is_of_format_1(record):
        raise DamagedCheckpoint(
            f"has format 1, which an earlier version wrote without the settings; this version reads format {FORMAT}: "
            "finish the run with the version that started it"
        )
    if isinstance(version, int) and version > FORMAT:
        raise DamagedCheckpoint(
            f"has format {version}, which a later version wrote; this version reads format {FORMAT}"
        )
    if version != FORMAT or digest != expected or record.get("step") != step:
        raise DamagedCheckpoint("is damaged: its JSON does not match its own digest")
    return record


def newest_record(folder: Path) -> dict[str, Any]:
    """Return the newest undamaged JSON record without reading the tensors; empty if there is none."""
    for step in reversed(checkpoint_steps(folder)):
        try:
            return read_record(folder, step)
        except DamagedCheckpoint:
            continue
    return {}


def _is_of_format_1(record: Mapping[str, Any]) -> bool:
    """Whether the record has format 1, which had a stage and no `format` key."""
    return (
        "format" not in record
        and isinstance(record.get("step"), int)
        and isinstance(record.get("stage"), str)
        and re.fullmatch("[0-9a-f]{64}", str(record.get("sha256"))) is not None
    )


def digest_of(record: Mapping[str, Any]) -> str:
    """SHA-256 of the record's canonical JSON."""
    return hashlib.sha256(json.dumps(record, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
