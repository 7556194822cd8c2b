"""Pipeline of stages: a prior and a distiller for each stage, and conversion of the scene between stages."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from steindreamer.distill import Prior
from steindreamer.distill.priors.modalities import OVER_BACKGROUND
from steindreamer.distill.ranks import ALONE, Ranks
from steindreamer.representations import (
    REPRESENTATIONS,
    Buildable,
    Queryable,
    Representation,
    TakesOver,
    ensemble_of,
    particles_of,
)

from ..config.run_config import RunConfig
from ..errors import SettingsError, UserError
from ..export import ExportConfig
from ..foreign_code import culprit
from ..geometry_models import load_estimator
from ..meshing.conversion import Conversion, conversion_psnr
from ..optimization.component_checks import (
    Rehearsal,
    blank_scene,
    built_distiller,
    built_prior,
    built_scene,
    check_scene_rates,
    converted_scene,
)
from ..optimization.edits import plain_edits, restore_edits
from ..optimization.out_of_memory import ADVICE, is_out_of_memory
from ..optimization.stage import Stage
from ..optimization.stage_config import REFINING_RATES, StageConfig
from ..settings.schema import INITIAL_FILES

logger = logging.getLogger(__name__)


class Pipeline:
    """Builds the stages of a configuration. All stages share the prior and the random number generator."""

    def __init__(self, config: RunConfig, prior: Prior | None = None, ranks: Ranks = ALONE) -> None:
        """Load the prior. Raises UserError.

        Args:
            config: Resolved settings.
            prior: The prior, if it was built before from equal settings; None: it is loaded.
            ranks: The processes that share the views of each step.
        """
        self.config = config
        self.ranks = ranks
        self.stages = stages_of(config)
        for name in self.stages:
            _check_place(config, name)
            _check_trainable(config, name)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.prior: Prior = load_prior(config) if prior is None else prior
        with _users_errors():
            self._embeddings: dict[tuple[str, str], Any] = {}
            self.embedding = self._embed(config.prompt, config.negative_prompt)
            for name in self.stages:
                self._embedding_of(name)
            needed = any(
                stage.needs_estimator or config.methods[name].needs_estimator for name, stage in self.stages.items()
            )
            self._estimator = load_estimator(config.estimator, self.prior.device) if needed else None

    @property
    def steps(self) -> int:
        """Total number of steps of all stages."""
        return sum(stage.steps for stage in self.stages.values())

    def notes(self, scene: Representation) -> list[str]:
        """Return log lines about a scene initialized from a user's file: its placement and its learning rate."""
        placement = particles_of(scene)[0].placement
        if placement is None:
            return []
        center = ", ".join(f"{value:.4g}" for value in placement.center)
        lines = [
            f"the given scene is fitted into the unit ball: 1 m there is {placement.scale:.4g} m in its file, around "
            f"({center}); the asset gets the position and size of the file"
        ]
        slowed = [name for name, stage in self.stages.items() if stage is not self.config.stages[name]]
        if slowed:
            lines.append(
                f"to preserve the given shape, learning rates are multiplied by {REFINING_RATES:g} in: "
                f"{', '.join(slowed)} (stages.{slowed[0]}.rates=1 disables this)"
            )
        return lines

    def first(self) -> Stage:
        """Build the first stage, before its first step. Raises UserError, also if a later stage would be rejected."""
        with _users_errors():
            name = next(iter(self.stages))
            chosen, device = self.config.representation_of(name), self.prior.device
            # The scene is on the device of the prior, so that images and gradients are never copied between devices.
            particles = [
                built_scene(chosen.config, self.generator, device, chosen.path) for _ in range(self.config.particles)
            ]
            stage = self._stage(name, ensemble_of(particles), self.generator)
            self._rehearse(stage)
            if self.config.export.enabled:
                self.config.export.check(particles[0])
            return stage

    def resumed(self, name: str) -> Stage:
        """Build the stage called `name` with a scene of the right type, ready for `load_tensors`. Raises UserError."""
        if name not in self.stages:
            raise UserError(
                f"the checkpoint is from stage '{name}', but this run has: {', '.join(self.stages)}; resume with the "
                "stages that the run was started with"
            )
        with _users_errors():
            stage = self._blank_stage(name, self.generator, self.config.particles)
            self._rehearse(stage)
            return stage

    def followed(self, name: str) -> Stage:
        """Build the stage called `name` in a process that follows another one, ready for `load_tensors`.

        Raises UserError.
        """
        with _users_errors():
            return self._blank_stage(name, self.generator, self.config.particles)

    def following(self, stage: Stage) -> Stage | None:
        """Build the stage after a finished one, converting the scene if needed; None after the last stage.

        Raises:
            UserError: The scene has no surface to convert.
        """
        names = list(self.stages)
        position = names.index(stage.name) + 1
        if position == len(names):
            return None
        name, scene = names[position], stage.representation
        if self.config.takes_over(name):
            context = Conversion(self.export_settings(stage), self.generator, self.prior.device)
            particles = enumerate(particles_of(scene))
            scene = ensemble_of([self._converted(particle, k, name, context) for k, particle in particles])
        out = self._stage(name, scene, self.generator)
        out.state.skipped = stage.skipped
        restore_edits(out, plain_edits(stage))
        return out

    def export_settings(self, stage: Stage) -> ExportConfig:
        """Return the `export` settings for the scene of this stage; surface options refer to the first scene."""
        export = self.config.export
        if self.config.representation_of(stage.name) == self.config.representation_of(next(iter(self.stages))):
            return export
        has_field = isinstance(particles_of(stage.representation)[0], Queryable)
        return replace(export, source="auto", color_source=export.color_source if has_field else "renders")

    def _stage(self, name: str, scene: Representation, generator: torch.Generator) -> Stage:
        config = self.stages[name]
        method, device = self.config.methods[name], self.prior.device
        distillers = {
            modality: built_distiller(method, self.prior, self._estimator).to(device) for modality in config.fractions
        }
        steps = [stage.steps for stage in self.stages.values()]
        offset = sum(steps[: list(self.stages).index(name)])
        embedding = self._embedding_of(name)
        check_scene_rates(scene)
        return Stage(
            scene,
            distillers,
            self.prior,
            embedding,
            config,
            generator,
            name=name,
            offset=offset,
            estimator=self._estimator,
            ranks=self.ranks,
            prompt=self.config.prompt,
            embed=lambda prompt: self._embedding_of(name, prompt),
        )

    def _blank_stage(self, name: str, generator: torch.Generator, particles: int = 1) -> Stage:
        """Build a stage without a trained scene, to load a checkpoint into or to rehearse."""
        chosen, device = self.config.representation_of(name), self.prior.device
        scene = ensemble_of([blank_scene(chosen.config, device, chosen.path) for _ in range(particles)])
        return self._stage(name, scene, generator)

    def _embedding_of(self, stage: str, prompt: str | None = None) -> Any:
        """Return the embedding of the prompts as the stage's method phrases them; None: the prompt of the settings."""
        config = self.config
        own = config.prompt if prompt is None else prompt, config.negative_prompt
        method = config.methods[stage]
        texts: Any = method.texts(*own)
        if not (isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(text, str) for text in texts)):
            raise UserError(f"{type(method).__name__}.texts must return prompt and negative prompt, got {texts!r}")
        try:
            return self._embed(*texts)
        except ValueError as error:
            if texts == own:
                raise
            raise ValueError(
                f"{error}; the method of stage '{stage}' uses the prompt {texts[0]!r} and the negative prompt "
                f"{texts[1]!r} (docs/methods.md)"
            ) from None

    def _embed(self, prompt: str, negative_prompt: str) -> Any:
        """Embed a pair of prompts; cached."""
        texts = prompt, negative_prompt
        if texts not in self._embeddings:
            self._embeddings[texts] = self.prior.embed(*texts)
        return self._embeddings[texts]

    def _rehearse(self, stage: Stage) -> None:
        """Rehearse this stage and all later ones.

        Settings that a later stage rejects are thus reported at the start. Backends that do not work on this machine
        and components that break their contract are detected as well. Nothing that the run will use is changed.
        """
        names = list(self.stages)
        later = (
            self._blank_stage(name, torch.Generator().manual_seed(0)) for name in names[names.index(stage.name) + 1 :]
        )
        rehearsal = Rehearsal(self.prior, self._estimator, stage.config)
        with self.ranks.alone():  # the other processes do not take part
            for each in (stage, *later):
                is_complete = isinstance(self.config.representation_of(each.name).config, Buildable)
                rehearsal.stage(each, self.config.methods[each.name], is_complete=is_complete)

    def _converted(self, scene: Representation, index: int, name: str, context: Conversion) -> Representation:
        """Convert a particle of a finished stage into a scene of the stage called `name`. Raises UserError."""
        which, chosen = self.config.of_particle(index), self.config.representation_of(name)
        what = f"{type(scene).__name__}{which}"
        logger.info(f"stage '{name}': converting {what} to {chosen.name}")
        try:
            converted = converted_scene(chosen.config, scene, context)
        except ValueError as error:
            if is_out_of_memory(error):
                raise
            raise UserError(
                f"cannot convert the scene{which} to {chosen.name} for stage '{name}': {error}; --no-refine "
                "exports without this stage"
            ) from error
        converted.placement = scene.placement
        psnr = conversion_psnr(scene, converted)
        logger.info(f"  conversion: PSNR {psnr:.1f} dB between the scenes before and after (eight views)")
        return converted


def load_prior(config: RunConfig) -> Prior:
    """Load the prior of a configuration, on a CUDA GPU if there is one. Raises UserError."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with _users_errors():
        return built_prior(config.prior, device)


def stages_of(config: RunConfig) -> dict[str, StageConfig]:
    """Return the stages that are enabled. Stages that train a user's shape use lower learning rates by default."""
    stages = config.active_stages()
    if not any(getattr(config.representation_of(next(iter(stages))).config, key, "") for key in INITIAL_FILES):
        return stages
    return {
        name: replace(stage, rates=REFINING_RATES)
        if stage.rates is None and getattr(config.representation_of(name).config, "trains_shape", True)
        else stage
        for name, stage in stages.items()
    }


def _check_place(config: RunConfig, stage: str) -> None:
    """Check that the representation of a stage is allowed at that position. Raises SettingsError."""
    chosen = config.representation_of(stage)
    if config.takes_over(stage):
        ability, lack = TakesOver, "cannot take over the scene of an earlier stage: it has no from_scene"
    elif stage == next(iter(config.active_stages())):
        ability, lack = Buildable, "cannot be the first scene of a run: it takes over the scene of an earlier stage"
    else:
        return
    if not isinstance(chosen.config, ability):
        known = [name for name, kind in REPRESENTATIONS.items() if issubclass(kind, ability)]
        raise SettingsError(f"{chosen.path}.name is '{chosen.name}', which {lack}; choose one of {', '.join(known)}")


def _check_trainable(config: RunConfig, stage: str) -> None:
    """Check that a stage's scene can learn from its modalities. Raises SettingsError."""
    chosen = config.representation_of(stage)
    if not getattr(chosen.config, "trains_shape", True):
        for modality in config.stages[stage].fractions.keys() - OVER_BACKGROUND:
            raise SettingsError(
                f"stages.{stage}.modalities asks for '{modality}', but {chosen.name} only trains colors; "
                f"{' and '.join(OVER_BACKGROUND)} are accepted here"
            )


@contextmanager
def _users_errors() -> Iterator[None]:
    """Convert errors caused by settings, files or lack of memory into one-line user errors.

    Any exception that a library raises because of a user's file is reported as an error of that file; --debug shows the
    traceback.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise UserError(ADVICE) from error
        what = " ".join(str(error).split())
        if isinstance(error, OSError) and error.filename:
            what = f"cannot read {error.filename}: {error.strerror}"
        elif not isinstance(error, OSError | ValueError | ImportError):
            who = f"{where} raised " if (where := culprit(error)) else ""
            what = f"{who}{type(error).__name__}: {what}; --debug shows where"
        raise UserError(what) from error
