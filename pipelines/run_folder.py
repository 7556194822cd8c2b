"""The folder of a run: where it is, and that nothing in it is lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import UserError
from .files import write_atomically
from .manifest import FILES, FOLDERS, Manifest, check_kinds, is_leftover
from .run_lock import NAME as LOCK
from .yaml_text import write_yaml

if TYPE_CHECKING:
    from .config import RunConfig

ROOT = Path("runs")


def slug(prompt: str) -> str:
    """A folder name: lower-case words joined by '-', at most 60 characters, never a path."""
    words = re.findall(r"[a-z0-9]+", prompt.lower())
    return "-".join(words)[:60].strip("-") or "asset"


def asset_folder(folder: Path, particle: int) -> Path:
    """Of one of the scenes that were trained as one, from 0 on: the first's files are the asset, others lie inside."""
    asset = folder / "asset"
    return asset / f"particle_{particle + 1}" if particle else asset


def choose_folder(prompt: str, out: Path | None, *, existing: bool) -> Path:
    """The run's folder: `out`, or runs/<slug> with a number if that is taken; `existing`: the newest that is taken.

    Raises UserError if an existing one is wanted and there is none.
    """
    if out is not None:
        return out
    base = ROOT / slug(prompt)
    newest, candidate, number = None, base, 2
    while candidate.exists():
        newest, candidate, number = candidate, base.with_name(f"{base.name}-{number}"), number + 1
    if not existing:
        return candidate
    if newest is None:
        raise UserError(f"no earlier run: {base} does not exist; give the run's folder with --out")
    return newest


def check_folder(folder: Path, *, overwrite: bool) -> None:
    """Raises UserError if a new run in `folder` would touch anything that an earlier run or the user left there."""
    check_kinds(folder)
    if is_empty(folder):
        return
    if not overwrite:
        raise UserError(
            f"{folder} is not empty; continue it with --resume, replace it with --overwrite, "
            "or choose another folder with --out"
        )
    if not holds_a_run(folder):
        raise UserError(f"{folder} does not hold an earlier run (no config.yaml); --overwrite will not empty it")
    foreign = Manifest(folder).foreign()
    if foreign:
        raise UserError(f"{folder} also holds {', '.join(foreign[:5])}; move that away before --overwrite")


def is_empty(folder: Path) -> bool:
    """Whether there is nothing but what a kill during the first write leaves behind."""
    if not folder.exists():
        return True
    return all(path.name == LOCK or is_leftover(path.name) for path in folder.iterdir())


def holds_a_run(folder: Path) -> bool:
    """Also if its config.yaml is lost."""
    signs = ("config.yaml", "metrics.jsonl", "summary.json")
    return any((folder / name).is_file() for name in signs) or any((folder / "checkpoints").glob("*.json"))


def create_folder(folder: Path, config: RunConfig, *, overwrite: bool) -> None:
    """Make the folder of a new run, in place of an earlier one if `overwrite`, and write its config.yaml.

    Raises UserError like `check_folder`, and if the folder cannot be written.
    """
    try:
        check_folder(folder, overwrite=overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        for name in FOLDERS:
            _remove_folder(folder / name)
        # config.yaml is replaced, not removed: at no moment is this no run's folder.
        for path in folder.iterdir():
            if path.name != "config.yaml" and (path.name in FILES or is_leftover(path.name)):
                path.unlink()
        write_config(folder, config)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; choose another with --out") from None


def _remove_folder(folder: Path) -> None:
    """Its files, all of them known to be a run's, and what is empty then."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    if folder.exists():
        folder.rmdir()


def write_config(folder: Path, config: RunConfig) -> None:
    """Write the resolved settings."""
    write_atomically(folder / "config.yaml", write_yaml(config.to_plain()).encode())
