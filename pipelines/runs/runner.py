"""Runner: stages, checkpoints, images, asset and report. The same call resumes an interrupted run exactly."""

from __future__ import annotations

import json
import logging
import platform
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from steindreamer.distill import Prior
from steindreamer.distill.priors.base import ReadsPrompts
from steindreamer.distill.priors.counting import CountingPrior
from steindreamer.distill.ranks import ALONE, Ranks
from steindreamer.distill.variance.probe import count_predictions
from steindreamer.representations import Representation, RetexturedMesh, Savable, particles_of

from ..config.run_config import SCHEMA, RunConfig
from ..errors import DamagedCheckpoint, Interrupted, Paused, UserError
from ..export import ExportReport, export_asset
from ..export.previews import save_contact_sheet, save_turntable
from ..export.retextured import export_retextured
from ..export.sizes import with_usual_height
from ..files import write_atomically
from ..finishing.details import write_details
from ..optimization.edits import plain_edits, restore_edits
from ..optimization.out_of_memory import ADVICE, is_out_of_memory
from ..optimization.stage import Stage
from .checkpoint import Checkpoint, restore_newest, write_checkpoint
from .folder import asset_folder, check_folder, create_folder, slug, write_config
from .following import Lead
from .lock import owned
from .manifest import Manifest, check_kinds
from .memory_report import memory_lines
from .pipeline import Pipeline
from .report import write_report
from .result import Result
from .resuming import asset_settings, refuse_other_asset, refuse_other_optimization
from .signals import Signals, signals_handled
from .time_left import expected_stages
from .training_log import TrainingLog
from .watchdog import Watchdog, watched
from .watching import Watch, Wish

logger = logging.getLogger(__name__)


def generate(
    config: RunConfig,
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    watch: Watch | None = None,
    prior: Prior | None = None,
    ranks: Ranks = ALONE,
) -> Result:
    """Distill `config.prompt` into `folder`.

    Args:
        config: Resolved settings; when resuming, those that the run was started with.
        folder: Folder of the run.
        resume: Continue the run in the folder.
        overwrite: Replace an earlier run; when resuming, replace an asset made with other settings.
        watch: Called with every state of the scene, and with the last state again when a run is resumed.
        prior: The prior, if it was built before from the same settings `config.prior`; None: it is built.
        ranks: The processes that share the views of each step; this is rank 0, the others call `follow`.

    Raises:
        UserError: A user-fixable problem, or another process writes to the folder.
        Interrupted: After Ctrl-C, SIGTERM or SIGHUP, once the state is saved; `Paused` if the watch asked for it.
        KeyboardInterrupt: After a second signal, or if no step is running.
    """
    try:
        with signals_handled(lambda: _advice(folder)) as signals:
            if resume:
                check_kinds(folder)
            else:
                check_folder(folder, overwrite=overwrite)
            with ExitStack() as held:
                run = _Run(config, folder, signals, held, watch=watch, prior=prior, ranks=ranks)
                return run.resume(overwrite) if resume else run.begin(overwrite)
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError(str(error) if isinstance(error, UserError) else ADVICE) from error
        if isinstance(error, OSError):
            raise UserError(
                f"cannot read or write {error.filename or folder}: {error.strerror or error}; "
                "fix that and continue with --resume"
            ) from error
        raise


def _advice(folder: Path) -> str:
    """Return instructions to resume the run after a signal."""
    if (folder / "config.yaml").is_file():
        return f"continue from the last checkpoint with --resume --out {folder}"
    return "nothing has been written yet"


class _Run:
    """State of one run, which owns its folder once both exist."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        signals: Signals,
        held: ExitStack,
        *,
        watch: Watch | None,
        prior: Prior | None,
        ranks: Ranks,
    ) -> None:
        """Set up a run. Raises UserError if another process owns the folder.

        Args:
            config: Resolved settings.
            folder: Folder of the run.
            signals: Signals received so far.
            held: Exit stack that is closed at the end of the run; it holds the lock and the watchdog.
            watch, prior, ranks: See `generate`.
        """
        self.config, self.folder, self.signals, self.watch = config, folder, signals, watch
        self._prior, self._lead = prior, Lead(ranks)
        self._held, self._is_owner = held, False
        if folder.exists():
            self._own()
        self.start = time.perf_counter()
        """Start time of the run without interruptions, in seconds of `time.perf_counter`."""
        self._config_written = False
        self._earlier_calls = 0
        self._counters: list[CountingPrior[Any, Any]] = []

    def begin(self, overwrite: bool) -> Result:
        """Start a new run."""
        self._load()
        stage = self.pipeline.first()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._own()
        except OSError as error:
            what = f"cannot write to {self.folder}: {error.strerror or error}"
            raise UserError(f"{what}; choose another folder with --out") from None
        create_folder(self.folder, self.config, overwrite=overwrite)
        self._config_written = True
        self._open()
        return self._finish(stage)

    def resume(self, overwrite: bool) -> Result:
        """Resume an earlier run; `overwrite` allows its asset to be replaced."""
        if not overwrite:
            refuse_other_asset(self.folder, self.config, SCHEMA)
        self._load()
        self._open()
        return self._finish(self._restore())

    @property
    def prior_calls(self) -> int:
        """Noise predictions of the steps so far, one per image and prompt."""
        own = sum(counter.predictions for counter in self._counters)
        return self._earlier_calls + own * self._lead.ranks.count

    def _own(self) -> None:
        """Lock the folder. Raises UserError if another process owns it."""
        if not self._is_owner:
            self._held.enter_context(owned(self.folder))
            self._is_owner = True

    def _load(self) -> None:
        self.pipeline = Pipeline(self.config, self._prior, self._lead.ranks)

    def _open(self) -> None:
        """Open the resources that need the folder."""
        output = self.config.output
        self.training_log = TrainingLog(self.folder / "metrics.jsonl", expected_stages(self.config), output.log_every)
        self.manifest = Manifest(self.folder)
        self.watchdog: Watchdog = self._held.enter_context(watched(self.folder, output.watchdog_seconds))
        _announce(self.pipeline, self.folder)

    def _restore(self) -> Stage:
        def use(checkpoint: Checkpoint) -> Stage:
            name, settings = (checkpoint.metadata.get(key) for key in ("stage", "settings"))
            seconds = checkpoint.metadata.get("seconds")
            if not (isinstance(name, str) and isinstance(settings, dict) and isinstance(seconds, int | float)):
                raise DamagedCheckpoint("is damaged: its JSON does not contain stage, settings and seconds")
            refuse_other_optimization(settings, self.config, f"{self.folder} was started with different settings")
            stage = self.pipeline.resumed(name)
            stage.load_tensors(checkpoint.tensors)
            _restore_edits(stage, checkpoint.metadata.get("edits", []))
            if stage.total != checkpoint.step:
                raise DamagedCheckpoint(f"is damaged: its tensors are from step {stage.total}")
            self.start = time.perf_counter() - max(0.0, float(seconds))
            self._earlier_calls = _count(checkpoint.metadata.get("prior_calls"))
            return stage

        stage, damage = restore_newest(self.folder / "checkpoints", use)
        for line in damage:
            logger.warning(line)
        if stage is None:
            logger.info("no checkpoint yet: starting from the first step")
            self.training_log.rewind(0)
            return self.pipeline.first()
        self.training_log.rewind(stage.total)
        logger.info(f"resuming after step {stage.total}, in stage '{stage.name}'")
        return stage

    def _finish(self, stage: Stage) -> Result:
        """Complete the run from this state of the scene up to the report."""
        config, folder, output = self.config, self.folder, self.config.output
        for line in self.pipeline.notes(stage.representation):
            logger.info(line)
        stage = self._run_stages(stage)
        self._lead.end()
        if stage.skipped:
            logger.info(f"{stage.skipped} steps were skipped because of non-finite values")
        self._image(stage, "final")
        if output.turntable_frames:
            self.watchdog.feed("the turntable")
            frames, size = output.turntable_frames, output.image_size
            save_turntable(stage.representation, folder / "turntable.webp", frames, size, stage.config.views)
        exports = self._export(stage) if config.export.enabled else []
        self._keep_config()
        self.watchdog.feed("the report")
        seconds = round(time.perf_counter() - self.start, 1)
        summary = {
            "seconds": seconds,
            "prior_calls": self.prior_calls,
            "skipped_steps": stage.skipped,
            **({"edits": plain_edits(stage)} if stage.edits else {}),
            "exports": [export.to_plain() for export in exports],
        }
        write_atomically(folder / "summary.json", json.dumps(summary, indent=1).encode())
        write_report(folder, config, exports, seconds, stage.edits)
        result = Result(folder, stage.representation, tuple(exports), seconds)
        logger.info(f"done in {seconds:.0f} s: {result.asset or folder}")
        logger.info(f"report: {folder / 'report.html'}")
        return result

    def _run_stages(self, stage: Stage) -> Stage:
        """Run this stage and all later ones; returns the last stage."""
        while True:
            wish = self._optimize(stage)
            if stage.has_learned_nothing:
                raise UserError(
                    f"all {stage.config.steps} steps of stage '{stage.name}' were skipped because of non-finite "
                    "values, so nothing was learned; check the prior's weights, lower method.guidance_scale or the "
                    "learning rates, and start a new run"
                )
            self._save_scene(stage)
            self.watchdog.feed(f"the conversion from stage '{stage.name}'")
            following = None if wish is Wish.EXPORT else self.pipeline.following(stage)
            if following is None:
                return stage
            self._image(stage, stage.name)
            stage = following
            self._image(stage, f"{stage.name}-start")
            self.training_log.restart_clock()

    def _optimize(self, stage: Stage) -> Wish | None:
        """Take the remaining steps of a stage, unless the watch ends the run: returns its wish."""
        steps, output, training_log = stage.config.steps, self.config.output, self.training_log
        with self.signals.wait(), ExitStack() as held:
            held.enter_context(self._lead.stage(stage))
            distillers = stage.distillers.values()
            self._counters += [held.enter_context(count_predictions(each)) for each in distillers]
            wish = self._consult(stage)
            while stage.done < steps and wish is None:
                self.watchdog.feed(f"step {stage.total + 1}")
                self._lead.step(stage)
                training_log.record(stage.step())
                wish = self._consult(stage)
                last, interrupted = stage.done == steps, self.signals.number
                due = output.checkpoint_every and stage.done % output.checkpoint_every == 0
                if interrupted or last or due or wish:
                    training_log.flush()
                    self._save(stage)
                if interrupted:
                    raise Interrupted(self.folder, stage.total, interrupted)
                if output.preview_every and stage.done % output.preview_every == 0 and not last:
                    self._image(stage, f"{stage.total:06d}")
                training_log.restart_clock()
        if self.signals.number:  # the last step is already saved
            raise Interrupted(self.folder, stage.total, self.signals.number)
        if wish is Wish.STOP:
            raise Paused(self.folder, stage.total)
        return wish

    def _consult(self, stage: Stage) -> Wish | None:
        """Call the watch, again while it asks to wait."""
        if self.watch is None:
            return None
        wish: Wish | None = Wish.WAIT
        while wish is Wish.WAIT and not self.signals.number:
            self.watchdog.feed(f"the measurement after step {stage.total}")
            wish = self.watch(stage)
        self.training_log.restart_clock()
        return None if wish is Wish.WAIT else wish

    def _save(self, stage: Stage) -> None:
        stage.check_finite()
        metadata = {
            "stage": stage.name,
            "saved_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.perf_counter() - self.start, 3),
            "prior_calls": self.prior_calls,
            "settings": self.config.to_plain(),
            **({"edits": plain_edits(stage)} if stage.edits else {}),
        }
        write_checkpoint(self.folder / "checkpoints", stage.total, stage.tensors(), metadata)
        self._keep_config()

    def _keep_config(self) -> None:
        """Write config.yaml. A resumed run writes it after its first progress, since its asset settings may differ."""
        if not self._config_written:
            write_config(self.folder, self.config)
            self._config_written = True

    def _save_scene(self, stage: Stage) -> None:
        """Save the scene in its native format, if it has one."""
        for index, scene in enumerate(particles_of(stage.representation)):
            if isinstance(scene, Savable):
                try:
                    with self.manifest.noting():
                        path = scene.save(asset_folder(self.folder, index))
                except ValueError as error:
                    raise UserError(f"the scene cannot be saved: {error}") from error
                logger.info(f"saved the scene: {path}")

    def _image(self, stage: Stage, name: str) -> None:
        self.watchdog.feed(f"the image '{name}'")
        path, size = self.folder / "previews" / f"{name}.png", self.config.output.image_size
        with self.manifest.noting():
            save_contact_sheet(stage.representation, path, size, stage.config.views)

    def _export(self, stage: Stage) -> list[ExportReport]:
        """Export the asset; one report per particle."""
        config, reports = self.config, []
        self.manifest.begin_asset(asset_settings(config.to_plain()))
        for index, scene in enumerate(particles_of(stage.representation)):
            which = config.of_particle(index)
            self.watchdog.feed(f"the export{which}")
            try:
                with self.manifest.noting():
                    report = self._export_particle(stage, scene, index)
            except ValueError as error:
                if is_out_of_memory(error):
                    raise
                raise UserError(
                    f"cannot export the asset{which}: {error} (the scene is kept: --resume --out {self.folder} "
                    "exports again, export.* may be changed)"
                ) from error
            reports.append(report)
        return reports

    def _export_particle(self, stage: Stage, scene: Representation, index: int) -> ExportReport:
        """Write the asset of one particle. Raises ValueError if the scene cannot be exported."""
        folder, origin = asset_folder(self.folder, index), provenance(self.pipeline, index)
        which = self.config.of_particle(index)
        if isinstance(scene, RetexturedMesh):
            logger.info(f"writing the texture{which} into the file")
            return export_retextured(scene, folder, provenance=origin)
        logger.info(f"extracting, unwrapping and baking the mesh{which}")
        settings = with_usual_height(self.pipeline.export_settings(stage), scene, self.config.prompt)
        report = export_asset(scene, folder, settings, name=slug(self.config.prompt), provenance=origin)
        details = write_details(report.path, settings)
        seconds = {**report.seconds, **details.seconds}
        return replace(report, levels=details.levels, collider=details.collider, seconds=seconds)


def provenance(pipeline: Pipeline, particle: int = 0) -> dict[str, Any]:
    """Return how the asset was made, for glTF `asset.extras`.

    `prior_sha256` covers the files of the prior; an exact prior has none.

    Args:
        pipeline: Pipeline of the run.
        particle: Index of the particle, from 0.
    """
    config = pipeline.config
    fingerprint = getattr(pipeline.prior, "fingerprint", "")
    return {
        "prompt": config.prompt,
        "seed": config.seed,
        **({"particle": f"{particle + 1} of {config.particles}"} if config.particles > 1 else {}),
        **config.names,
        "representation": config.first_representation,
        **({"prior_sha256": fingerprint} if fingerprint else {}),
        "steps": {name: stage.steps for name, stage in config.active_stages().items()},
        "generator": f"steindreamer {version('steindreamer')}",
        "torch": torch.__version__,
    }


def _restore_edits(stage: Stage, edits: Any) -> None:
    """Apply the edits of a checkpoint. Raises UserError if one is refused now."""
    try:
        restore_edits(stage, edits)
    except ValueError as error:
        raise UserError(f"a setting that was changed while the run went on is refused now: {error}") from error
    if stage.edits:
        logger.info(f"changed earlier while the run went on: {'; '.join(map(str, stage.edits))}")


def _count(value: object) -> int:
    """A number in a checkpoint; 0 if it is not there, as in those of earlier versions."""
    return value if isinstance(value, int) else 0


def _announce(pipeline: Pipeline, folder: Path) -> None:
    config, prior = pipeline.config, pipeline.prior
    names = config.names
    scenes = f" ({config.particles} particles)" if config.particles > 1 else ""
    logger.info(
        f"'{config.prompt}' as {config.first_representation}{scenes} by {names['method']} with prior '{names['prior']}'"
    )
    if isinstance(prior, ReadsPrompts):
        for line in prior.prompt_notes(config.prompt, config.negative_prompt):
            logger.info(line)
    description = getattr(prior, "description", "")
    if description:
        logger.info(f"prior: {description}")
    for line in memory_lines(pipeline):
        logger.info(line)
    stages = ", ".join(f"{name} {stage.steps}" for name, stage in pipeline.stages.items())
    logger.info(f"steps: {stages}; on {prior.device}, {platform.machine()}")
    logger.info(f"writing to {folder}: images in previews/ while it runs, report.html at the end")
    if any(0 < stage.probe_every <= stage.steps for stage in pipeline.stages.values()):
        logger.debug(
            "gradient variance: over noise draws at the same views, summed over the latent; compared with SDS at the "
            "same draws"
        )
