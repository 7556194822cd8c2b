"""The settings of an earlier run, from whichever copy is whole, and what may be changed when it goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .checkpoint_record import newest_record
from .composing import to_plain
from .errors import UnknownNameError, UserError
from .files import read_regular
from .layers import read_layer
from .manifest import Manifest
from .schema import Schema
from .streams import complain
from .validation import compose_as

AFTERWARDS = ("export.", "output.", "refine", "plugins")
"""Settings that do not touch what has been optimised: another value may be given when resuming."""

ASSET = ("export.", "refine")
"""Of those, the ones that make another asset."""

_LARGEST = 1 << 20
"""Bytes of config.yaml that are read."""


def resumed_config(
    folder: Path,
    layers: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, str],
    schema: Schema,
    tell: Callable[[str], None] = complain,
) -> Any:
    """The configuration, a `schema.run`, that `folder` was started with, under what is given now.

    If config.yaml is damaged or lost, the newest checkpoint's copy is taken, and `tell` is called with a line about it.
    Raises UserError if both are lost, if they differ, and for settings that would change the optimisation; the asset
    and the pictures may be asked for anew.
    """
    saved = _saved_settings(folder, schema, tell)
    wanted = compose_as(schema, [saved, *layers], chosen)
    refuse_other_optimisation(saved, wanted, f"{folder} was started with other settings")
    return wanted


def readable_settings(folder: Path) -> list[Mapping[str, Any]]:
    """What the copies of a run's settings say, as far as they can be read, unchecked."""
    out: list[Mapping[str, Any]] = []
    with suppress(UserError):
        out.append(read_layer(folder / "config.yaml"))
    copy = newest_record(folder / "checkpoints").get("settings")
    return [*out, copy] if isinstance(copy, Mapping) else out


def refuse_other_optimisation(saved: Mapping[str, Any], wanted: Any, what: str) -> None:
    """Raises UserError that begins with `what` unless both settings lead to the same scene."""
    differing = [key for key in differences(saved, to_plain(wanted)) if not key.startswith(AFTERWARDS)]
    if differing:
        raise UserError(
            f"{what} ({', '.join(differing[:6])}); resume with the same ones, or start anew in another folder"
        )


def refuse_other_asset(folder: Path, config: Any, schema: Schema) -> None:
    """Raises UserError if a resumed run would replace an asset that was made with other settings."""
    if not config.export.enabled or not (folder / "asset" / "asset.glb").is_file():
        return
    made = Manifest(folder).asset or asset_settings(_saved_settings(folder, schema, complain))
    differing = differences(made, asset_settings(to_plain(config)))
    if differing:
        raise UserError(
            f"{folder / 'asset' / 'asset.glb'} was made with other settings ({', '.join(differing[:6])}); add "
            "--overwrite to replace it, or copy it away and remove it"
        )


def asset_settings(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Those that the asset depends on, beside the optimisation; `export.enabled` is none."""
    export = {key: value for key, value in plain["export"].items() if key != "enabled"}
    return _as_json({"export": export, "refine": plain["refine"]})


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ, dotted and sorted; of a section that only one has, its own keys."""
    return sorted(_differences(_as_json(a), _as_json(b), ""))


def _saved_settings(folder: Path, schema: Schema, tell: Callable[[str], None]) -> dict[str, Any]:
    path = folder / "config.yaml"
    record = newest_record(folder / "checkpoints")
    copy, name = record.get("settings"), f"checkpoint {record.get('step', 0):06d}"
    if not isinstance(copy, dict):
        copy = None
    try:
        found = _complete(path, schema)
    except UserError as error:
        if copy is None:
            if not path.exists():
                raise UserError(f"nothing to resume: {path} does not exist; give the run's folder with --out") from None
            raise UserError(f"{error}; no checkpoint has a copy of it: put it right, or start anew") from None
        tell(f"{error}: taking the settings that {name} was made with")
        return copy
    changed = [] if copy is None else [k for k in differences(copy, found) if not k.startswith(AFTERWARDS)]
    if changed:
        raise UserError(
            f"{path} says other settings ({', '.join(changed[:6])}) than {name} was made with; put them back, or "
            f"remove {path}: the checkpoint has its own copy"
        )
    return found


def _complete(path: Path, schema: Schema) -> dict[str, Any]:
    """The settings of a file that has every key. Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        read_regular(path, _LARGEST)
        found = read_layer(path)
        whole = to_plain(compose_as(schema, [found]))
    except UnknownNameError:
        raise  # there may be a plugin that adds it
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from None
    missing = _missing(found, whole, "")
    if missing:
        raise UserError(f"{path} is incomplete ({', '.join(missing[:6])} missing)")
    return whole


def _missing(found: Mapping[str, Any], whole: Mapping[str, Any], path: str) -> list[str]:
    out: list[str] = []
    for key, value in whole.items():
        if key not in found:
            out.append(f"{path}{key}")
        elif isinstance(value, Mapping):
            inner = found[key]
            out += _missing(inner if isinstance(inner, Mapping) else {}, value, f"{path}{key}.")
    return out


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], path: str) -> list[str]:
    out: list[str] = []
    for key in a.keys() | b.keys():
        one, other = a.get(key), b.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            out += _differences(one, other, f"{path}{key}.")
        elif one != other or (key in a) != (key in b):
            out.append(f"{path}{key}")
    return out


def _as_json(value: Mapping[str, Any]) -> dict[str, Any]:
    """What is the same in YAML and in JSON is the same here."""
    return json.loads(json.dumps(value))
