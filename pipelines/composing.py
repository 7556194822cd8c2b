"""How settings are put together: parts as trees of the right types, merged over the defaults of a schema."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from .annotations import kinds_of
from .errors import SettingsError, UnknownNameError, nearest
from .layers import parts_of
from .plain_text import shown
from .ranges import check_ranges
from .schema import SCENES, Schema
from .sections import as_plain, build
from .setting_types import mapping_of, read_as, read_section, word

MAX_STAGES = 32


def assemble(schema: Schema, layers: Sequence[Mapping[str, Any]], chosen: Mapping[str, str]) -> Any:
    """Merge plain layers over the defaults; `chosen` names win over the `name` keys of the layers.

    A model in the place of the prior's name means the prior "diffusers" with that model. Returns a `schema.run` whose
    values have yet to be looked at. Raises SettingsError, UnknownNameError where a plugin might know better.
    """
    parts, names = parts_of(layers, chosen, schema)
    classes = {section: schema.choices[section][name] for section, name in names.items()}
    for section, kind in classes.items():
        schema.check_entry(section, names[section], kind)
    kinds = {**kinds_of(schema.run), **classes}
    del kinds["names"]
    usual = schema.run().stages
    tree = merge_sections(read_parts(parts, kinds, list(usual), names["method"], schema))
    given = tree.pop("stages", {})
    tree |= {section: build(kind, tree.get(section, {}), f"{section}.") for section, kind in classes.items()}
    stages = {
        name: build(schema.stage, given.get(name, {}), f"stages.{name}.", usual.get(name)) for name in usual | given
    }
    return build(schema.run, tree | {"stages": stages, "names": names})


def active_stages(config: Any) -> dict[str, Any]:
    """The stages that run, in order."""
    return {
        name: stage
        for name, stage in config.stages.items()
        if stage.steps and (config.refine or stage.scene == SCENES[0])
    }


def method_of(config: Any, stage: str, schema: Schema) -> Any:
    """The settings of a stage's method, their values within their ranges; see `RunConfig.method_of`."""
    path, usual = f"stages.{stage}.method", config.names["method"]
    name, given = split_name(config.stages[stage].method, usual, f"{path}.", schema)
    method = schema.choices["method"][name]
    tree = read_section(kinds_of(method), given, f"{path}.")
    out = build(method, tree, f"{path}.", config.method if name == usual else None)
    check_ranges(out, f"{path}.")
    return out


def to_plain(config: Any) -> dict[str, Any]:
    """Nested plain values as they are written to config.yaml: each chosen section starts with its name."""
    plain = as_plain(config)
    for section, name in plain.pop("names").items():
        plain[section] = {"name": name, **plain[section]}
    return plain


def read_parts(
    parts: Sequence[Mapping[str, Any]], kinds: Mapping[str, Any], stages: Sequence[str], method: str, schema: Schema
) -> list[dict[str, Any]]:
    """Every part, its values as the settings say for which they are given.

    Args:
        kinds: annotation per key of the root.
        stages: names of those that are there by default.
        method: name of the run's, whose settings a stage varies unless it names another.

    Raises SettingsError.
    """
    known, methods, out = list(stages), _stage_methods(parts, method, schema), []
    for part in parts:
        tree = read_section(kinds, {key: value for key, value in part.items() if key != "stages"})
        if "stages" in part:
            tree["stages"] = _read_stages(part["stages"], known, methods, schema)
        out.append(tree)
    return out


def merge_sections(trees: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sections joined key by key; of everything else the last one counts."""
    layers = [OmegaConf.create(_wrapped(tree), flags={"allow_objects": True}) for tree in ({}, *trees)]
    return _unwrapped(OmegaConf.to_container(OmegaConf.merge(*layers)))


def split_name(method: Mapping[str, Any], usual: str, path: str, schema: Schema) -> tuple[str, dict[str, Any]]:
    """The name of a stage's method, and the settings beside it. Raises UnknownNameError."""
    settings, known = dict(method), schema.choices["method"]
    name = read_as(str, settings.pop("name", usual), f"{path}name")
    if name not in known:
        raise UnknownNameError(f"{path}name is '{word(name)}'{nearest(word(name), known)}; known: {', '.join(known)}")
    return name, settings


class _Leaf:
    """Keeps a value from OmegaConf, to which `???` and `${...}` are more than text."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _wrapped(value: Any) -> Any:
    return {key: _wrapped(item) for key, item in value.items()} if isinstance(value, Mapping) else _Leaf(value)


def _unwrapped(value: Any) -> Any:
    return {key: _unwrapped(item) for key, item in value.items()} if isinstance(value, dict) else value.value


def _stage_methods(parts: Sequence[Mapping[str, Any]], usual: str, schema: Schema) -> dict[Any, str]:
    """The method's name for each stage that is given settings of it: the last one said."""
    out: dict[Any, str] = {}
    for part in parts:
        stages = mapping_of(part.get("stages"), "stages")
        for stage, given in stages.items() if isinstance(stages, Mapping) else ():
            path = f"stages.{word(stage)}"
            given = mapping_of(given, path)
            method = mapping_of(given.get("method"), f"{path}.method") if isinstance(given, Mapping) else None
            if isinstance(method, Mapping):
                out[stage], _ = split_name(method, out.get(stage, usual), f"{path}.method.", schema)
    return out


def _read_stages(given: Any, known: list[str], methods: Mapping[Any, str], schema: Schema) -> dict[str, Any]:
    """What is given of stages; the names of new ones are added to `known`."""
    given = mapping_of(given, "stages")
    if not isinstance(given, Mapping):
        raise SettingsError(f"'stages' is a section, got {shown(given)}; set one of its keys: {', '.join(known)}")
    out: dict[str, Any] = {}
    for name, stage in given.items():
        path = f"stages.{word(name)}"
        stage = mapping_of(stage, path)
        if not isinstance(stage, Mapping):
            raise SettingsError(f"'{path}' is a section, got {shown(stage)}; set one of its keys, such as steps")
        if name not in known:
            _check_new_stage(name, stage, known)
            known.append(name)
        tree = read_section(kinds_of(schema.stage), {key: stage[key] for key in stage if key != "method"}, f"{path}.")
        if "method" in stage:
            tree["method"] = _read_method(stage["method"], methods.get(name, ""), f"{path}.method.", schema)
        out[name] = tree
    return out


def _check_new_stage(name: Any, stage: Mapping[str, Any], known: Sequence[str]) -> None:
    if "scene" not in stage:
        raise SettingsError(
            f"unknown stage 'stages.{word(name)}'{nearest(word(name), known)}; known: {', '.join(known)}; "
            f"a new one must say its scene: {', '.join(SCENES)}"
        )
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]{1,40}", name):
        raise SettingsError(
            f"a stage is called {shown(name)}; names of up to 40 letters, digits, '_' and '-' are accepted"
        )
    if len(known) >= MAX_STAGES:
        raise SettingsError(f"stages.{name} is one too many; at most {MAX_STAGES} stages are accepted")


def _read_method(given: Any, name: str, path: str, schema: Schema) -> dict[str, Any]:
    """A stage's own settings of the method called `name`, with the name if that was given."""
    given = mapping_of(given, path.rstrip("."))
    if not isinstance(given, Mapping):
        raise SettingsError(f"'{path.rstrip('.')}' is a section, got {shown(given)}; set one of its keys")
    own = {"name": name} if "name" in given else {}
    return own | read_section(
        kinds_of(schema.choices["method"][name]), {key: given[key] for key in given if key != "name"}, path
    )
