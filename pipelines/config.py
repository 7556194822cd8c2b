"""The configuration of a run: dataclass defaults < preset (YAML) < command line; typos and wrong types are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval

from ..distill import METHODS
from ..distill.methods import SDSConfig
from ..representations import REPRESENTATIONS, DmtetConfig, TextureConfig
from .component_checks import check_entry
from .composing import active_stages, method_of, to_plain
from .estimators import EstimatorConfig
from .export import ExportConfig
from .layers import DEFAULT_PRESET, given_layers, preset_layers, presets, read_layer
from .priors import PRIORS, names_a_model
from .schema import Schema
from .stage import MAX_STEPS, StageConfig
from .validation import MAX_PROMPT_CHARACTERS, check_itself, compose_as

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
"""Sections whose dataclass is picked by name."""


@dataclass
class OutputConfig:
    """What a run writes besides the asset."""

    preview_every: Annotated[int, Interval(ge=0, le=MAX_STEPS)] = 100
    """Steps between preview pictures; 0: none."""
    checkpoint_every: Annotated[int, Interval(ge=0, le=MAX_STEPS)] = 100
    """Steps between checkpoints; 0: only at an interruption and at the end."""
    log_every: Annotated[int, Interval(ge=1, le=MAX_STEPS)] = 10
    """Steps between lines of metrics.jsonl and of the terminal."""
    turntable_frames: Annotated[int, Interval(ge=0, le=720)] = 36
    """Frames of turntable.webp; 0: none."""
    picture_size: Annotated[int, Interval(ge=16, le=2048)] = 256
    """Pixels of a preview view and of the turntable."""
    watchdog_seconds: Annotated[float, Interval(ge=0, le=1e6)] = 1800.0
    """What a step or an export may take before the stacks of all threads go to watchdog.txt; 0: no limit."""


@dataclass
class RunConfig:
    """Everything that determines a run's result."""

    prompt: str = "a yellow rubber duck"
    negative_prompt: str = ""
    seed: Annotated[int, Interval(ge=0, le=2**63 - 1)] = 0
    particles: Annotated[int, Interval(ge=1, le=64)] = 1
    """Scenes that are trained as one, from different beginnings (ProlificDreamer's particles): the views of every stage
    are drawn from them in turn, and each becomes an asset."""
    representation: Any = None
    method: Any = None
    prior: Any = None
    estimator: EstimatorConfig = field(default_factory=EstimatorConfig)
    """Of depth and normals, for the baselines that ask for one."""
    refine: bool = True
    """False: only the stages of the coarse scene, then export."""
    stages: dict[str, StageConfig] = field(
        default_factory=lambda: {
            "coarse": StageConfig(),
            "geometry": StageConfig(scene="mesh"),
            "texture": StageConfig(scene="texture"),
        }
    )
    """What is trained one after the other, by name; a stage of 0 steps is left out."""
    mesh: DmtetConfig = field(default_factory=DmtetConfig)
    """The mesh of the stages with `scene: mesh`, converted from what the stage before has made."""
    texture: TextureConfig = field(default_factory=TextureConfig)
    """The texture of the stages with `scene: texture`."""
    export: ExportConfig = field(default_factory=ExportConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    plugins: list[str] = field(default_factory=list)
    """Files that were run with --plugin, which a resumed run has to be given again: a name here runs nothing."""
    names: dict[str, str] = field(default_factory=dict)
    """The chosen name per section: representation, method, prior."""

    def active_stages(self) -> dict[str, StageConfig]:
        """The stages that run, in order."""
        return active_stages(self)

    def of_particle(self, index: int) -> str:
        """Which one a message is about, counted from 0: " of particle 2"; nothing if there is only one."""
        return f" of particle {index + 1}" if self.particles > 1 else ""

    def method_of(self, stage: str) -> SDSConfig:
        """The distillation method with the stage's own settings, or the stage's own method, if it names another.

        Raises SettingsError for an unknown method, and for settings it does not have.
        """
        out = method_of(self, stage, SCHEMA)
        check_itself(out, f"stages.{stage}.method")
        return out

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
    **settings: Any,
) -> RunConfig:
    """Compose a run's configuration.

    Args:
        preset: a shipped preset's name, the path of a YAML file, or None for the bare defaults.
        representation, method, prior: names that win over the preset's; a prior may also be a model.
        overrides: `section.key=value` strings, as on the command line.
        settings: top-level values such as `prompt="a red mug"` or `seed=3`.

    Raises SettingsError for unknown names and keys (with the nearest match), wrong types and out-of-range values.
    """
    chosen = {"representation": representation, "method": method, "prior": prior}
    return compose(
        [*preset_layers(preset), *given_layers(overrides, settings)],
        {section: name for section, name in chosen.items() if name is not None},
    )


def compose(layers: Sequence[Mapping[str, Any]], chosen: Mapping[str, str] | None = None) -> RunConfig:
    """Merge plain layers over the defaults; `chosen` names win over the `name` keys of the layers.

    A model in the place of the prior's name means the prior "diffusers" with that model. Raises SettingsError.
    """
    config = compose_as(SCHEMA, layers, chosen)
    assert isinstance(config, RunConfig)
    return config


def read_config(path: Path) -> RunConfig:
    """The configuration that an earlier run wrote. Raises SettingsError if it cannot be read."""
    return compose([read_layer(path)])
