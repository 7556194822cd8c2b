"""A whole run: stage, checkpoints, pictures, asset, report. The same call continues an interrupted run exactly."""

from __future__ import annotations

import json
import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ..representations import Cameras, Representation, Savable
from .checkpoint import read_newest_checkpoint, write_checkpoint
from .config import RunConfig
from .errors import UserError
from .estimators import load_estimator
from .export import ExportReport, export_asset
from .files import write_atomically
from .journal import Journal
from .pictures import save_contact_sheet, save_turntable
from .report import write_report
from .run_folder import create_folder, slug
from .stage import Stage


@dataclass(frozen=True)
class RunResult:
    """Where a finished run left its files, and what it measured."""

    folder: Path
    asset: Path
    export: ExportReport
    seconds: float


class Interrupted(Exception):
    """Ctrl-C: the state was saved after `step` steps."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(f"interrupted; step {step} is saved, continue with --resume --out {folder}")


def generate(
    config: RunConfig, folder: Path, *, resume: bool = False, overwrite: bool = False, quiet: bool = False
) -> RunResult:
    """Distil `config.prompt` into `folder`; resuming, `config` must be the one the run was started with.

    Raises UserError for what the user can mend, Interrupted after Ctrl-C (the state is saved first).
    """
    start = time.perf_counter()
    stage, prior = build_stage(config)
    if not resume:
        create_folder(folder, config, overwrite=overwrite)
    journal = Journal(folder / "metrics.jsonl", config.stage.steps, config.output.log_every, quiet=quiet)
    _announce(journal, config, folder, prior, stage)
    if resume:
        _restore(stage, folder, journal)
    _optimise(stage, config, folder, journal)
    if stage.skipped:
        journal.say(f"{stage.skipped} steps were skipped because something was not finite")
    save_contact_sheet(stage.representation, folder / "previews" / "final.png", config.output.picture_size)
    journal.say("extracting, unwrapping and baking the mesh")
    export = _export(stage.representation, config, folder, journal)
    if isinstance(stage.representation, Savable):
        journal.say(f"also: {stage.representation.save(folder / 'asset')}")
    if config.output.turntable_frames:
        save_turntable(
            stage.representation,
            folder / "turntable.webp",
            config.output.turntable_frames,
            config.output.picture_size,
        )
    seconds = time.perf_counter() - start
    summary = {"seconds": round(seconds, 1), "skipped_steps": stage.skipped, "export": _plain(export)}
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1).encode())
    write_report(folder, config, export)
    journal.say(f"done in {seconds:.0f} s: {export.path}")
    return RunResult(folder, export.path, export, seconds)


def build_stage(config: RunConfig) -> tuple[Stage, Any]:
    """Representation, prior and distiller of a run, before its first step. Raises UserError."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    generator = torch.Generator().manual_seed(config.seed)
    try:
        prior = config.prior.build(device)
        embedding = prior.embed(config.prompt, config.negative_prompt)
        estimator = load_estimator(prior.device) if config.method.needs_estimator else None
        distiller = config.method.build(prior, estimator).to(prior.device)
        # Where the prior lives, the scene lives: pictures and gradients never cross devices.
        representation = config.representation.build(generator, prior.device)
        _try_renderer(representation, prior.device)
    except OSError as error:
        raise UserError(f"cannot read {error.filename}: {error.strerror or error}") from None
    except (ValueError, ImportError) as error:
        raise UserError(" ".join(str(error).split())) from None
    return Stage(representation, distiller, prior, embedding, config.stage, generator), prior


@torch.no_grad()
def _try_renderer(representation: Representation, device: torch.device) -> None:
    """Draw once, so that a backend that cannot work here says so before anything is written."""
    cameras = Cameras.orbit([0.0], [0.0], height=16).to(device)
    representation.render(cameras, torch.ones(1, 3, device=device))


def _export(representation: Representation, config: RunConfig, folder: Path, journal: Journal) -> ExportReport:
    try:
        return export_asset(
            representation,
            folder / "asset",
            config.export,
            name=slug(config.prompt),
            provenance=provenance(config),
            report=journal.say,
        )
    except ValueError as error:
        raise UserError(f"no asset: {error}") from None


def provenance(config: RunConfig) -> dict[str, Any]:
    """What the asset says about its making (glTF `asset.extras`)."""
    return {
        "prompt": config.prompt,
        "seed": config.seed,
        **config.names,
        "steps": config.stage.steps,
        "generator": f"steindreamer {version('steindreamer')}",
        "torch": torch.__version__,
    }


def _announce(journal: Journal, config: RunConfig, folder: Path, prior: Any, stage: Stage) -> None:
    names = config.names
    journal.say(f"'{config.prompt}' as {names['representation']} by {names['method']} with prior '{names['prior']}'")
    description = getattr(prior, "description", "")
    if description:
        journal.say(f"prior: {description}")
    journal.say(f"{config.stage.steps} steps on {prior.device}, {platform.machine()}; files go to {folder}")


def _restore(stage: Stage, folder: Path, journal: Journal) -> None:
    checkpoint, damage = read_newest_checkpoint(folder / "checkpoints")
    for line in damage:
        journal.say(line)
    if checkpoint is None:
        journal.say("no checkpoint yet: starting from the first step")
        journal.rewind(0)
        return
    stage.load_tensors(checkpoint.tensors)
    journal.rewind(stage.done)
    journal.say(f"resuming after step {stage.done}")


def _optimise(stage: Stage, config: RunConfig, folder: Path, journal: Journal) -> None:
    output = config.output
    with _interruptible() as interrupted:
        while stage.done < config.stage.steps:
            journal.record(stage.step())
            step, last = stage.done, stage.done == config.stage.steps
            if interrupted or last or (output.checkpoint_every and step % output.checkpoint_every == 0):
                journal.flush()
                _save(stage, folder)
            if interrupted:
                raise Interrupted(folder, step)
            if output.preview_every and step % output.preview_every == 0 and not last:
                save_contact_sheet(stage.representation, folder / "previews" / f"{step:06d}.png", output.picture_size)
            journal.restart_clock()


def _save(stage: Stage, folder: Path) -> None:
    try:
        saved_at = datetime.now(UTC).isoformat(timespec="seconds")
        write_checkpoint(folder / "checkpoints", stage.done, stage.tensors(), {"saved_at": saved_at})
    except OSError as error:
        raise UserError(f"cannot save to {folder}: {error.strerror or error}; free some space and --resume") from None


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """A list that fills on Ctrl-C, so that the step under way is finished and saved; a second Ctrl-C stops at once."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    try:
        previous = signal.signal(signal.SIGINT, note)
    except ValueError:  # not the main thread: the caller's own handler stays
        yield caught
        return
    try:
        yield caught
    finally:
        signal.signal(signal.SIGINT, previous)


def _plain(export: ExportReport) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(export).items()}
