"""Composition of a run's settings: dataclass defaults < presets < command line, then validated as a whole."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from ..errors import SettingsError, UnknownNameError, nearest
from ..plain_text import shown
from .layers import parts_of
from .renamed_settings import refuse_renamed, refuse_renamed_in_method
from .schema import INITIAL_FILES, Schema
from .setting_text import is_null, mapping_of, word
from .validation import as_plain, no_section, read_settings, unknown_key
from .yaml_text import MAX_DEPTH

MAX_PROMPT_CHARACTERS = 1000
MAX_STAGES = 32

DERIVED = ("names", "methods", "representations")
"""Fields of a run's configuration that are derived and cannot be set."""


def compose_as(schema: Schema, layers: Sequence[Mapping[str, Any]], chosen: Mapping[str, str] | None = None) -> Any:
    """Merge plain layers over the defaults; `chosen` names win over the `name` keys of the layers.

    A model in place of the prior's name selects the prior "diffusers" with that model. Returns a `schema.run`. Raises
    SettingsError, and UnknownNameError for a name that a plugin may register.
    """
    parts, names = parts_of(layers, chosen or {}, schema)
    kinds = {section: schema.choices[section][name] for section, name in names.items()}
    for section, kind in kinds.items():
        schema.check_entry(section, names[section], kind)
    usual = _without(as_plain(schema.run()), DERIVED) | {section: as_plain(kind()) for section, kind in kinds.items()}
    tree = merged(usual, *_without_overruled(parts, usual["stages"], schema))
    refuse_renamed(tree)
    refuse_renamed_in_method("method", tree["method"], usual["method"])
    if unknown := [key for key in tree if key not in usual]:
        raise SettingsError(unknown_key("", unknown[0], usual))
    tree |= {section: read_settings(kind, tree[section], section) for section, kind in kinds.items()}
    tree["stages"] = stages = _complete_stages(tree["stages"], list(usual["stages"]), as_plain(schema.stage()))
    methods, scenes, method = {}, {}, as_plain(tree["method"])
    for name, stage in stages.items():
        path = f"stages.{name}"
        methods[name], stage["method"] = _method_of(f"{path}.method", stage["method"], method, names["method"], schema)
        if stage["representation"] is not None:
            scenes[name], stage["representation"] = _representation_of(
                f"{path}.representation", stage["representation"], schema
            )
    out = read_settings(schema.run, tree | {"names": names, "methods": methods, "representations": scenes})
    check_run(out)
    return out


def active_stages(config: Any) -> dict[str, Any]:
    """The stages that run, in order; without `refine` those before the first that takes over the scene."""
    out: dict[str, Any] = {}
    for name, stage in config.stages.items():
        if stage.steps and not config.refine and takes_over(config, name):
            break
        if stage.steps:
            out[name] = stage
    return out


def takes_over(config: Any, stage: str) -> bool:
    """Whether a stage converts the scene of the previous stage into a representation of its own.

    False for the first stage, which has nothing to convert.
    """
    return stage != next(iter(config.stages)) and config.stages[stage].representation is not None


@dataclass(frozen=True)
class ChosenRepresentation:
    """The representation that a stage trains, with the path of its settings."""

    path: str
    """Path of its settings, such as `stages.geometry.representation`."""
    name: str
    config: Any


def representation_of(config: Any, stage: str) -> ChosenRepresentation:
    """The representation that a stage trains: its own, else that of the previous stage, else the run's."""
    running, order = active_stages(config), list(config.stages)
    upto = order[: order.index(stage) + 1]
    named = [name for name in upto if name in running and running[name].representation is not None]
    if not named:
        return ChosenRepresentation("representation", config.names["representation"], config.representation)
    own = named[-1]
    name = running[own].representation["name"]
    return ChosenRepresentation(f"stages.{own}.representation", name, config.representations[own])


def to_plain(config: Any) -> dict[str, Any]:
    """Nested plain values as they are written to config.yaml: each chosen section starts with its name."""
    plain = _without(as_plain(config), DERIVED)
    for section, name in config.names.items():
        plain[section] = {"name": name, **plain[section]}
    return plain


def merged(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Merge sections key by key; for all other values the last one wins.

    Text from the command line is parsed where another tree has a section. Raises SettingsError if it cannot be parsed.
    """
    layers = [OmegaConf.create(_hidden(_opened(tree, trees)), flags={"allow_objects": True}) for tree in trees]
    return _shown(OmegaConf.to_container(OmegaConf.unsafe_merge(*layers)))


def check_run(config: Any) -> None:
    """Check settings across sections. Raises SettingsError for those that contradict each other."""
    if not config.prompt.strip():
        raise SettingsError('the prompt is empty; say what to make, for example --prompt "a red mug"')
    for name, given in (("the prompt", config.prompt), ("negative_prompt", config.negative_prompt)):
        if len(given) > MAX_PROMPT_CHARACTERS:
            raise SettingsError(f"{name} has {len(given)} characters; at most {MAX_PROMPT_CHARACTERS} are accepted")
    _check_scenes(config)


def _check_scenes(config: Any) -> None:
    """Check the representations of the stages, and each conversion from one to the next."""
    active, listed = active_stages(config), list(config.stages)
    if not active or takes_over(config, next(iter(active))):
        raise SettingsError(f"no stage trains the first scene of the run; set stages.{listed[0]}.steps to 1 or more")
    later = [name for name in active if takes_over(config, name)]
    if later and not config.export.enabled:
        raise SettingsError(
            f"export.enabled=false needs refine=false (--no-refine): stage '{later[0]}' takes over the surface of the "
            "scene, which is extracted by the export"
        )
    for name in later:
        chosen = representation_of(config, name)
        _refuse_unused_file(chosen.config, chosen.path, "the stage takes over the previous scene")
    first = representation_of(config, next(iter(active))).path
    if first != "representation":
        _refuse_unused_file(config.representation, "representation", f"{first} selects another one")


def _refuse_unused_file(representation: Any, path: str, why: str) -> None:
    """Raises SettingsError if the settings at `path` name a file to start from, or turn it."""
    for key in (*INITIAL_FILES, "initial_yaw"):
        if getattr(representation, key, ""):
            raise SettingsError(
                f"{path}.{key} is not used: {why}; only the representation of the first stage can start from a file"
            )


def _without_overruled(
    parts: Sequence[Mapping[str, Any]], usual: Mapping[str, Any], schema: Schema
) -> list[dict[str, Any]]:
    """The parts without stage settings that belong to a representation other than the stage's final one: the settings
    of that representation, and the regularizers, which may exist only for it.

    Args:
        usual: the default stages, in plain values.
    """
    final: dict[str, str | None] = {
        name: stage["representation"]["name"] for name, stage in usual.items() if stage["representation"]
    }
    for part in parts:
        for stage, path, given in _given_stages(part):
            scene = _given_representation(given, path)
            if is_null(scene):
                final[stage] = None
            elif "name" in scene:
                final[stage] = _representation_name(scene, f"{path}.representation", schema)
    out = []
    for part in parts:
        stages = mapping_of(part.get("stages"), "stages")
        if isinstance(stages, Mapping):
            kept = {
                stage: _kept_for(final.get(stage, ""), given, path, schema)
                for stage, path, given in _given_stages(part)
            }
            part = {**part, "stages": {**stages, **kept}}
        out.append(dict(part))
    return out


def _given_stages(part: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Name, path and settings of each stage that a part sets."""
    stages = mapping_of(part.get("stages"), "stages")
    for stage, given in stages.items() if isinstance(stages, Mapping) else ():
        path = f"stages.{word(stage)}"
        given = mapping_of(given, path)
        if isinstance(given, Mapping):
            yield stage, path, given


def _given_representation(stage: Mapping[str, Any], path: str) -> Any:
    """The given section, empty if there is none, or a null value. Raises SettingsError."""
    path = f"{path}.representation"
    scene = mapping_of(stage.get("representation", {}), path)
    if not isinstance(scene, Mapping) and not is_null(scene):
        raise SettingsError(f"'{path}' is a section, got {shown(scene)}; give {path}.name, or null")
    return scene


def _kept_for(name: str | None, stage: Mapping[str, Any], path: str, schema: Schema) -> dict[str, Any]:
    """The given settings of a stage that apply if its representation is `name`; None: it has no representation of its
    own.
    """
    out, scene = dict(stage), _given_representation(stage, path)
    if "representation" not in out:
        return out
    if name is None or is_null(scene):
        out["representation"] = None if name is None else {}
    elif "name" in scene:
        scene = {**scene, "name": _representation_name(scene, f"{path}.representation", schema)}
        out["representation"] = scene if scene["name"] == name else {}
    else:
        out["representation"] = scene
    if not is_null(scene) and scene.get("name", name) != name:
        out.pop("regularizers", None)
    return out


def _representation_name(given: Mapping[str, Any], path: str, schema: Schema) -> str:
    """The full name of a representation. Raises UnknownNameError."""
    known, name = schema.choices["representation"], given["name"]
    full = schema.full_name("representation", str(name))
    if not isinstance(name, str) or full not in known:
        raise UnknownNameError(f"{path}.name is {shown(name)}{nearest(word(name), known)}; known: {', '.join(known)}")
    return full


def _complete_stages(given: Any, usual: Sequence[str], stage: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The stages as mappings; new ones are merged over the defaults of a `stage`."""
    known, out = list(usual), {}
    if not isinstance(given, Mapping):
        raise SettingsError(no_section("stages", given, known))
    for name, settings in given.items():
        path = f"stages.{word(name)}"
        settings = mapping_of(settings, path)
        if not isinstance(settings, Mapping):
            raise SettingsError(no_section(path, settings, stage.keys()))
        if name not in known:
            _check_new_stage(name, settings, known)
            known.append(name)
            settings = merged(stage, settings)
        out[name] = dict(settings)
    return out


def _check_new_stage(name: str, stage: Mapping[str, Any], known: Sequence[str]) -> None:
    if "representation" not in stage:
        raise SettingsError(
            f"unknown stage 'stages.{word(name)}'{nearest(word(name), known)}; known: {', '.join(known)}; a new stage "
            "must set its representation, such as {name: dmtet}, or null to continue with the previous scene"
        )
    if not re.fullmatch(r"[\w-]{1,40}", name):
        raise SettingsError(
            f"a stage is named {shown(name)}; names of up to 40 letters, digits, '_' and '-' are accepted"
        )
    if len(known) >= MAX_STAGES:
        raise SettingsError(f"stages.{name} cannot be added; at most {MAX_STAGES} stages are accepted")


def _method_of(path: str, given: Any, usual: Mapping[str, Any], run: str, schema: Schema) -> tuple[Any, dict[str, Any]]:
    """A stage's method, and its given settings, in plain values.

    Args:
        path: path of the settings, for messages.
        given: differences from the `usual` settings of the method `run`; with `name`, from the defaults of that method.
    """
    known = schema.choices["method"]
    if not isinstance(given, Mapping):
        raise SettingsError(no_section(path, given, ("name", *usual)))
    name = given.get("name", run)
    if not isinstance(name, str) or name not in known:
        raise UnknownNameError(f"{path}.name is {shown(name)}{nearest(word(name), known)}; known: {', '.join(known)}")
    base = usual if name == run else as_plain(known[name]())
    refuse_renamed_in_method(path, given, base)
    method, settings = _read_over(base, known[name], given, path)
    said = {"name": str(name)} if "name" in given else {}
    return method, said | settings


def _representation_of(path: str, given: Mapping[str, Any], schema: Schema) -> tuple[Any, dict[str, Any]]:
    """A stage's own representation, and its given settings, in plain values."""
    known = schema.choices["representation"]
    if "name" not in given:
        raise SettingsError(
            f"'{path}' has no name; set {path}.name={'|'.join(known)}, or omit the section: the stage then continues "
            "with the previous scene, and the first stage uses the settings in representation.*"
        )
    name = given["name"]
    schema.check_entry("representation", name, known[name])
    scene, settings = _read_over(as_plain(known[name]()), known[name], given, path)
    return scene, {"name": name} | settings


def _read_over(base: Mapping[str, Any], kind: type, given: Mapping[str, Any], path: str) -> tuple[Any, dict[str, Any]]:
    """Settings read from the plain values in `base` and `given` (without the name), and the given ones as plain
    values.
    """
    settings = _opened({key: value for key, value in given.items() if key != "name"}, [base], f"{path}.")
    out = read_settings(kind, merged(base, settings), path)
    return out, _like(as_plain(out), settings)


def _like(plain: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `plain` whose keys are in `given`."""
    return {
        key: _like(plain[key], value) if isinstance(value, Mapping) and isinstance(plain[key], Mapping) else plain[key]
        for key, value in given.items()
    }


def _without(tree: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: value for key, value in tree.items() if key not in keys}


def _opened(tree: Mapping[str, Any], others: Sequence[Mapping[str, Any]], path: str = "") -> dict[str, Any]:
    """The tree, with text from the command line parsed where one of `others` has a section."""
    out = dict(tree)
    for key, value in tree.items():
        beside = [inner for other in others if isinstance(inner := other.get(key), Mapping)]
        if not beside or path.count(".") >= MAX_DEPTH:
            continue
        section = mapping_of(value, f"{path}{key}")
        if isinstance(section, Mapping):
            out[key] = _opened(section, beside, f"{path}{key}.")
    return out


class _Leaf:
    """Wrapper that hides a value from OmegaConf, which would interpret `???` and `${...}`."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _hidden(value: Any, depth: int = 0) -> Any:
    if not isinstance(value, Mapping) or depth > MAX_DEPTH:
        return _Leaf(value)
    return {str(key): _hidden(item, depth + 1) for key, item in value.items()}


def _shown(value: Any) -> Any:
    return {key: _shown(item) for key, item in value.items()} if isinstance(value, dict) else value.value
