"""Settings of an earlier run, read from any intact copy, and the rules for changing them when resuming."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import UnknownNameError, UserError
from ..files import read_regular
from ..settings.composing import compose_as, to_plain
from ..settings.layers import read_layer
from ..settings.schema import Schema
from .checkpoint_record import newest_record
from .manifest import Manifest

logger = logging.getLogger(__name__)

AFTERWARD = ("export.", "output.", "refine", "plugins")
"""Prefixes of settings that do not affect the optimization and may be changed when resuming."""

ASSET = ("export.", "refine")
"""Prefixes out of `AFTERWARD` that change the asset."""

_LARGEST = 1 << 20
"""Maximum size of config.yaml, in bytes."""


def resumed_config(
    folder: Path,
    layers: Sequence[Mapping[str, Any]],
    chosen: Mapping[str, str],
    schema: Schema,
    tell: Callable[[str], None] = logger.warning,
) -> Any:
    """Return the configuration, a `schema.run`, that a run is resumed with.

    Args:
        folder: Folder of the run.
        layers: Settings given now, which override the saved ones.
        chosen: Names of components by section, which override those of all layers.
        schema: Schema of the settings.
        tell: Called with a line if config.yaml is damaged or lost and the newest checkpoint's copy is used.

    Raises:
        UserError: Both copies are lost, they differ, or the settings would change the optimization. Settings of the
            asset and the images may be changed.
    """
    saved = _saved_settings(folder, schema, tell)
    wanted = compose_as(schema, [saved, *layers], chosen)
    refuse_other_optimization(saved, wanted, f"{folder} was started with different settings")
    return wanted


def readable_settings(folder: Path) -> list[Mapping[str, Any]]:
    """Read the saved copies of a run's settings, unvalidated; unreadable copies are skipped."""
    out: list[Mapping[str, Any]] = []
    with suppress(UserError):
        out.append(read_layer(folder / "config.yaml"))
    copy = newest_record(folder / "checkpoints").get("settings")
    return [*out, copy] if isinstance(copy, Mapping) else out


def refuse_other_optimization(saved: Mapping[str, Any], wanted: Any, what: str) -> None:
    """Check that both settings lead to the same scene. Raises UserError with a message that begins with `what`."""
    differing = [key for key in differences(saved, to_plain(wanted)) if not key.startswith(AFTERWARD)]
    if differing:
        raise UserError(
            f"{what} ({', '.join(differing[:6])}); resume with the same settings, or start a new run in another folder"
        )


def refuse_other_asset(folder: Path, config: Any, schema: Schema) -> None:
    """Check that a resumed run would not replace an asset made with other settings. Raises UserError."""
    if not config.export.enabled or not (folder / "asset" / "asset.glb").is_file():
        return
    made = Manifest(folder).asset or asset_settings(_saved_settings(folder, schema, logger.warning))
    differing = differences(made, asset_settings(to_plain(config)))
    if differing:
        raise UserError(
            f"{folder / 'asset' / 'asset.glb'} was made with different settings ({', '.join(differing[:6])}); add "
            "--overwrite to replace it, or move it away"
        )


def asset_settings(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that the asset depends on besides the optimization; `export.enabled` is excluded."""
    export = {key: value for key, value in plain["export"].items() if key != "enabled"}
    return _as_json({"export": export, "refine": plain["refine"]})


def differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Return the dotted keys whose values differ, sorted; for a section that only one has, the keys inside it."""
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
            raise UserError(f"{error}; no checkpoint has a copy of it: fix the file, or start a new run") from None
        tell(f"{error}; using the settings saved with {name} instead")
        return copy
    changed = [] if copy is None else [k for k in differences(copy, found) if not k.startswith(AFTERWARD)]
    if changed:
        raise UserError(
            f"{path} has different settings ({', '.join(changed[:6])}) than {name}; restore them, or remove {path}: "
            "the checkpoint has its own copy"
        )
    return found


def _complete(path: Path, schema: Schema) -> dict[str, Any]:
    """Read settings from a file that has every key. Raises UserError."""
    if not path.is_file():
        raise UserError(f"{path} does not exist")
    try:
        read_regular(path, _LARGEST)
        found = read_layer(path)
        whole = to_plain(compose_as(schema, [found]))
    except UnknownNameError:
        raise  # a plugin may add it
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
    """Convert YAML values to their JSON equivalents, so that both can be compared."""
    return json.loads(json.dumps(value))
