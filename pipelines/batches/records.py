"""Records of a batch: what a finished run's folder says, and the lines of batch.jsonl and failed.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..auditing import audit
from ..files import read_regular, write_atomically
from ..runs.folder import asset_folder

AUDIT = "audit.json"
"""Result of the audit in the folder of a run."""
_LARGEST = 64 << 20


def summary_of(folder: Path) -> dict[str, Any] | None:
    """The summary of a finished run whose assets are all there; None otherwise."""
    try:
        summary = json.loads(read_regular(folder / "summary.json", _LARGEST))
        float(summary["seconds"])
        assets = [path for path in assets_of(folder, summary) if not path.is_file()]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return None if assets else summary


def assets_of(folder: Path, summary: Mapping[str, Any]) -> list[Path]:
    """The GLB files of a finished run, one per particle."""
    return [asset_folder(folder, index) / "asset.glb" for index in range(len(summary["exports"]))]


def audit_of(folder: Path) -> dict[str, Any] | None:
    """The audit that belongs to the present assets of a finished run; None if there is none."""
    path, summary = folder / AUDIT, summary_of(folder)
    try:
        if summary is None or any(_changed(path) < _changed(asset) for asset in assets_of(folder, summary)):
            return None
        found = json.loads(read_regular(path, _LARGEST))
        return found if isinstance(found["passed"], bool) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def write_audit(folder: Path) -> None:
    """Audit the assets of a finished run by the limits that hold for every engine."""
    results = [audit(path) for path in assets_of(folder, summary_of(folder) or {"exports": []})]
    plain = [result.to_plain() for result in results]
    content = {
        "passed": all(each["passed"] for each in plain),
        "errors": sum(each["errors"] for each in plain),
        "warnings": sum(each["warnings"] for each in plain),
        "findings": [f"{row.check}: {row.text}" for result in results for row in result.findings],
    }
    write_atomically(folder / AUDIT, (json.dumps(content, indent=1) + "\n").encode())


def is_finished(folder: Path) -> bool:
    """Whether the run has ended and its assets are audited."""
    return audit_of(folder) is not None


def record_of(line: int, prompt: str, seed: int, folder: Path, out: Path) -> dict[str, Any]:
    """The line of batch.jsonl of a finished run; paths are relative to the folder of the batch."""
    summary, found = summary_of(folder), audit_of(folder)
    assert summary is not None and found is not None, "the run is finished"
    exports, assets = summary["exports"], assets_of(folder, summary)
    return {
        "line": line,
        "prompt": prompt,
        "seed": seed,
        "folder": folder.relative_to(out).as_posix(),
        "seconds": summary["seconds"],
        "prior_calls": summary.get("prior_calls"),
        "triangles": sum(export["faces"] for export in exports),
        "audit": {key: found[key] for key in ("passed", "errors", "warnings")},
        "asset": assets[0].relative_to(out).as_posix() if assets else None,
    }


def json_lines(records: Iterable[Mapping[str, Any]]) -> bytes:
    """Records as lines of JSON."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def _changed(path: Path) -> int:
    return path.stat().st_mtime_ns
