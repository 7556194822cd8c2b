"""Layers of settings from presets and the command line: nested plain values, later ones over earlier ones."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import SettingsError, UnknownNameError, nearest
from ..plain_text import shown
from .schema import INITIAL_FILES, Schema
from .setting_text import is_null, mapping_of, word
from .yaml_text import MAX_DEPTH, Given, YamlError, read_yaml

DEFAULT_PRESET = "cpu"

DEFAULT_NAMES = {"representation": "gaussians", "method": "ssd", "prior": "tiny"}

WHEN = "when"
"""Key of a preset's sections that apply only with one representation or prior, or only if the scene is initialized
from a file: `when: {nerf: {stages: ...}, initial_file: {...}}`."""

INITIAL_FILE = "initial_file"
"""Name of the section of `WHEN` for runs whose scene is initialized from the user's file."""


def presets() -> dict[str, Path]:
    """Paths of the shipped presets, by name."""
    folder = Path(str(importlib.resources.files("steindreamer.configs")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def preset_layers(preset: str | Path | None) -> list[Mapping[str, Any]]:
    """A preset as a list with one layer; None is the bare defaults."""
    return [] if preset is None else [_read_preset(preset)]


def given_layers(overrides: Sequence[str], settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Layers of the explicit settings: top-level values (None: not given), then `section.key=value` texts."""
    given = {key: value for key, value in settings.items() if value is not None}
    return [given, *(_parse_override(text) for text in overrides)]


def read_layer(path: Path) -> Mapping[str, Any]:
    """The sections and values of a YAML file; empty if the file is. Raises SettingsError if it cannot be read."""
    try:
        content = read_yaml(path)
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}") from None
    except YamlError as error:
        raise SettingsError(f"cannot read {path}: {error}") from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise SettingsError(f"{path} must contain sections and values, got {shown(content)}")
    return content


def parts_of(
    layers: Sequence[Mapping[str, Any]], chosen: Mapping[str, str], schema: Schema
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The settings of the layers that apply to the chosen representation, method and prior, in order; and those names.

    `chosen` names win over the `name` keys of the layers. A model in place of the prior's name selects the prior
    "diffusers" with that model. Raises SettingsError, and UnknownNameError for unknown names.
    """
    layers, chosen = [_opened(layer) for layer in layers], dict(chosen)
    if _is_model(chosen.get("prior", ""), schema):
        layers = [*layers, {"prior": {"model": chosen["prior"]}}]
        chosen["prior"] = "diffusers"
    names = _choose_names(layers, chosen, schema)
    sections = [names["prior"], names["representation"], *([INITIAL_FILE] if _starts_from_file(layers) else [])]
    parts = [part for layer in layers for part in _applicable(layer, sections, schema)]
    return [_without_foreign_sections(part, names, schema) for part in parts], names


def _opened(layer: Mapping[str, Any]) -> dict[str, Any]:
    """The layer, with the sections that must be inspected parsed if they were given as text."""
    known = (*DEFAULT_NAMES, WHEN)
    return {key: mapping_of(value, key) if key in known else value for key, value in layer.items()}


def _is_model(prior: str, schema: Schema) -> bool:
    try:
        return schema.names_a_model(prior)
    except (OSError, RuntimeError, ValueError):  # not a valid path
        return False


def _starts_from_file(layers: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the representation of the run or of a stage is given a file to start from. The last layer wins."""
    files: dict[tuple[str, str], Any] = {}
    for layer in layers:
        stages = mapping_of(layer.get("stages", {}), "stages")
        scenes = {"": layer}
        for name, stage in _items(stages):
            path = f"stages.{word(name)}"
            scenes[f"{path}."] = mapping_of(stage, path)
        for path, given in scenes.items():
            scene = mapping_of(dict(_items(given)).get("representation", {}), f"{path}representation")
            files |= {(path, key): value for key, value in _items(scene) if key in INITIAL_FILES}
    return any(not is_null(value) and str(value).strip() for value in files.values())


def _items(section: Any) -> list[tuple[Any, Any]]:
    return list(section.items()) if isinstance(section, Mapping) else []


def _applicable(layer: Mapping[str, Any], sections: Sequence[str], schema: Schema) -> list[Mapping[str, Any]]:
    """The layer, followed by those of its `when` sections that apply, in this order."""
    special, known = layer.get(WHEN, {}), [*schema.choices["prior"], *schema.choices["representation"], INITIAL_FILE]
    if isinstance(special, Mapping):
        special = {
            schema.full_name("representation", name): mapping_of(part, f"{WHEN}.{word(name)}")
            for name, part in special.items()
        }
    if not isinstance(special, Mapping) or not all(isinstance(part, Mapping) for part in special.values()):
        raise SettingsError(
            f"'{WHEN}' holds sections by representation or prior, or for {INITIAL_FILE}, such as "
            f"{WHEN}: {{nerf: {{...}}}}; got {shown(special)}"
        )
    for name in special:
        if name not in known:
            raise UnknownNameError(
                f"unknown representation or prior '{WHEN}.{word(name)}'{nearest(word(name), known)}; "
                f"known: {', '.join(known)}"
            )
    plain = {key: value for key, value in layer.items() if key != WHEN}
    return [plain, *(_opened(special.get(name, {})) for name in sections)]


def _choose_names(layers: Sequence[Mapping[str, Any]], chosen: Mapping[str, str], schema: Schema) -> dict[str, str]:
    names = dict(DEFAULT_NAMES)
    for layer in layers:
        for section in DEFAULT_NAMES:
            value = layer.get(section)
            if isinstance(value, Mapping) and "name" in value:
                names[section] = schema.full_name(section, str(value["name"]))
    names.update({section: schema.full_name(section, name) for section, name in chosen.items()})
    for section, name in names.items():
        if name not in schema.choices[section]:
            known = list(schema.choices[section])
            models = "; or a model: a folder that exists, or a hub id owner/name" if section == "prior" else ""
            near = nearest(word(name), known)
            raise UnknownNameError(f"unknown {section} '{word(name)}'{near}; known: {', '.join(known)}{models}")
    return names


def _without_foreign_sections(layer: Mapping[str, Any], names: Mapping[str, str], schema: Schema) -> dict[str, Any]:
    """Drop the `name` keys, and a preset's options for a choice that the user has overridden."""
    out = dict(layer)
    for section, name in names.items():
        value = out.get(section)
        if isinstance(value, Mapping) and "name" in value:
            is_chosen = schema.full_name(section, str(value["name"])) == name
            out[section] = {k: v for k, v in value.items() if k != "name"} if is_chosen else {}
    return out


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, value = text.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts) or len(parts) > MAX_DEPTH:
        raise SettingsError(
            f"'{word(text)}' is not an override; write section.key=value, for example stages.coarse.steps=400"
        )
    nested: Any = Given(value)
    for part in reversed(parts):
        nested = {part: nested}
    return nested


def _read_preset(preset: str | Path) -> Mapping[str, Any]:
    shipped, path = presets(), Path(preset)
    if str(preset) in shipped:
        return read_layer(shipped[str(preset)])
    if path.suffix in {".yaml", ".yml"} and _is_file(path):
        return read_layer(path)
    name = word(str(preset))
    raise SettingsError(
        f"unknown preset '{name}'{nearest(name, list(shipped))}; "
        f"shipped: {', '.join(shipped)}; or give the path of an existing .yaml file"
    )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # not a valid path
        return False
