"""A whole run: stages, checkpoints, pictures, asset, report. The same call continues an interrupted run exactly."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from ..representations import Savable, particles_of
from .checkpoint import Checkpoint, restore_newest, write_checkpoint
from .config import SCHEMA, RunConfig
from .errors import DamagedCheckpoint, Interrupted, UserError
from .export import ExportReport, export_asset
from .files import write_atomically
from .journal import Journal
from .manifest import Manifest, check_kinds
from .memory_report import memory_lines
from .out_of_memory import ADVICE, is_out_of_memory
from .pictures import save_contact_sheet, save_turntable
from .pipeline import Pipeline
from .report import write_report
from .resuming import asset_settings, refuse_other_asset, refuse_other_optimisation
from .run_folder import asset_folder, check_folder, create_folder, slug, write_config
from .run_lock import owned
from .run_watchdog import Watchdog, watched
from .signals import Signals, signals_handled
from .stage import Stage
from .streams import complain, put


@dataclass(frozen=True)
class RunResult:
    """Where a finished run left its files, and what it measured; no asset with `export.enabled=false`."""

    folder: Path
    asset: Path | None
    export: ExportReport | None
    seconds: float
    """Of the whole run, also before it was resumed."""
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

    `overwrite`: in place of an earlier run; resuming, in place of an asset that was made with other settings.
    `watch` is called with every state of the scene, and sees the last one again when a run is resumed.
    Raises UserError for what the user can mend, also if another process writes to the folder; Interrupted after Ctrl-C,
    SIGTERM and SIGHUP (the state is saved first), KeyboardInterrupt after a second one, and where there is no step
    under way.
    """
    try:
        with signals_handled(lambda: _advice(folder)) as signals:
            if resume:
                check_kinds(folder)
            else:
                check_folder(folder, overwrite=overwrite)
            with ExitStack() as held:
                run = _Run(config, folder, signals, held, quiet=quiet, watch=watch)
                return run.resume(overwrite) if resume else run.begin(overwrite)
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError(str(error) if isinstance(error, UserError) else ADVICE) from error
        if isinstance(error, OSError):
            raise UserError(
                f"cannot read or write {error.filename or folder}: {error.strerror or error}; "
                "mend that and continue with --resume"
            ) from error
        raise


def _advice(folder: Path) -> str:
    """How to go on after a signal."""
    if (folder / "config.yaml").is_file():
        return f"continue from the last checkpoint with --resume --out {folder}"
    return "nothing has been written yet"


class _Run:
    """One run in its folder, which it owns from the moment that both exist."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        signals: Signals,
        held: ExitStack,
        *,
        quiet: bool,
        watch: Watch | None,
    ) -> None:
        """`held` ends with the run. Raises UserError if another process owns the folder, or the prior's."""
        self.config, self.folder, self.signals, self.watch = config, folder, signals, watch
        self._held, self._quiet, self._is_owner = held, quiet, False
        if folder.exists():
            self._own()
        self.start = time.perf_counter()
        """When the run would have begun if it had not been interrupted (seconds of `time.perf_counter`)."""
        self._config_written = False

    def begin(self, overwrite: bool) -> RunResult:
        """A new run."""
        self._load()
        stage = self.pipeline.first()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._own()
        except OSError as error:
            what = f"cannot write to {self.folder}: {error.strerror or error}"
            raise UserError(f"{what}; choose another with --out") from None
        create_folder(self.folder, self.config, overwrite=overwrite)
        self._config_written = True
        self._open()
        return self._finish(stage)

    def resume(self, overwrite: bool) -> RunResult:
        """An earlier one; `overwrite`: also if its asset is replaced by another one."""
        if not overwrite:
            refuse_other_asset(self.folder, self.config, SCHEMA)
        self._load()
        self._open()
        return self._finish(self._restore())

    def _own(self) -> None:
        """Raises UserError if another process has the folder."""
        if not self._is_owner:
            self._held.enter_context(owned(self.folder, self._say))
            self._is_owner = True

    def _say(self, text: str) -> None:
        if not self._quiet:
            put(text)

    def _load(self) -> None:
        self.pipeline = Pipeline(self.config)

    def _open(self) -> None:
        """What needs the folder."""
        output = self.config.output
        self.journal = Journal(self.folder / "metrics.jsonl", self.pipeline.steps, output.log_every, quiet=self._quiet)
        self.manifest = Manifest(self.folder)
        self.watchdog: Watchdog = self._held.enter_context(watched(self.folder, output.watchdog_seconds))
        _announce(self.journal, self.pipeline, self.folder)

    def _restore(self) -> Stage:
        def use(checkpoint: Checkpoint) -> Stage:
            name, settings = (checkpoint.metadata.get(key) for key in ("stage", "settings"))
            seconds = checkpoint.metadata.get("seconds")
            if not (isinstance(name, str) and isinstance(settings, dict) and isinstance(seconds, int | float)):
                raise DamagedCheckpoint("is damaged: its JSON does not say stage, settings and seconds")
            refuse_other_optimisation(settings, self.config, f"{self.folder} was started with other settings")
            stage = self.pipeline.resumed(name)
            stage.load_tensors(checkpoint.tensors)
            if stage.total != checkpoint.step:
                raise DamagedCheckpoint(f"is damaged: its tensors are of step {stage.total}")
            self.start = time.perf_counter() - max(0.0, float(seconds))
            return stage

        stage, damage = restore_newest(self.folder / "checkpoints", use)
        for line in damage:
            complain(line)
        if stage is None:
            self.journal.say("no checkpoint yet: starting from the first step")
            self.journal.rewind(0)
            return self.pipeline.first()
        self.journal.rewind(stage.total)
        self.journal.say(f"resuming after step {stage.total}, in stage '{stage.name}'")
        return stage

    def _finish(self, stage: Stage) -> RunResult:
        """From this state of the scene to the report."""
        config, folder, output = self.config, self.folder, self.config.output
        for line in self.pipeline.notes(stage.representation):
            self.journal.say(line)
        stage = self._run_stages(stage)
        if stage.skipped:
            self.journal.say(f"{stage.skipped} steps were skipped because something was not finite")
        self._picture(stage, "final")
        if output.turntable_frames:
            self.watchdog.feed("the turntable")
            frames, size = output.turntable_frames, output.picture_size
            save_turntable(stage.representation, folder / "turntable.webp", frames, size, stage.config.views)
        exports = self._export(stage) if config.export.enabled else []
        self._keep_config()
        self.watchdog.feed("the report")
        seconds = round(time.perf_counter() - self.start, 1)
        summary: dict[str, Any] = {
            "seconds": seconds,
            "skipped_steps": stage.skipped,
            "export": _plain(exports[0]) if exports else None,
        }
        if config.particles > 1:
            summary["further_exports"] = [_plain(export) for export in exports[1:]]
        write_atomically(folder / "summary.json", json.dumps(summary, indent=1).encode())
        write_report(folder, config, exports, seconds)
        first = exports[0] if exports else None
        asset = first.path if first else None
        self.journal.say(f"done in {seconds:.0f} s: {asset or folder}")
        return RunResult(folder, asset, first, seconds, tuple(exports[1:]))

    def _run_stages(self, stage: Stage) -> Stage:
        """From this stage to the last, which is returned."""
        while True:
            self._optimise(stage)
            if stage.has_learned_nothing:
                raise UserError(
                    f"all {stage.config.steps} steps of stage '{stage.name}' were skipped because something was not "
                    "finite, so nothing was learned; check the prior's weights, lower method.guidance_scale or the "
                    "learning rates, and start anew"
                )
            self._save_scene(stage)
            self.watchdog.feed(f"the hand-over from stage '{stage.name}'")
            following = self.pipeline.following(stage, self.journal.say)
            if following is None:
                return stage
            self._picture(stage, stage.name)
            stage = following
            self._picture(stage, f"{stage.name}-start")
            self.journal.restart_clock()

    def _optimise(self, stage: Stage) -> None:
        steps, output, journal = stage.config.steps, self.config.output, self.journal
        with self.signals.wait():
            if self.watch is not None:
                self.watchdog.feed(f"the measurement after step {stage.total}")
                self.watch(stage)
                journal.restart_clock()
            while stage.done < steps:
                self.watchdog.feed(f"step {stage.total + 1}")
                journal.record(stage.step())
                if self.watch is not None:
                    self.watch(stage)
                last, interrupted = stage.done == steps, self.signals.number
                due = output.checkpoint_every and stage.done % output.checkpoint_every == 0
                if interrupted or last or due:
                    journal.flush()
                    self._save(stage)
                if interrupted:
                    raise Interrupted(self.folder, stage.total, interrupted)
                if output.preview_every and stage.done % output.preview_every == 0 and not last:
                    self._picture(stage, f"{stage.total:06d}")
                journal.restart_clock()
        if self.signals.number:  # after the last step, which is saved
            raise Interrupted(self.folder, stage.total, self.signals.number)

    def _save(self, stage: Stage) -> None:
        stage.check_finite()
        metadata = {
            "stage": stage.name,
            "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self.start, 3),
            "settings": self.config.to_plain(),
        }
        write_checkpoint(self.folder / "checkpoints", stage.total, stage.tensors(), metadata)
        self._keep_config()

    def _keep_config(self) -> None:
        """Of a resumed run only once it has got somewhere: it may have been given other settings for the asset."""
        if not self._config_written:
            write_config(self.folder, self.config)
            self._config_written = True

    def _save_scene(self, stage: Stage) -> None:
        """In its own format, if it has one."""
        for index, scene in enumerate(particles_of(stage.representation)):
            if isinstance(scene, Savable):
                try:
                    with self.manifest.noting():
                        path = scene.save(asset_folder(self.folder, index))
                except ValueError as error:
                    raise UserError(f"the scene cannot be written: {error}") from error
                self.journal.say(f"the scene itself: {path}")

    def _picture(self, stage: Stage, name: str) -> None:
        self.watchdog.feed(f"the picture '{name}'")
        path, size = self.folder / "previews" / f"{name}.png", self.config.output.picture_size
        with self.manifest.noting():
            save_contact_sheet(stage.representation, path, size, stage.config.views)

    def _export(self, stage: Stage) -> list[ExportReport]:
        """One per particle."""
        config, reports = self.config, []
        self.manifest.begin_asset(asset_settings(config.to_plain()))
        for index, scene in enumerate(particles_of(stage.representation)):
            which = config.of_particle(index)
            self.journal.say(f"extracting, unwrapping and baking the mesh{which}")
            self.watchdog.feed(f"the export{which}")
            try:
                with self.manifest.noting():
                    report = export_asset(
                        scene,
                        asset_folder(self.folder, index),
                        self.pipeline.export_of(stage),
                        name=slug(config.prompt),
                        provenance=provenance(self.pipeline, index),
                        report=self.journal.say,
                    )
            except ValueError as error:
                if is_out_of_memory(error):
                    raise
                raise UserError(
                    f"no asset{which}: {error} "
                    f"(the scene is kept: --resume --out {self.folder} exports again, export.* may be changed)"
                ) from error
            reports.append(report)
        return reports


def provenance(pipeline: Pipeline, particle: int = 0) -> dict[str, Any]:
    """How the asset was made (glTF `asset.extras`); `particle` counts from 0.

    `prior_sha256` covers the files of the prior; an exact prior has none.
    """
    config = pipeline.config
    fingerprint = getattr(pipeline.prior, "fingerprint", "")
    return {
        "prompt": config.prompt,
        "seed": config.seed,
        **({"particle": f"{particle + 1} of {config.particles}"} if config.particles > 1 else {}),
        **config.names,
        **({"prior_sha256": fingerprint} if fingerprint else {}),
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


def _plain(export: ExportReport) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(export).items()}
