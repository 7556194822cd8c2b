"""The folder of a run: where it is, and that nothing in it is lost."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from .config import RunConfig, compose, read_config
from .errors import UserError
from .files import write_atomically

ROOT = Path("runs")
WRITTEN = (
    "config.yaml",
    "metrics.jsonl",
    "summary.json",
    "checkpoints",
    "previews",
    "turntable.webp",
    "asset",
    "report.html",
)
"""Everything that a run writes; --overwrite removes these and nothing else."""


def slug(prompt: str) -> str:
    """A folder name: lower-case words joined by '-', at most 60 characters, never a path."""
    words = re.findall(r"[a-z0-9]+", prompt.lower())
    return "-".join(words)[:60].strip("-") or "asset"


def choose_folder(prompt: str, out: Path | None, *, resume: bool) -> Path:
    """The run's folder: `out`, or runs/<slug> with a number if that is taken (resuming: the newest of them)."""
    if out is not None:
        return out
    base = ROOT / slug(prompt)
    taken = [base] if base.exists() else []
    number = 2
    while (candidate := base.with_name(f"{base.name}-{number}")).exists():
        taken.append(candidate)
        number += 1
    if resume:
        if not taken:
            raise UserError(f"nothing to resume: {base} does not exist; give the run's folder with --out")
        return taken[-1]
    return candidate if taken else base


def create_folder(folder: Path, config: RunConfig, *, overwrite: bool) -> None:
    """Make the folder of a new run and write its config.yaml.

    Raises UserError rather than touch anything that an earlier run or the user left there.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file; give a folder with --out")
        if folder.exists() and any(folder.iterdir()):
            if not overwrite:
                raise UserError(
                    f"{folder} is not empty; continue it with --resume, replace it with --overwrite, "
                    "or choose another folder with --out"
                )
            _remove_earlier_run(folder)
        folder.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(config.to_plain(), sort_keys=False, allow_unicode=True)
        write_atomically(folder / "config.yaml", text.encode())
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; choose another with --out") from None


def resumed_config(folder: Path, layers: Sequence[Mapping[str, Any]], chosen: Mapping[str, str]) -> RunConfig:
    """The configuration that `folder` was started with. Raises UserError if what is given now contradicts it."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"nothing to resume: {path} does not exist; give the run's folder with --out")
    saved = read_config(path)
    wanted = compose([saved.to_plain(), *layers], chosen)
    differing = sorted(_differences(saved.to_plain(), wanted.to_plain()))
    if differing:
        raise UserError(
            f"{folder} was started with other settings ({', '.join(differing[:6])}); "
            "resume with the same ones, or start anew in another folder"
        )
    return saved


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], path: str = "") -> list[str]:
    out: list[str] = []
    for key in a.keys() | b.keys():
        one, other = a.get(key), b.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            out += _differences(one, other, f"{path}{key}.")
        elif one != other:
            out.append(f"{path}{key}")
    return out


def _remove_earlier_run(folder: Path) -> None:
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in WRITTEN)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} does not hold an earlier run (no config.yaml); --overwrite will not empty it")
    if foreign:
        raise UserError(f"{folder} also holds {', '.join(foreign[:5])}; move that away before --overwrite")
    for name in WRITTEN:
        path = folder / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
