"""Parts of a configuration as trees of the right types, and their merging."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import OmegaConf

from ..distill import METHODS
from .annotations import kinds_of
from .errors import SettingsError, nearest
from .plain_text import shown
from .setting_types import mapping_of, read_as, read_section, word
from .stage import SCENES, StageConfig

MAX_STAGES = 32


def read_parts(
    parts: Sequence[Mapping[str, Any]], kinds: Mapping[str, Any], stages: Sequence[str], method: str
) -> list[dict[str, Any]]:
    """Every part, its values as the settings say for which they are given.

    Args:
        kinds: annotation per key of the root.
        stages: names of those that are there by default.
        method: name of the run's, whose settings a stage varies unless it names another.

    Raises SettingsError.
    """
    known, methods, out = list(stages), _stage_methods(parts, method), []
    for part in parts:
        tree = read_section(kinds, {key: value for key, value in part.items() if key != "stages"})
        if "stages" in part:
            tree["stages"] = _read_stages(part["stages"], known, methods)
        out.append(tree)
    return out


def merge_sections(trees: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Sections joined key by key; of everything else the last one counts."""
    layers = [OmegaConf.create(_wrapped(tree), flags={"allow_objects": True}) for tree in ({}, *trees)]
    return _unwrapped(OmegaConf.to_container(OmegaConf.merge(*layers)))


def split_name(method: Mapping[str, Any], usual: str, path: str) -> tuple[str, dict[str, Any]]:
    """The name of a stage's method, and the settings beside it. Raises SettingsError for an unknown one."""
    settings = dict(method)
    name = read_as(str, settings.pop("name", usual), f"{path}name")
    if name not in METHODS:
        raise SettingsError(f"{path}name is '{word(name)}'{nearest(word(name), METHODS)}; known: {', '.join(METHODS)}")
    return name, settings


class _Leaf:
    """Keeps a value from OmegaConf, to which `???` and `${...}` are more than text."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _wrapped(value: Any) -> Any:
    return {key: _wrapped(item) for key, item in value.items()} if isinstance(value, Mapping) else _Leaf(value)


def _unwrapped(value: Any) -> Any:
    return {key: _unwrapped(item) for key, item in value.items()} if isinstance(value, dict) else value.value


def _stage_methods(parts: Sequence[Mapping[str, Any]], usual: str) -> dict[Any, str]:
    """The method's name for each stage that is given settings of it: the last one said."""
    out: dict[Any, str] = {}
    for part in parts:
        stages = mapping_of(part.get("stages"), "stages")
        for stage, given in stages.items() if isinstance(stages, Mapping) else ():
            path = f"stages.{word(stage)}"
            given = mapping_of(given, path)
            method = mapping_of(given.get("method"), f"{path}.method") if isinstance(given, Mapping) else None
            if isinstance(method, Mapping):
                out[stage], _ = split_name(method, out.get(stage, usual), f"{path}.method.")
    return out


def _read_stages(given: Any, known: list[str], methods: Mapping[Any, str]) -> dict[str, Any]:
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
        tree = read_section(kinds_of(StageConfig), {key: stage[key] for key in stage if key != "method"}, f"{path}.")
        if "method" in stage:
            tree["method"] = _read_method(stage["method"], methods.get(name, ""), f"{path}.method.")
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


def _read_method(given: Any, name: str, path: str) -> dict[str, Any]:
    """A stage's own settings of the method called `name`, with the name if that was given."""
    given = mapping_of(given, path.rstrip("."))
    if not isinstance(given, Mapping):
        raise SettingsError(f"'{path.rstrip('.')}' is a section, got {shown(given)}; set one of its keys")
    own = {"name": name} if "name" in given else {}
    return own | read_section(kinds_of(METHODS[name]), {key: given[key] for key in given if key != "name"}, path)
