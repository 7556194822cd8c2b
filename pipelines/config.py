"""The configuration of a run: dataclass defaults < preset (YAML) < command line; typos and wrong types are refused."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..distill import METHODS
from ..distill.methods import SDSConfig
from ..representations import REPRESENTATIONS, DmtetConfig, TextureConfig
from .component_checks import check_entry
from .errors import UserError, nearest
from .estimators import EstimatorConfig
from .export import ExportConfig
from .priors import PRIORS, names_a_model
from .stage import SCENES, StageConfig

MAX_PROMPT_CHARACTERS = 1000
DEFAULT_PRESET = "cpu"

CHOICES: dict[str, Mapping[str, type]] = {"representation": REPRESENTATIONS, "method": METHODS, "prior": PRIORS}
"""Sections whose dataclass is picked by name."""

DEFAULT_NAMES = {"representation": "gaussians", "method": "ssd", "prior": "tiny"}

WHEN = "when"
"""A preset's section of settings that hold only with one representation or prior: `when: {nerf: {stages: ...}}`."""


@dataclass
class OutputConfig:
    """What a run writes besides the asset."""

    preview_every: int = 100
    """Steps between preview pictures; 0: none."""
    checkpoint_every: int = 100
    """Steps between checkpoints; 0: only at an interruption and at the end."""
    log_every: int = 10
    """Steps between lines of metrics.jsonl and of the terminal."""
    turntable_frames: int = 36
    """Frames of turntable.webp; 0: none."""
    picture_size: int = 256
    """Pixels of a preview view and of the turntable."""


@dataclass
class RunConfig:
    """Everything that determines a run's result."""

    prompt: str = "a yellow rubber duck"
    negative_prompt: str = ""
    seed: int = 0
    particles: int = 1
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

        Raises UserError for an unknown method, and for settings it does not have.
        """
        overrides, path = dict(self.stages[stage].method), f"stages.{stage}.method."
        name = str(overrides.pop("name", self.names["method"]))
        if name not in METHODS:
            raise UserError(f"{path}name is '{name}'{nearest(name, METHODS)}; known: {', '.join(METHODS)}")
        base = OmegaConf.structured(self.method if name == self.names["method"] else METHODS[name])
        _refuse_unknown_keys(overrides, base, path)
        return _to_object(_merge(base, overrides, path), path)

    def to_plain(self) -> dict[str, Any]:
        """Nested plain values as they are written to config.yaml: each chosen section starts with its name."""
        plain = OmegaConf.to_container(OmegaConf.structured(self))
        assert isinstance(plain, dict)
        names = plain.pop("names")
        for section, name in names.items():
            plain[section] = {"name": name, **plain[section]}
        return {str(key): value for key, value in plain.items()}


def presets() -> dict[str, Path]:
    """The shipped presets by name."""
    folder = Path(str(importlib.resources.files("steindreamer.configs")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


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

    Raises UserError for unknown names and keys (with the nearest match), wrong types and out-of-range values.
    """
    chosen = {"representation": representation, "method": method, "prior": prior}
    return compose(
        [*preset_layers(preset), *given_layers(overrides, settings)],
        {section: name for section, name in chosen.items() if name is not None},
    )


def preset_layers(preset: str | Path | None) -> list[Mapping[str, Any]]:
    """A preset as a list of one layer; None is the bare defaults."""
    return [] if preset is None else [_read_preset(preset)]


def given_layers(overrides: Sequence[str], settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What the user said explicitly: top-level settings (None: not given), then `section.key=value` texts."""
    given = {key: value for key, value in settings.items() if value is not None}
    return [given, *(_parse_override(text) for text in overrides)]


def compose(layers: Sequence[Mapping[str, Any]], chosen: Mapping[str, str] | None = None) -> RunConfig:
    """Merge plain layers over the defaults; `chosen` names win over the `name` keys of the layers.

    A model in the place of the prior's name means the prior "diffusers" with that model.
    """
    chosen = dict(chosen or {})
    if names_a_model(chosen.get("prior", "")):
        layers = [*layers, {"prior": {"model": chosen["prior"]}}]
        chosen["prior"] = "diffusers"
    names = _choose_names(layers, chosen)
    base = OmegaConf.structured(RunConfig)
    for section, name in names.items():
        check_entry(section, name, CHOICES[section][name])
        base[section] = OmegaConf.structured(CHOICES[section][name])
    base.names = names
    for layer in layers:
        for part in _applicable(layer, names):
            part = _without_foreign_sections(part, names)
            _refuse_unknown_keys(part, base)
            base = _merge(base, part)
    config = _to_object(base)
    assert isinstance(config, RunConfig)
    _validate(config)
    return config


def read_config(path: Path) -> RunConfig:
    """The configuration that an earlier run wrote. Raises UserError if it cannot be read."""
    return compose([_read_yaml(path)])


def _merge(base: DictConfig, layer: Mapping[str, Any], path: str = "") -> DictConfig:
    try:
        merged = OmegaConf.merge(base, OmegaConf.create(_literal(layer)))
    except OmegaConfBaseException as error:
        raise UserError(f"configuration: {path}{_first_line(error)}") from None
    assert isinstance(merged, DictConfig)
    return merged


def _to_object(config: DictConfig, path: str = "") -> Any:
    try:
        return OmegaConf.to_object(config)
    except (ValueError, OmegaConfBaseException) as error:  # a dataclass refused its values
        raise UserError(f"configuration: {path}{_first_line(error)}") from None


def _applicable(layer: Mapping[str, Any], names: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """The layer, after it what it says for this prior, and last for this representation."""
    special, known = layer.get(WHEN, {}), [*PRIORS, *REPRESENTATIONS]
    if not isinstance(special, Mapping) or not all(isinstance(part, Mapping) for part in special.values()):
        raise UserError(
            f"'{WHEN}' holds sections by representation or prior, such as {WHEN}: {{nerf: {{...}}}}; got {special!r}"
        )
    for name in special:
        if name not in known:
            raise UserError(
                f"unknown representation or prior '{WHEN}.{name}'{nearest(str(name), known)}; known: {', '.join(known)}"
            )
    plain = {key: value for key, value in layer.items() if key != WHEN}
    return [plain, *(special.get(names[section], {}) for section in ("prior", "representation"))]


def _choose_names(layers: Sequence[Mapping[str, Any]], chosen: Mapping[str, str]) -> dict[str, str]:
    names = dict(DEFAULT_NAMES)
    for layer in layers:
        for section in CHOICES:
            value = layer.get(section)
            if isinstance(value, Mapping) and "name" in value:
                names[section] = str(value["name"])
    names.update(chosen)
    for section, name in names.items():
        if name not in CHOICES[section]:
            known = list(CHOICES[section])
            models = "; or a model: a folder that exists, or a hub id owner/name" if section == "prior" else ""
            raise UserError(f"unknown {section} '{name}'{nearest(name, known)}; known: {', '.join(known)}{models}")
    return names


def _without_foreign_sections(layer: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Drop the `name` keys, and a preset's options for a choice that the user has overruled."""
    out = dict(layer)
    for section, name in names.items():
        value = out.get(section)
        if isinstance(value, Mapping) and "name" in value:
            out[section] = {k: v for k, v in value.items() if k != "name"} if value["name"] == name else {}
    return out


def _literal(value: Any) -> Any:
    """The value with every `${` escaped: a prompt must not read environment variables or other settings."""
    if isinstance(value, str):
        return value.replace("${", "\\${")
    if isinstance(value, Mapping):
        return {key: _literal(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_literal(item) for item in value]
    return value


def _refuse_unknown_keys(given: Mapping[str, Any], known: DictConfig, path: str = "") -> None:
    names = [str(key) for key in known if key != "names"]
    for key, value in given.items():
        if str(key) not in names:
            raise UserError(f"unknown key '{path}{key}'{nearest(str(key), names)}; known here: {', '.join(names)}")
        child = known[key]
        if not path and key == "stages" and isinstance(value, Mapping):
            _refuse_unknown_stages(value, child)
        elif isinstance(value, Mapping) and isinstance(child, DictConfig) and OmegaConf.get_type(child) is not dict:
            _refuse_unknown_keys(value, child, f"{path}{key}.")
        elif isinstance(child, DictConfig) and not isinstance(value, Mapping):
            raise UserError(f"'{path}{key}' is a section, got {value!r}; set one of its keys: {', '.join(child)}")


def _refuse_unknown_stages(given: Mapping[str, Any], known: DictConfig) -> None:
    for name, value in given.items():
        if not isinstance(value, Mapping):
            raise UserError(f"'stages.{name}' is a section, got {value!r}; set one of its keys, such as steps")
        if name not in known and "scene" not in value:
            raise UserError(
                f"unknown stage 'stages.{name}'{nearest(str(name), [str(key) for key in known])}; "
                f"known: {', '.join(map(str, known))}; a new one must say its scene: {', '.join(SCENES)}"
            )
        _refuse_unknown_keys(value, OmegaConf.structured(StageConfig), f"stages.{name}.")


def _validate(config: RunConfig) -> None:
    prompt = config.prompt.strip()
    if not prompt:
        raise UserError('the prompt is empty; say what to make, for example --prompt "a red mug"')
    if len(config.prompt) > MAX_PROMPT_CHARACTERS:
        raise UserError(f"the prompt has {len(config.prompt)} characters; at most {MAX_PROMPT_CHARACTERS} are accepted")
    if any(ord(character) < 32 for character in prompt):
        raise UserError("the prompt holds control characters; give one line of plain text")
    for name, value, least in (
        ("seed", config.seed, 0),
        ("particles", config.particles, 1),
        ("output.preview_every", config.output.preview_every, 0),
        ("output.checkpoint_every", config.output.checkpoint_every, 0),
        ("output.log_every", config.output.log_every, 1),
        ("output.turntable_frames", config.output.turntable_frames, 0),
        ("output.picture_size", config.output.picture_size, 16),
    ):
        if value < least:
            raise UserError(f"{name} is {value}; at least {least} is accepted")
    size = config.texture.size
    if size < 0 or size & (size - 1):
        raise UserError(f"texture.size is {size}; powers of two are accepted, such as 1024, and 0: export.texture_size")
    for section in fields(config):
        value = getattr(config, section.name)
        validate = getattr(value, "validate", None)
        if is_dataclass(value) and callable(validate):
            validate()
    _validate_stages(config)


def _validate_stages(config: RunConfig) -> None:
    for name, stage in config.stages.items():
        stage.validate(f"stages.{name}")
        config.method_of(name)
    active = config.active_stages()
    order = [SCENES.index(stage.scene) for stage in active.values()]
    if not order or order[0] != 0:
        raise UserError(f"the first stage must train the coarse scene; the stages are {', '.join(active) or 'none'}")
    if order != sorted(order):
        listed = ", ".join(f"{name} ({stage.scene})" for name, stage in active.items())
        raise UserError(f"stages go from {' to '.join(SCENES)}, never back; got {listed}")
    if config.mesh.initial_mesh:
        raise UserError(
            "mesh.initial_mesh is not read: a mesh stage begins with the scene before it; "
            "to start from a mesh of your own give --repr mesh representation.initial_mesh=FILE"
        )
    refined = [name for name, stage in active.items() if stage.scene != SCENES[0]]
    if refined and not config.export.enabled:
        raise UserError(
            f"export.enabled=false needs refine=false (--no-refine): stage '{refined[0]}' trains a mesh, "
            "which is made as the export makes it"
        )


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise UserError(f"'{text}' is not an override; write section.key=value, for example stages.coarse.steps=400")
    try:
        parsed = yaml.safe_load(value) if value.strip() else ""
    except yaml.YAMLError:
        parsed = value
    nested: Any = parsed
    for part in reversed(parts):
        nested = {part: nested}
    return nested


def _read_preset(preset: str | Path) -> Mapping[str, Any]:
    shipped = presets()
    if str(preset) in shipped:
        return _read_yaml(shipped[str(preset)])
    path = Path(preset)
    if path.suffix in {".yaml", ".yml"} and path.is_file():
        return _read_yaml(path)
    raise UserError(
        f"unknown preset '{preset}'{nearest(str(preset), list(shipped))}; "
        f"shipped: {', '.join(shipped)}; or give the path of an existing .yaml file"
    )


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"cannot read {path}: {_first_line(error)}") from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise UserError(f"{path} must hold sections and values, got a {type(content).__name__}")
    return content


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    detail = [line.partition(":")[2].strip() for line in lines if line.startswith("full_key")]
    text = lines[0] if lines else type(error).__name__
    return f"{detail[0]}: {text}" if detail else text
