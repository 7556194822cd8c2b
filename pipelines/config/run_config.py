"""The configuration of a run: dataclass defaults < preset (YAML) < command line. Typos and wrong types are rejected."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval

from steindreamer.distill import METHODS, MethodConfig, SSDConfig
from steindreamer.representations import REPRESENTATIONS, GaussiansConfig, RepresentationConfig

from ..export import ExportConfig
from ..geometry_models import EstimatorConfig
from ..optimization.component_checks import check_entry
from ..optimization.stage_config import MAX_STEPS, StageConfig
from ..priors import PRIORS, PriorConfig, TinyPriorConfig, names_a_model
from ..settings.composing import (
    MAX_PROMPT_CHARACTERS,
    ChosenRepresentation,
    active_stages,
    compose_as,
    representation_of,
    takes_over,
    to_plain,
)
from ..settings.layers import DEFAULT_NAMES, DEFAULT_PRESET, given_layers, preset_layers, presets, read_layer
from ..settings.schema import Schema

__all__ = [
    "CHOICES",
    "DEFAULT_PRESET",
    "MAX_PROMPT_CHARACTERS",
    "SCHEMA",
    "OutputConfig",
    "RunConfig",
    "compose",
    "given_layers",
    "load_config",
    "preset_layers",
    "presets",
    "read_config",
]

CHOICES: dict[str, Mapping[str, type]] = {"representation": REPRESENTATIONS, "method": METHODS, "prior": PRIORS}
"""Sections whose dataclass is selected by name."""


@dataclass
class OutputConfig:
    """Output files of a run besides the asset."""

    preview_every: Annotated[int, Interval(ge=0, le=MAX_STEPS)] = 100
    """Steps between preview images; 0: none."""
    checkpoint_every: Annotated[int, Interval(ge=0, le=MAX_STEPS)] = 100
    """Steps between checkpoints; 0: only at an interruption and at the end."""
    log_every: Annotated[int, Interval(ge=1, le=MAX_STEPS)] = 10
    """Steps between log lines, in metrics.jsonl and in the terminal."""
    turntable_frames: Annotated[int, Interval(ge=0, le=720)] = 36
    """Frames of turntable.webp; 0: none."""
    image_size: Annotated[int, Interval(ge=16, le=2048)] = 256
    """Size of a preview view and of the turntable, in pixels (square)."""
    watchdog_seconds: Annotated[float, Interval(ge=0, le=1e6)] = 1800.0
    """Time limit of a step or an export in seconds, after which the stacks of all threads are written to watchdog.txt;
    0: no limit."""


@dataclass(frozen=True)
class RunConfig:
    """Everything that determines a run's result."""

    prompt: str = "a yellow rubber duck"
    negative_prompt: str = ""
    seed: Annotated[int, Interval(ge=0, le=2**63 - 1)] = 0
    particles: Annotated[int, Interval(ge=1, le=64)] = 1
    """Number of scenes that are trained together from different initializations (particles in ProlificDreamer). The
    views of every stage are drawn from them in turn, and each scene becomes an asset."""
    representation: RepresentationConfig = field(default_factory=GaussiansConfig)
    """Representation of the first stage, unless that stage sets its own."""
    method: MethodConfig = field(default_factory=SSDConfig)
    prior: PriorConfig = field(default_factory=TinyPriorConfig)
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
    """Estimator of depth and normals, for the control variates and regularizers that need one."""
    refine: bool = True
    """Whether to run the stages from the first that has a representation of its own; False: stop before it, then
    export."""
    stages: dict[str, StageConfig] = field(
        default_factory=lambda: {
            "coarse": StageConfig(),
            "geometry": StageConfig(representation={"name": "dmtet"}),
            "texture": StageConfig(representation={"name": "textured_mesh"}),
        }
    )
    """Stages by name, trained one after another; a stage with 0 steps is skipped."""
    export: ExportConfig = field(default_factory=ExportConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    plugins: list[str] = field(default_factory=list)
    """Files that were run with --plugin. A resumed run needs them on the command line again: a name here runs
    nothing."""
    names: dict[str, str] = field(default_factory=lambda: dict(DEFAULT_NAMES))
    """Derived: the chosen name per section (representation, method, prior)."""
    methods: dict[str, MethodConfig] = field(default_factory=dict)
    """Derived: the distillation method of each stage, which is `method` with the stage's own settings, or the method
    that the stage names."""
    representations: dict[str, RepresentationConfig] = field(default_factory=dict)
    """Derived: the representation of each stage that sets one."""

    def active_stages(self) -> dict[str, StageConfig]:
        """The stages that run, in order."""
        return active_stages(self)

    def takes_over(self, stage: str) -> bool:
        """Whether a stage converts the scene of the previous stage into a representation of its own."""
        return takes_over(self, stage)

    def representation_of(self, stage: str) -> ChosenRepresentation:
        """The representation that a stage trains: its own, else that of the previous stage, else the run's."""
        return representation_of(self, stage)

    @property
    def first_representation(self) -> str:
        """Name of the first stage's representation."""
        return self.representation_of(next(iter(self.active_stages()))).name

    def of_particle(self, index: int) -> str:
        """The text " of particle 2" for messages, counted from 0; empty if there is only one particle."""
        return f" of particle {index + 1}" if self.particles > 1 else ""

    def to_plain(self) -> dict[str, Any]:
        """Nested plain values as they are written to config.yaml: each chosen section starts with its name."""
        return to_plain(self)


SCHEMA = Schema(RunConfig, StageConfig, CHOICES, names_a_model, check_entry)


def load_config(
    preset: str | Path | None = DEFAULT_PRESET,
    *,
    representation: str | None = None,
    method: str | None = None,
    prior: str | None = None,
    overrides: Sequence[str] = (),
    base: Sequence[Mapping[str, Any]] = (),
    **settings: Any,
) -> RunConfig:
    """Compose a run's configuration.

    Args:
        preset: a shipped preset's name, the path of a YAML file, or None for the bare defaults.
        representation, method, prior: names that win over the preset's; a prior may also be a model.
        overrides: `section.key=value` strings, as on the command line.
        base: sections with values that replace those of the preset, but not the other arguments.
        settings: top-level values such as `prompt="a red mug"` or `seed=3`.

    Raises SettingsError for unknown names and keys (with the nearest match), wrong types and out-of-range values.

    Example:
        >>> import steindreamer
        >>> config = steindreamer.load_config(method="sds", prompt="a red mug", overrides=["stages.coarse.steps=400"])
        >>> config.names["method"], config.stages["coarse"].steps
        ('sds', 400)
    """
    chosen = {"representation": representation, "method": method, "prior": prior}
    return compose(
        [*preset_layers(preset), *base, *given_layers(overrides, settings)],
        {section: name for section, name in chosen.items() if name is not None},
    )


def compose(layers: Sequence[Mapping[str, Any]], chosen: Mapping[str, str] | None = None) -> RunConfig:
    """Merge plain layers over the defaults; `chosen` names win over the `name` keys of the layers.

    A model in place of the prior's name selects the prior "diffusers" with that model. Raises SettingsError.
    """
    return compose_as(SCHEMA, layers, chosen)


def read_config(path: Path) -> RunConfig:
    """Read the configuration that an earlier run wrote. Raises SettingsError if it cannot be read."""
    return compose([read_layer(path)])
