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

from ..distill import Prior
from ..representations import Cameras, Representation, Savable
from .checkpoint import read_newest_checkpoint, write_checkpoint
from .config import RunConfig
from .errors import Interrupted, UserError
from .estimators import load_estimator
from .export import ExportReport, export_asset
from .files import write_atomically
from .journal import Journal
from .pictures import save_contact_sheet, save_turntable
from .report import write_report
from .run_folder import check_folder, create_folder, slug, write_config
from .stage import Stage


@dataclass(frozen=True)
class RunResult:
    """Where a finished run left its files, and what it measured."""

    folder: Path
    asset: Path
    export: ExportReport
    seconds: float


def generate(
    config: RunConfig, folder: Path, *, resume: bool = False, overwrite: bool = False, quiet: bool = False
) -> RunResult:
    """Distil `config.prompt` into `folder`; resuming, `config` must be the one the run was started with.

    Raises UserError for what the user can mend, Interrupted after Ctrl-C (the state is saved first).
    """
    try:
        if not resume:
            check_folder(folder, overwrite=overwrite)
        return _generate(config, folder, resume=resume, overwrite=overwrite, quiet=quiet)
    except OSError as error:
        raise UserError(
            f"cannot read or write {error.filename or folder}: {error.strerror or error}; "
            "mend that and continue with --resume"
        ) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise UserError("out of memory; lower representation.count, stage.resolution or export.resolution") from error


def _generate(config: RunConfig, folder: Path, *, resume: bool, overwrite: bool, quiet: bool) -> RunResult:
    start = time.perf_counter()
    stage, prior = build_stage(config)
    if not resume:
        create_folder(folder, config, overwrite=overwrite)
    journal = Journal(folder / "metrics.jsonl", config.stage.steps, config.output.log_every, quiet=quiet)
    _announce(journal, config, folder, prior)
    if resume:
        _restore(stage, folder, journal)
        write_config(folder, config)  # other settings for the asset and the pictures may have been given
    _optimise(stage, config, folder, journal)
    if stage.skipped:
        journal.say(f"{stage.skipped} steps were skipped because something was not finite")
    output = config.output
    save_contact_sheet(stage.representation, folder / "previews" / "final.png", output.picture_size)
    if output.turntable_frames:
        save_turntable(stage.representation, folder / "turntable.webp", output.turntable_frames, output.picture_size)
    journal.say("extracting, unwrapping and baking the mesh")
    export = _export(stage.representation, config, folder, journal)
    if isinstance(stage.representation, Savable):
        journal.say(f"the scene itself: {stage.representation.save(folder / 'asset')}")
    seconds = time.perf_counter() - start
    summary = {"seconds": round(seconds, 1), "skipped_steps": stage.skipped, "export": _plain(export)}
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1).encode())
    write_report(folder, config, export, seconds)
    journal.say(f"done in {seconds:.0f} s: {export.path}")
    return RunResult(folder, export.path, export, seconds)


def build_stage(config: RunConfig) -> tuple[Stage, Prior]:
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
        config.export.check(representation)
    except OSError as error:
        what = f"cannot read {error.filename}: {error.strerror}" if error.filename else " ".join(str(error).split())
        raise UserError(what) from error
    except (ValueError, ImportError) as error:
        raise UserError(" ".join(str(error).split())) from error
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
        raise UserError(
            f"no asset: {error} (the scene is kept: --resume --out {folder} exports again, export.* may be changed)"
        ) from error


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


def _announce(journal: Journal, config: RunConfig, folder: Path, prior: Prior) -> None:
    names = config.names
    journal.say(f"'{config.prompt}' as {names['representation']} by {names['method']} with prior '{names['prior']}'")
    description = getattr(prior, "description", "")
    if description:
        journal.say(f"prior: {description}")
    journal.say(f"{config.stage.steps} steps on {prior.device}, {platform.machine()}; files go to {folder}")
    if 0 < config.stage.probe_every <= config.stage.steps:
        journal.say(
            "gradient variance: over noise draws at the same views, per pixel; beside that of SDS at the same draws"
        )


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
    saved_at = datetime.now(UTC).isoformat(timespec="seconds")
    write_checkpoint(folder / "checkpoints", stage.done, stage.tensors(), {"saved_at": saved_at})


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
