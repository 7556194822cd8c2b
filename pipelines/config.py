"""The configuration of a run: dataclass defaults < preset (YAML) < command line; typos and wrong types are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Interval

from ..distill import METHODS
from ..distill.methods import SDSConfig
from ..representations import DmtetConfig, TextureConfig
from .annotations import kinds_of
from .composing import merge_sections, read_parts, split_name
from .errors import SettingsError
from .estimators import EstimatorConfig
from .export import ExportConfig
from .layers import CHOICES, DEFAULT_PRESET, given_layers, parts_of, preset_layers, presets, read_layer
from .ranges import check_ranges
from .sections import as_plain, build
from .setting_types import read_section
from .stage import MAX_STEPS, SCENES, StageConfig

__all__ = [
    "CHOICES",
    "DEFAULT_PRESET",
    "MAX_PROMPT_CHARACTERS",
    "OutputConfig",
    "RunConfig",
    "compose",
    "given_layers",
    "load_config",
    "preset_layers",
    "presets",
    "read_config",
]

MAX_PROMPT_CHARACTERS = 1000


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
    names: dict[str, str] = field(default_factory=dict)
    """The chosen name per section: representation, method, prior."""

    def active_stages(self) -> dict[str, StageConfig]:
        """The stages that run, in order."""
        return {
            name: stage
            for name, stage in self.stages.items()
            if stage.steps and (self.refine or stage.scene == SCENES[0])
        }

    def of_particle(self, index: int) -> str:
        """Which one a message is about, counted from 0: " of particle 2"; nothing if there is only one."""
        return f" of particle {index + 1}" if self.particles > 1 else ""

    def method_of(self, stage: str) -> SDSConfig:
        """The distillation method with the stage's own settings, or the stage's own method, if it names another.

        Raises SettingsError for an unknown method, and for settings it does not have.
        """
        path, usual = f"stages.{stage}.method", self.names["method"]
        name, given = split_name(self.stages[stage].method, usual, f"{path}.")
        tree = read_section(kinds_of(METHODS[name]), given, f"{path}.")
        out = build(METHODS[name], tree, f"{path}.", self.method if name == usual else None)
        check_ranges(out, f"{path}.")
        _check_itself(out, path)
        return out

    def to_plain(self) -> dict[str, Any]:
        """Nested plain values as they are written to config.yaml: each chosen section starts with its name."""
        plain = as_plain(self)
        for section, name in plain.pop("names").items():
            plain[section] = {"name": name, **plain[section]}
        return plain


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
    parts, names = parts_of(layers, chosen or {})
    classes = {section: CHOICES[section][name] for section, name in names.items()}
    kinds = {**kinds_of(RunConfig), **classes}
    del kinds["names"]
    usual = RunConfig().stages
    tree = merge_sections(read_parts(parts, kinds, list(usual), names["method"]))
    given = tree.pop("stages", {})
    tree |= {section: build(kind, tree.get(section, {}), f"{section}.") for section, kind in classes.items()}
    stages = {
        name: build(StageConfig, given.get(name, {}), f"stages.{name}.", usual.get(name)) for name in usual | given
    }
    config = build(RunConfig, tree | {"stages": stages, "names": names})
    _validate(config)
    return config


def read_config(path: Path) -> RunConfig:
    """The configuration that an earlier run wrote. Raises SettingsError if it cannot be read."""
    return compose([read_layer(path)])


def _validate(config: RunConfig) -> None:
    if not config.prompt.strip():
        raise SettingsError('the prompt is empty; say what to make, for example --prompt "a red mug"')
    for name, text in (("the prompt", config.prompt), ("negative_prompt", config.negative_prompt)):
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise SettingsError(f"{name} has {len(text)} characters; at most {MAX_PROMPT_CHARACTERS} are accepted")
    scenes = {stage.scene for stage in config.active_stages().values()}
    used = [name for name in kinds_of(RunConfig) if name not in {"stages", "names", *({"mesh", "texture"} - scenes)}]
    check_ranges(config, only=used)
    for name in used:
        _check_itself(getattr(config, name), name)
    _validate_stages(config)
    size = config.texture.size
    if "texture" in scenes and size & (size - 1):
        raise SettingsError(
            f"texture.size is {size}; powers of two are accepted, such as 1024, and 0: export.texture_size"
        )


def _check_itself(section: Any, path: str) -> None:
    """Ask a section that can judge its own settings."""
    validate = getattr(section, "validate", None)
    if not callable(validate):
        return
    try:
        validate()
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"{path}: {' '.join(str(error).split())}") from None


def _validate_stages(config: RunConfig) -> None:
    """What is switched off is not looked at, but for what switches it."""
    for name, stage in config.stages.items():
        check_ranges(stage, f"stages.{name}.", only=("scene", "steps"))
    active = config.active_stages()
    for name, stage in active.items():
        stage.validate(f"stages.{name}")
        config.method_of(name)
    order = [SCENES.index(stage.scene) for stage in active.values()]
    if not order or order[0] != 0:
        raise SettingsError(
            f"the first stage must train the coarse scene; the stages are {', '.join(active) or 'none'}"
        )
    if order != sorted(order):
        listed = ", ".join(f"{name} ({stage.scene})" for name, stage in active.items())
        raise SettingsError(f"stages go from {' to '.join(SCENES)}, never back; got {listed}")
    if config.mesh.initial_mesh:
        raise SettingsError(
            "mesh.initial_mesh is not read: a mesh stage begins with the scene before it; "
            "to start from a mesh of your own give --repr mesh representation.initial_mesh=FILE"
        )
    refined = [name for name, stage in active.items() if stage.scene != SCENES[0]]
    if refined and not config.export.enabled:
        raise SettingsError(
            f"export.enabled=false needs refine=false (--no-refine): stage '{refined[0]}' trains a mesh, "
            "which is made as the export makes it"
        )
