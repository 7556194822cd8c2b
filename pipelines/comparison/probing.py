"""Gradient variance of several methods at the newest scene of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from steindreamer.distill import Distiller
from steindreamer.distill.variance.probe import REFERENCE, EstimatorVariance

from ..config.run_config import RunConfig, compose, given_layers, read_config
from ..errors import DamagedCheckpoint, SettingsError, UserError
from ..geometry_models import load_estimator
from ..optimization.stage import Stage
from ..runs.checkpoint import Checkpoint, restore_newest
from ..runs.pipeline import Pipeline
from .candidates import Candidate, shared_settings, texts_of
from .trial import OWN

SDS = Candidate(REFERENCE, REFERENCE)
"""Plain SDS, which is always measured."""


@dataclass(frozen=True)
class RunProbe:
    """Result of a variance probe at one scene."""

    stage: str
    step: int
    """Step of the run that the scene was saved at."""
    modality: str
    """Modality of the images."""
    variances: dict[str, EstimatorVariance]
    """Variance by label; always contains "sds"."""
    damage: tuple[str, ...] = ()
    """One line per damaged checkpoint that was skipped."""


def probe_run(
    folder: Path,
    candidates: Sequence[Candidate] = (),
    *,
    tuples: int = 120,
    seed: int = 0,
    learn: int = 100,
    modality: str = "",
) -> RunProbe:
    """Measure several methods and SDS on the same tuples, at the newest scene of a run; `folder` is not modified.

    A candidate of the run's own method without settings uses the coefficients of the checkpoint. All others first learn
    their coefficients on `learn` samples at this scene. SDS is plain, with the guidance, the timesteps and the
    weighting of the run. Without given methods, the run's own method is measured, labeled "own".

    Args:
        folder: Folder of the run.
        tuples: Number of tuples of timestep, camera and noise.
        seed: Seed of the tuples.
        learn: Number of samples that coefficients are learned on.
        modality: Modality of the images; empty for the most frequent one of the stage.

    Raises:
        UserError: The run has no usable checkpoint, its stage does not distill the modality, or a candidate does not
            apply to it.
    """
    if not (folder / "config.yaml").is_file():
        raise UserError(f"no run to probe: {folder / 'config.yaml'} does not exist; give a run's folder")
    config = read_config(folder / "config.yaml")
    stage, damage = _newest_scene(folder, config)
    modality = modality or stage.modality
    if modality not in stage.distillers:
        raise UserError(
            f"--modality is {modality}, which the stage '{stage.name}' does not distill: use one of "
            f"{', '.join(stage.distillers)}"
        )
    distillers = {c.label: _distiller(c, config, stage, modality, learn) for c in candidates if c != SDS}
    if REFERENCE in distillers:
        raise UserError(f"'{REFERENCE}' is reserved for plain SDS; give the method another label: LABEL=NAME:...")
    if not candidates:
        distillers = {OWN: stage.distillers[modality]}
    found = stage.probe(distillers, tuples, torch.Generator().manual_seed(seed), modality)
    return RunProbe(stage.name, stage.total, modality, found, tuple(damage))


def _newest_scene(folder: Path, config: RunConfig) -> tuple[Stage, list[str]]:
    """Return the stage at the newest undamaged checkpoint, and one line per damaged checkpoint that was skipped."""
    pipeline = Pipeline(config)

    def use(checkpoint: Checkpoint) -> Stage:
        name = checkpoint.metadata.get("stage")
        if not isinstance(name, str):
            raise DamagedCheckpoint("is damaged: its JSON does not contain the stage")
        stage = pipeline.resumed(name)
        stage.load_tensors(checkpoint.tensors)
        return stage

    stage, damage = restore_newest(folder / "checkpoints", use)
    if stage is None:
        raise UserError(f"{folder} has no checkpoint yet; continue the run until it saves one")
    return stage, damage


def _distiller(candidate: Candidate, config: RunConfig, stage: Stage, modality: str, learn: int) -> Distiller:
    if candidate.method == config.names["method"] and not candidate.settings:
        return stage.distillers[modality]
    layers = [config.to_plain(), shared_settings(config), *given_layers(candidate.settings, {})]
    wanted = compose(layers, {"method": candidate.method})
    if texts_of(wanted, stage.name) != texts_of(config, stage.name):
        raise UserError(f"{candidate.label} uses other prompts than the run did; probe a run made with this method")
    method = wanted.methods[stage.name]
    estimator = load_estimator(wanted.estimator, stage.prior.device) if method.needs_estimator else None
    try:
        distiller = method.build(stage.prior, estimator).to(stage.prior.device)
    except ValueError as error:
        raise SettingsError(f"{candidate.label}: {' '.join(str(error).split())}") from error
    generator = torch.Generator().manual_seed(1)
    for _ in range(learn):
        view = stage.render_views(stage.config.views, generator, modality)
        distillation = distiller(
            view.image.detach(), view.geometry, view.condition, progress=stage.progress, generator=generator
        )
        distiller.update(distillation, stage.renderer.gram(view) if distiller.needs_gram else None)
    return distiller
