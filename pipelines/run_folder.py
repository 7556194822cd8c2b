"""The folder of a run: where it is, and that nothing in it is lost."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .composing import to_plain
from .errors import UserError
from .files import write_atomically
from .layers import read_layer
from .schema import Schema
from .validation import compose_as
from .yaml_text import write_yaml

if TYPE_CHECKING:
    from .config import RunConfig

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
AFTERWARDS = ("export.", "output.", "refine", "plugins")
"""Settings that do not touch what has been optimised: another value may be given when resuming."""

OWN_NAMES = (*WRITTEN, *(f".{name}.partial" for name in WRITTEN))
"""The same, with what a kill in the middle of a write leaves behind."""


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
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; give a folder with --out")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not overwrite:
        raise UserError(
            f"{folder} is not empty; continue it with --resume, replace it with --overwrite, "
            "or choose another folder with --out"
        )
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{folder} does not hold an earlier run (no config.yaml); --overwrite will not empty it")
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in OWN_NAMES)
    if foreign:
        raise UserError(f"{folder} also holds {', '.join(foreign[:5])}; move that away before --overwrite")


def create_folder(folder: Path, config: RunConfig, *, overwrite: bool) -> None:
    """Make the folder of a new run, in place of an earlier one if `overwrite`, and write its config.yaml.

    Raises UserError like `check_folder`, and if the folder cannot be written.
    """
    try:
        check_folder(folder, overwrite=overwrite)
        for path in (folder / name for name in OWN_NAMES):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_config(folder, config)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror or error}; choose another with --out") from None


def write_config(folder: Path, config: RunConfig) -> None:
    """Write the resolved settings."""
    write_atomically(folder / "config.yaml", write_yaml(config.to_plain()).encode())


def saved_settings(folder: Path) -> Mapping[str, Any]:
    """What the config.yaml of an earlier run holds. Raises UserError."""
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"nothing to resume: {path} does not exist; give the run's folder with --out")
    return read_layer(path)


def resumed_config(folder: Path, layers: Sequence[Mapping[str, Any]], chosen: Mapping[str, str], schema: Schema) -> Any:
    """The configuration, a `schema.run`, that `folder` was started with, under what is given now.

    Raises UserError if that would change the optimisation; the asset and the pictures may be asked for anew.
    """
    saved = to_plain(compose_as(schema, [saved_settings(folder)]))
    wanted = compose_as(schema, [saved, *layers], chosen)
    differing = [key for key in _differences(saved, to_plain(wanted)) if not key.startswith(AFTERWARDS)]
    if differing:
        raise UserError(
            f"{folder} was started with other settings ({', '.join(sorted(differing)[:6])}); "
            "resume with the same ones, or start anew in another folder"
        )
    return wanted


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], path: str = "") -> list[str]:
    out: list[str] = []
    for key in a.keys() | b.keys():
        one, other = a.get(key), b.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            out += _differences(one, other, f"{path}{key}.")
        elif one != other:
            out.append(f"{path}{key}")
    return out
