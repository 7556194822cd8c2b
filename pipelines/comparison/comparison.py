"""Comparison: every method with every prompt and seed, with the same number of prior evaluations."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from steindreamer.distill.distiller import Distiller
from steindreamer.distill.variance.probe import count_predictions

from ..config.run_config import RunConfig
from ..errors import SettingsError, UserError
from ..geometry_models import load_estimator
from ..optimization.stage import Stage
from ..optimization.stage_config import StageConfig
from ..runs.pipeline import Pipeline
from ..runs.signals import signals_handled
from .candidates import Candidate, texts_of
from .children import Children
from .trial import Record, Trial, run_config, run_trial

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Comparison:
    """Settings of a comparison; see `Trial` for fields with the same name."""

    candidates: tuple[Candidate, ...]
    """Methods to compare. The first one is the reference of the others, and its number of steps sets the budget."""
    prompts: tuple[str, ...]
    seeds: tuple[int, ...] = (0, 1, 2)
    settings: tuple[str, ...] = ()
    """Settings for all methods, each `section.key=value`."""
    representation: str = ""
    """Name of the representation; empty to use that of the preset."""
    prior: str = ""
    preset: str = "cpu"
    calls: int = 0
    """Prior evaluations per run; 0 means the number that the first method needs for its steps."""
    measurements: int = 10
    tuples: int = 120
    views: int = 12
    size: int = 128
    score: str = "psnr"
    clip: str = ""
    plugins: tuple[str, ...] = ()
    """Plugin files loaded with --plugin."""


def plan(comparison: Comparison) -> list[Trial]:
    """Plan the runs, with numbers of steps such that all use the same number of prior evaluations.

    Methods may differ in the number of views per step (`stages.NAME.views.per_step`).

    The prior is loaded once and queried once per method, to count the evaluations of a step.

    Raises:
        UserError: A setting is invalid, or the prior cannot be loaded.
    """
    configs = [_config(comparison, candidate, candidate.settings) for candidate in comparison.candidates]
    first = configs[0].active_stages()
    needed = _calls_per_view(configs)
    budgets = {name: stage.steps * stage.views.per_step * needed[0] for name, stage in first.items()}
    scale = comparison.calls / sum(budgets.values()) if comparison.calls else 1.0
    trials = []
    for candidate, config, calls in zip(comparison.candidates, configs, needed, strict=True):
        stages = config.active_stages()
        if stages.keys() != first.keys() or any(not _same_views(s, first[n]) for n, s in stages.items()):
            raise UserError(
                f"'{candidate.label}' has other stages or cameras than the first method; use the same for all methods "
                "(views.per_step may differ)"
            )
        views = {stage.views.per_step for stage in stages.values()}
        if len(views) > 1:
            raise UserError(
                f"the stages of '{candidate.label}' differ in views.per_step; use the same value for all its stages, "
                "so that its steps are comparable"
            )
        per_step = calls * views.pop()
        steps = [f"stages.{name}.steps={max(1, round(scale * budget / per_step))}" for name, budget in budgets.items()]
        trials += _trials(comparison, candidate, tuple(steps), per_step)
    return trials


def run_all(trials: Sequence[Trial], out: Path, jobs: int = 1) -> list[Record]:
    """Run the trials that are not finished yet in `out`.

    Args:
        trials: Trials to run.
        out: Folder of the comparison.
        jobs: Number of parallel processes, one trial each; 0 runs all trials in this process.

    Raises:
        UserError: A run of the same name was started with other settings, or a run failed.
    """
    (out / "trials").mkdir(parents=True, exist_ok=True)
    waiting = [trial for trial in trials if not _prepared(trial, out).finished]
    logger.info(f"{len(trials)} runs, {len(trials) - len(waiting)} already finished")

    children = Children()

    def run(trial: Trial) -> None:
        _run_one(trial, out, jobs, children)
        logger.info(f"finished: {trial.label}, '{trial.prompt}', seed {trial.seed}")

    with signals_handled(lambda: "run the same command again to continue"):
        if jobs:
            with ThreadPoolExecutor(jobs) as pool:
                try:
                    list(pool.map(run, waiting))
                except BaseException as error:
                    pool.shutdown(wait=False, cancel_futures=True)  # pending trials must not start
                    if not isinstance(error, Exception):  # Ctrl-C and the like
                        children.end()
                    raise
        else:
            for trial in waiting:
                run(trial)
    return [Record.read(_record_path(trial, out)) for trial in trials]


def _record_path(trial: Trial, out: Path) -> Path:
    return out / "trials" / f"{trial.name}.json"


def run_folder(trial: Trial, out: Path) -> Path:
    """Return the folder of a trial's run."""
    return out / "runs" / trial.name


def _prepared(trial: Trial, out: Path) -> Record:
    """Return the record of a trial; a new one if there is none yet."""
    path = _record_path(trial, out)
    if not path.exists():
        record = Record(trial)
        record.write(path)
        return record
    record = Record.read(path)
    if record.trial != trial:
        raise UserError(
            f"{path} was made with different settings; use the same settings again, or choose another --out"
        )
    return record


def _run_one(trial: Trial, out: Path, jobs: int, children: Children) -> None:
    record, folder = _record_path(trial, out), run_folder(trial, out)
    if not jobs:
        run_trial(record, folder)
        return
    threads = str(max(1, (os.cpu_count() or 1) // jobs))
    environment = {"OMP_NUM_THREADS": threads, "NUMBA_NUM_THREADS": threads, **os.environ}
    plugins = [word for plugin in trial.plugins for word in ("--plugin", plugin)]
    module = "steindreamer.pipelines.comparison.trial"
    status, message = children.run(module, [str(record), str(folder), *plugins], environment)
    if status:
        raise UserError(f"{trial.name}: {message.removeprefix('error: ') or f'ended with status {status}'}")


def _config(comparison: Comparison, candidate: Candidate, settings: Sequence[str]) -> RunConfig:
    c = comparison
    settings = (*c.settings, *settings)
    return run_config(candidate.method, c.prompts[0], 0, c.representation, c.prior, c.preset, settings, c.plugins)


def _same_views(one: StageConfig, other: StageConfig) -> bool:
    """Whether the cameras are drawn from the same distribution; their number per step may differ."""
    return replace(one.views, per_step=1) == replace(other.views, per_step=1)


def _trials(comparison: Comparison, candidate: Candidate, steps: tuple[str, ...], per_step: int) -> list[Trial]:
    c = comparison
    return [
        Trial(
            label=candidate.label,
            method=candidate.method,
            settings=(*c.settings, *candidate.settings, *steps),
            prompt=prompt,
            seed=seed,
            representation=c.representation,
            prior=c.prior,
            preset=c.preset,
            calls_per_step=per_step,
            measurements=c.measurements,
            tuples=c.tuples,
            views=c.views,
            size=c.size,
            score=c.score,
            clip=c.clip,
            plugins=c.plugins,
        )
        for prompt in c.prompts
        for seed in c.seeds
    ]


def _calls_per_view(configs: Sequence[RunConfig]) -> list[int]:
    """Return the evaluations of the prior and the LoRA denoiser per view of a step, by configuration."""
    stage, found = Pipeline(configs[0]).first(), []
    asked_for = texts_of(configs[0], stage.name)
    for config in configs:
        if texts_of(config, stage.name) != asked_for:  # the method phrases the prompts differently
            stage, asked_for = Pipeline(config).first(), texts_of(config, stage.name)
        method = config.methods[stage.name]
        estimator = load_estimator(config.estimator, stage.prior.device) if method.needs_estimator else None
        try:
            distiller = method.build(stage.prior, estimator).to(stage.prior.device)
        except ValueError as error:
            raise UserError(" ".join(str(error).split())) from error
        if distiller.chooses_draws:
            raise SettingsError(
                "method.draws=auto changes the number of calls during a run, but a comparison gives all methods the "
                "same number of calls; set method.draws to a number, such as the one that a run with auto reports"
            )
        found.append(calls_per_view(stage, distiller))
    return found


def calls_per_view(stage: Stage, distiller: Distiller[Any]) -> int:
    """Return the evaluations of the prior and the LoRA denoiser per view of a step, counted in one."""
    generator = torch.Generator().manual_seed(0)
    view = stage.render_views(replace(stage.config.views, per_step=1), generator)
    with count_predictions(distiller) as counter:
        image = view.image.detach()
        distiller.update(distiller(image, view.geometry, view.condition, progress=0.0, generator=generator))
    return counter.predictions
