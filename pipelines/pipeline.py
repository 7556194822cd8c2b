"""The stages of a run, one after the other: prior and distiller for each, and the scene handed over between them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from ..distill import Prior
from ..representations import Representation, TexturedMesh, ensemble_of, particles_of
from .blame import culprit
from .component_checks import Rehearsal, built_distiller, built_prior, built_scene
from .config import RunConfig
from .conversion import likeness, to_deformable_mesh, to_textured_mesh
from .errors import UserError
from .estimators import load_estimator
from .export import ExportConfig
from .out_of_memory import ADVICE, is_out_of_memory
from .schema import INITIAL_FILES, SCENES
from .stage import REFINING_RATES, Stage, StageConfig

Say = Callable[[str], None]


class Pipeline:
    """Builds the stages of one configuration. What they share is the prior and the stream of random numbers."""

    def __init__(self, config: RunConfig) -> None:
        """Loads the prior. Raises UserError."""
        self.config = config
        self.stages = stages_of(config)
        self.generator = torch.Generator().manual_seed(config.seed)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        with _users_errors():
            self.prior: Prior = built_prior(config.prior, device)
            self._embeddings: dict[tuple[str, str], Any] = {}
            self.embedding = self._embed(config.prompt, config.negative_prompt)
            for name in self.stages:
                self._embedding_of(name)
            needed = any(
                stage.needs_estimator or config.method_of(name).needs_estimator for name, stage in self.stages.items()
            )
            self._estimator = load_estimator(config.estimator, self.prior.device) if needed else None

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages.values())

    def notes(self, scene: Representation) -> list[str]:
        """Lines about a scene that begins from a file of the user's: where it was, and how fast it may change."""
        placement = particles_of(scene)[0].placement
        if placement is None:
            return []
        center = ", ".join(f"{value:.4g}" for value in placement.center)
        lines = [
            f"the given scene is fitted into the unit ball: a metre there is {placement.scale:.4g} m around ({center}) "
            "of its file; the asset is put back there"
        ]
        slowed = [name for name, stage in self.stages.items() if stage is not self.config.stages[name]]
        if slowed:
            lines.append(
                f"to keep the given shape, learning rates are {REFINING_RATES:g} of the usual ones in: "
                f"{', '.join(slowed)} (stages.{slowed[0]}.rates=1 lifts that)"
            )
        return lines

    def first(self) -> Stage:
        """The first stage, before its first step. Raises UserError, also if its scene cannot be drawn."""
        with _users_errors():
            self._rehearse()
            name = next(iter(self.stages))
            scene = self._empty_scene(name, self.generator)
            if self.config.export.enabled:
                self.config.export.check(particles_of(scene)[0])
            return self._stage(name, scene)

    def resumed(self, name: str) -> Stage:
        """The stage called `name` with a scene of the right kind, ready for `load_tensors`. Raises UserError."""
        if name not in self.stages:
            raise UserError(
                f"the checkpoint is of stage '{name}', this run has: {', '.join(self.stages)}; "
                "resume with the stages the run was started with"
            )
        with _users_errors():
            self._rehearse()
            return self._stage(name, self._empty_scene(name, self.generator, blank=True))

    def following(self, stage: Stage, say: Say) -> Stage | None:
        """The stage after a finished one, its scene converted where it must be; None after the last.

        Raises UserError if there is nothing to convert.
        """
        names = list(self.stages)
        position = names.index(stage.name) + 1
        if position == len(names):
            return None
        name, scene = names[position], stage.representation
        if self.stages[name].scene != self.stages[stage.name].scene:
            particles = enumerate(particles_of(scene))
            scene = ensemble_of([self._handed_over(particle, k, stage, name, say) for k, particle in particles])
        out = self._stage(name, scene)
        out.skipped = stage.skipped
        return out

    def export_of(self, stage: Stage) -> ExportConfig:
        """`export` for the scene of this stage: what follows the coarse scene is a mesh, and taken as it is."""
        coarse = self.stages[stage.name].scene == SCENES[0]
        return self.config.export if coarse else replace(self.config.export, source="auto")

    def _stage(self, name: str, scene: Representation) -> Stage:
        config = self.stages[name]
        distiller = built_distiller(self.config.method_of(name), self.prior, self._estimator).to(self.prior.device)
        steps = [stage.steps for stage in self.stages.values()]
        offset = sum(steps[: list(self.stages).index(name)])
        embedding = self._embedding_of(name)
        return Stage(
            scene,
            distiller,
            self.prior,
            embedding,
            config,
            self.generator,
            name=name,
            offset=offset,
            estimator=self._estimator,
        )

    def _embedding_of(self, stage: str) -> Any:
        """The prompts as the stage's method puts them."""
        config = self.config
        own = config.prompt, config.negative_prompt
        method = config.method_of(stage)
        texts: Any = method.texts(*own)
        if not (isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(text, str) for text in texts)):
            raise UserError(f"{type(method).__name__}.texts must return prompt and negative prompt, got {texts!r}")
        try:
            return self._embed(*texts)
        except ValueError as error:
            if texts == own:
                raise
            raise ValueError(
                f"{error}; the method of stage '{stage}' put it so: {texts[0]!r}, not {texts[1]!r} (docs/methods.md)"
            ) from None

    def _embed(self, prompt: str, negative_prompt: str) -> Any:
        """Once for each pair of texts."""
        texts = prompt, negative_prompt
        if texts not in self._embeddings:
            self._embeddings[texts] = self.prior.embed(*texts)
        return self._embeddings[texts]

    def _rehearse(self) -> None:
        """Set up and try every stage once: a setting that a later one refuses is known before the first begins.

        A backend that cannot work here says so too, before anything is written, and a component that breaks its
        contract.
        """
        rehearsal = Rehearsal(self.prior, self._estimator, self.stages)
        for name, config in self.stages.items():
            scene = self._empty_scene(name, torch.Generator().manual_seed(0), blank=True)
            rehearsal.scene(scene, config)
            rehearsal.stage(self._stage(name, scene), self.config.method_of(name))

    def _empty_scene(self, name: str, generator: torch.Generator, *, blank: bool = False) -> Representation:
        """`blank`: without the file that it may begin from, for what is drawn or loaded over it."""
        return ensemble_of([self._empty_particle(name, generator, blank) for _ in range(self.config.particles)])

    def _empty_particle(self, name: str, generator: torch.Generator, blank: bool) -> Representation:
        # Where the prior lives, the scene lives: pictures and gradients never cross devices.
        device, kind = self.prior.device, self.stages[name].scene
        if kind == "mesh":
            return built_scene(self.config.mesh, generator, device, "mesh")
        if kind == "texture":
            return TexturedMesh.blank(self.config.texture).to(device)
        config = self.config.representation
        if blank and hasattr(config, "without_file"):
            config = config.without_file()
        return built_scene(config, generator, device, "representation")

    def _handed_over(self, scene: Representation, index: int, stage: Stage, name: str, say: Say) -> Representation:
        """A particle of a finished stage as one of the stage called `name`."""
        which, kind = self.config.of_particle(index), self.stages[name].scene
        say(f"stage '{name}': making a {kind} of the {type(scene).__name__}{which}")
        try:
            converted = self._converted(scene, kind, self.export_of(stage), say)
        except ValueError as error:
            if is_out_of_memory(error):
                raise
            raise UserError(f"no mesh{which} for stage '{name}': {error}; --no-refine exports without one") from error
        converted.placement = scene.placement
        say(f"  hand-over: {likeness(scene, converted):.1f} dB between before and after (PSNR over eight views)")
        return converted

    def _converted(self, scene: Representation, kind: str, export: ExportConfig, say: Say) -> Representation:
        if kind == "texture":
            return to_textured_mesh(scene, self.config.texture, export, say)
        return to_deformable_mesh(scene, self.config.mesh, export, self.generator)


def stages_of(config: RunConfig) -> dict[str, StageConfig]:
    """The stages that run. Those that train a shape which the user gave change it slowly, unless asked otherwise."""
    stages = config.active_stages()
    if not any(getattr(config.representation, key, "") for key in INITIAL_FILES):
        return stages
    return {
        name: replace(stage, rates=REFINING_RATES) if stage.rates is None and stage.scene != SCENES[-1] else stage
        for name, stage in stages.items()
    }


@contextmanager
def _users_errors() -> Iterator[None]:
    """What a setting, a missing or a strange file, or too little memory breaks is told in one line.

    Whatever a file of somebody else's makes a library raise is an error of that file; --debug shows where.
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
