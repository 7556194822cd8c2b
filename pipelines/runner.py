"""A whole run: stages, checkpoints, pictures, asset, report. The same call continues an interrupted run exactly."""

from __future__ import annotations

import json
import platform
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from ..representations import Savable, particles_of
from .checkpoint import read_newest_checkpoint, write_checkpoint
from .config import OutputConfig, RunConfig
from .errors import Interrupted, UserError
from .export import ExportReport, export_asset
from .files import write_atomically
from .journal import Journal
from .memory_report import memory_lines
from .pictures import save_contact_sheet, save_turntable
from .pipeline import Pipeline
from .report import write_report
from .run_folder import asset_folder, check_folder, create_folder, slug, write_config
from .stage import Stage


@dataclass(frozen=True)
class RunResult:
    """Where a finished run left its files, and what it measured; no asset with `export.enabled=false`."""

    folder: Path
    asset: Path | None
    export: ExportReport | None
    seconds: float
    further_exports: tuple[ExportReport, ...] = ()
    """Those of the second particle and all after it."""


Watch = Callable[[Stage], None]
"""Looks at a stage before its first step and after each; must not change it."""


def generate(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    quiet: bool = False,
    watch: Watch | None = None,
) -> RunResult:
    """Distil `config.prompt` into `folder`; resuming, `config` must be the one the run was started with.

    `watch` is called with every state of the scene, and sees the last one again when a run is resumed.
    Raises UserError for what the user can mend, Interrupted after Ctrl-C (the state is saved first).
    """
    try:
        if not resume:
            check_folder(folder, overwrite=overwrite)
        return _generate(config, folder, resume=resume, overwrite=overwrite, quiet=quiet, watch=watch)
    except OSError as error:
        raise UserError(
            f"cannot read or write {error.filename or folder}: {error.strerror or error}; "
            "mend that and continue with --resume"
        ) from error
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise UserError(
            "out of memory; lower the stages' resolution, mesh.resolution, export.resolution or the size of the scene"
        ) from error


def _generate(
    config: RunConfig, folder: Path, *, resume: bool, overwrite: bool, quiet: bool, watch: Watch | None
) -> RunResult:
    start = time.perf_counter()
    pipeline = Pipeline(config)
    stage = None if resume else pipeline.first()
    if not resume:
        create_folder(folder, config, overwrite=overwrite)
    journal = Journal(folder / "metrics.jsonl", pipeline.steps, config.output.log_every, quiet=quiet)
    _announce(journal, pipeline, folder)
    if stage is None:
        stage = _restore(pipeline, folder, journal)
        write_config(folder, config)  # other settings for the asset and the pictures may have been given
    for line in pipeline.notes(stage.representation):
        journal.say(line)
    stage = _run_stages(pipeline, stage, folder, journal, watch)
    if stage.skipped:
        journal.say(f"{stage.skipped} steps were skipped because something was not finite")
    output = config.output
    _save_picture(stage, "final", folder, output)
    if output.turntable_frames:
        frames, size = output.turntable_frames, output.picture_size
        save_turntable(stage.representation, folder / "turntable.webp", frames, size, stage.config.views)
    exports = _export(stage, pipeline, folder, journal) if config.export.enabled else []
    seconds = time.perf_counter() - start
    summary: dict[str, Any] = {
        "seconds": round(seconds, 1),
        "skipped_steps": stage.skipped,
        "export": _plain(exports[0]) if exports else None,
    }
    if config.particles > 1:
        summary["further_exports"] = [_plain(export) for export in exports[1:]]
    write_atomically(folder / "summary.json", json.dumps(summary, indent=1).encode())
    write_report(folder, config, exports, seconds)
    first = exports[0] if exports else None
    asset = first.path if first else None
    journal.say(f"done in {seconds:.0f} s: {asset or folder}")
    return RunResult(folder, asset, first, seconds, tuple(exports[1:]))


def _export(stage: Stage, pipeline: Pipeline, folder: Path, journal: Journal) -> list[ExportReport]:
    """One per particle."""
    config, reports = pipeline.config, []
    for index, scene in enumerate(particles_of(stage.representation)):
        which = config.of_particle(index)
        journal.say(f"extracting, unwrapping and baking the mesh{which}")
        try:
            report = export_asset(
                scene,
                asset_folder(folder, index),
                pipeline.export_of(stage),
                name=slug(config.prompt),
                provenance=provenance(config, index),
                report=journal.say,
            )
        except ValueError as error:
            raise UserError(
                f"no asset{which}: {error} "
                f"(the scene is kept: --resume --out {folder} exports again, export.* may be changed)"
            ) from error
        reports.append(report)
    return reports


def provenance(config: RunConfig, particle: int = 0) -> dict[str, Any]:
    """What the asset says about its making (glTF `asset.extras`); `particle` counts from 0."""
    return {
        "prompt": config.prompt,
        "seed": config.seed,
        **({"particle": f"{particle + 1} of {config.particles}"} if config.particles > 1 else {}),
        **config.names,
        "steps": {name: stage.steps for name, stage in config.active_stages().items()},
        "generator": f"steindreamer {version('steindreamer')}",
        "torch": torch.__version__,
    }


def _announce(journal: Journal, pipeline: Pipeline, folder: Path) -> None:
    config, prior = pipeline.config, pipeline.prior
    names = config.names
    scenes = f" ({config.particles} particles)" if config.particles > 1 else ""
    journal.say(
        f"'{config.prompt}' as {names['representation']}{scenes} by {names['method']} with prior '{names['prior']}'"
    )
    description = getattr(prior, "description", "")
    if description:
        journal.say(f"prior: {description}")
    for line in memory_lines(pipeline):
        journal.say(line)
    stages = ", ".join(f"{name} {stage.steps}" for name, stage in pipeline.stages.items())
    journal.say(f"steps: {stages}; on {prior.device}, {platform.machine()}; files go to {folder}")
    if any(0 < stage.probe_every <= stage.steps for stage in pipeline.stages.values()):
        journal.say(
            "gradient variance: over noise draws at the same views, per pixel; beside that of SDS at the same draws"
        )


def _restore(pipeline: Pipeline, folder: Path, journal: Journal) -> Stage:
    checkpoint, damage = read_newest_checkpoint(folder / "checkpoints")
    for line in damage:
        journal.say(line)
    if checkpoint is None:
        journal.say("no checkpoint yet: starting from the first step")
        journal.rewind(0)
        return pipeline.first()
    stage = pipeline.resumed(str(checkpoint.metadata["stage"]))
    stage.load_tensors(checkpoint.tensors)
    journal.rewind(stage.total)
    journal.say(f"resuming after step {stage.total}, in stage '{stage.name}'")
    return stage


def _run_stages(pipeline: Pipeline, stage: Stage, folder: Path, journal: Journal, watch: Watch | None) -> Stage:
    """From this stage to the last, which is returned."""
    output = pipeline.config.output
    while True:
        _optimise(stage, output, folder, journal, watch)
        for index, scene in enumerate(particles_of(stage.representation)):
            if isinstance(scene, Savable):
                journal.say(f"the scene itself: {scene.save(asset_folder(folder, index))}")
        following = pipeline.following(stage, journal.say)
        if following is None:
            return stage
        _save_picture(stage, stage.name, folder, output)
        stage = following
        _save_picture(stage, f"{stage.name}-start", folder, output)
        journal.restart_clock()


def _optimise(stage: Stage, output: OutputConfig, folder: Path, journal: Journal, watch: Watch | None) -> None:
    steps = stage.config.steps
    with _interruptible() as interrupted:
        if watch is not None:
            watch(stage)
            journal.restart_clock()
        while stage.done < steps:
            journal.record(stage.step())
            if watch is not None:
                watch(stage)
            last = stage.done == steps
            if interrupted or last or (output.checkpoint_every and stage.done % output.checkpoint_every == 0):
                journal.flush()
                _save(stage, folder)
            if interrupted:
                raise Interrupted(folder, stage.total)
            if output.preview_every and stage.done % output.preview_every == 0 and not last:
                _save_picture(stage, f"{stage.total:06d}", folder, output)
            journal.restart_clock()


def _save_picture(stage: Stage, name: str, folder: Path, output: OutputConfig) -> None:
    path = folder / "previews" / f"{name}.png"
    save_contact_sheet(stage.representation, path, output.picture_size, stage.config.views)


def _save(stage: Stage, folder: Path) -> None:
    saved_at = datetime.now(UTC).isoformat(timespec="seconds")
    metadata = {"stage": stage.name, "saved_at": saved_at}
    write_checkpoint(folder / "checkpoints", stage.total, stage.tensors(), metadata)


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
