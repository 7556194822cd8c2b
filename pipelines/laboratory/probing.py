"""The variance of several methods' gradients at the newest scene of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ...distill import Distiller, Pullback
from ...distill.variance_probe import REFERENCE, EstimatorVariance
from ..checkpoint import Checkpoint, restore_newest
from ..config import RunConfig, compose, given_layers, read_config
from ..errors import DamagedCheckpoint, SettingsError, UserError
from ..estimators import load_estimator
from ..pipeline import Pipeline
from ..stage import Stage
from .contenders import Contender, shared_settings, texts_of
from .trial import OWN

SDS = Contender(REFERENCE, REFERENCE)
"""Always measured."""


@dataclass(frozen=True)
class RunProbe:
    """What was found at one scene."""

    stage: str
    step: int
    """Of the run."""
    variances: dict[str, EstimatorVariance]
    """By label; "sds" is always there."""
    damage: tuple[str, ...] = ()
    """A line about each damaged checkpoint that was passed over."""


def probe_run(
    folder: Path, contenders: Sequence[Contender] = (), *, tuples: int = 120, seed: int = 0, learn: int = 100
) -> RunProbe:
    """Measure `contenders` (none: the run's own method, as "own") and SDS on the same tuples; `folder` is not changed.

    A contender of the run's method without settings is the run's own, with the coefficients of the checkpoint; the
    others first learn on `learn` draws at this scene. SDS is plain, with the run's guidance, noise levels and
    weighting. Raises UserError.
    """
    if not (folder / "config.yaml").is_file():
        raise UserError(f"no run to probe: {folder / 'config.yaml'} does not exist; give a run's folder")
    config = read_config(folder / "config.yaml")
    stage, damage = _newest_scene(folder, config)
    distillers = {c.label: _distiller(c, config, stage, learn) for c in contenders if c != SDS}
    if REFERENCE in distillers:
        raise UserError(f"'{REFERENCE}' is the name of plain SDS here; label the method otherwise: LABEL=NAME:...")
    if not contenders:
        distillers = {OWN: stage.distiller}
    found = stage.probe(distillers, tuples, torch.Generator().manual_seed(seed))
    return RunProbe(stage.name, stage.total, found, tuple(damage))


def _newest_scene(folder: Path, config: RunConfig) -> tuple[Stage, list[str]]:
    """The stage as the newest undamaged checkpoint has it, and a line about each that was passed over."""
    pipeline = Pipeline(config)

    def use(checkpoint: Checkpoint) -> Stage:
        name = checkpoint.metadata.get("stage")
        if not isinstance(name, str):
            raise DamagedCheckpoint("is damaged: its JSON does not say the stage")
        stage = pipeline.resumed(name)
        stage.load_tensors(checkpoint.tensors)
        return stage

    stage, damage = restore_newest(folder / "checkpoints", use)
    if stage is None:
        raise UserError(f"{folder} has no checkpoint yet; let the run go on first")
    return stage, damage


def _distiller(contender: Contender, config: RunConfig, stage: Stage, learn: int) -> Distiller:
    if contender.method == config.names["method"] and not contender.settings:
        return stage.distiller
    layers = [config.to_plain(), shared_settings(config), *given_layers(contender.settings, {})]
    wanted = compose(layers, {"method": contender.method})
    if texts_of(wanted, stage.name) != texts_of(config, stage.name):
        raise UserError(f"{contender.label} puts other words to the prior than the run did; probe a run made with it")
    method = wanted.method_of(stage.name)
    estimator = load_estimator(wanted.estimator, stage.prior.device) if method.needs_estimator else None
    try:
        distiller = method.build(stage.prior, estimator).to(stage.prior.device)
    except ValueError as error:
        raise SettingsError(f"{contender.label}: {' '.join(str(error).split())}") from error
    generator = torch.Generator().manual_seed(1)
    for _ in range(learn):
        seen = stage.look(generator, stage.config.views)
        distillation = distiller(
            seen.picture.detach(), seen.guide, seen.condition, progress=stage.progress, generator=generator
        )
        gram = None
        if distiller.needs_gram:
            parameters = [p for p in stage.representation.parameters() if p.requires_grad]
            gram = Pullback(lambda draw=seen.draw: stage.prior.encode(draw()[1]), parameters).gram
        distiller.update(distillation, gram)
    return distiller
