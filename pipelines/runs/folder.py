"""Folder of a run: choosing, creating and overwriting it without losing files of the user."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..files import write_atomically
from ..settings.yaml_text import write_yaml
from .lock import NAME as LOCK
from .manifest import FILES, FOLDERS, Manifest, check_kinds, is_leftover

if TYPE_CHECKING:
    from ..config.run_config import RunConfig

ROOT = Path("runs")


def slug(prompt: str) -> str:
    """Return a folder name for a prompt: lower-case words joined by '-', at most 60 characters, never a path."""
    words = re.findall(r"[a-z0-9]+", prompt.lower())
    return "-".join(words)[:60].strip("-") or "asset"


def asset_folder(folder: Path, particle: int) -> Path:
    """Return the asset folder of a particle.

    Args:
        folder: Folder of the run.
        particle: Index of the particle, from 0. Particle 0 uses `asset` itself, the others use subfolders.
    """
    asset = folder / "asset"
    return asset / f"particle_{particle + 1}" if particle else asset


def choose_folder(prompt: str, out: Path | None, *, existing: bool) -> Path:
    """Choose the folder of a run: `out`, or `runs/<slug>` with a number appended if that is taken.

    Args:
        prompt: Prompt that the folder is named after.
        out: Folder given by the user, or None.
        existing: Select the newest existing folder of the prompt instead of a new one.

    Raises:
        UserError: `existing` is set and there is no such folder.
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
    """Check that a new run in `folder` would not touch files of an earlier run or of the user. Raises UserError."""
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
        raise UserError(
            f"{folder} also contains {', '.join(foreign[:5])}; move these files away before using --overwrite"
        )


def is_empty(folder: Path) -> bool:
    """Whether the folder holds nothing except leftovers of a process that was killed during its first write."""
    if not folder.exists():
        return True
    return all(path.name == LOCK or is_leftover(path.name) for path in folder.iterdir())


def holds_a_run(folder: Path) -> bool:
    """Whether the folder holds a run, even if its config.yaml is lost."""
    signs = ("config.yaml", "metrics.jsonl", "summary.json")
    return any((folder / name).is_file() for name in signs) or any((folder / "checkpoints").glob("*.json"))


def create_folder(folder: Path, config: RunConfig, *, overwrite: bool) -> None:
    """Create the folder of a new run and write its config.yaml.

    Args:
        folder: Folder to create.
        config: Resolved settings.
        overwrite: Replace an earlier run in the folder.

    Raises:
        UserError: The folder cannot be written, or see `check_folder`.
    """
    try:
        check_folder(folder, overwrite=overwrite)
        folder.mkdir(parents=True, exist_ok=True)
        for name in FOLDERS:
            _remove_folder(folder / name)
        # config.yaml is replaced, not removed, so that the folder is recognized as a run at all times.
        for path in folder.iterdir():
            if path.name != "config.yaml" and (path.name in FILES or is_leftover(path.name)):
                path.unlink()
        write_config(folder, config)
    except OSError as error:
        raise UserError(
            f"cannot write to {folder}: {error.strerror or error}; choose another folder with --out"
        ) from None


def _remove_folder(folder: Path) -> None:
    """Remove the files of a run, all of which are known, and the folders that are empty afterward."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
    if folder.exists():
        folder.rmdir()


def write_config(folder: Path, config: RunConfig) -> None:
    """Write the resolved settings to config.yaml."""
    write_atomically(folder / "config.yaml", write_yaml(config.to_plain()).encode())
