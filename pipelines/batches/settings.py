"""Settings of a batch, and the configuration and folder name of each of its runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..config.plugins import refuse_missing_plugins
from ..config.precheck import check_named_files, check_words
from ..errors import SettingsError
from ..plain_text import shown
from ..runs.folder import slug
from ..settings.composing import check_run, compose_as, to_plain
from ..settings.layers import DEFAULT_PRESET, given_layers, preset_layers
from ..settings.schema import Schema
from ..settings.setting_text import Refused, text, whole
from .rows import Row

MAX_SEED = 2**63 - 1
_WITHOUT_EFFECT = ("output", "plugins")
"""Sections that do not change the result of a run."""
_DIGITS = 10
"""Hexadecimal digits of the digest in a folder's name."""


@dataclass(frozen=True)
class BatchSettings:
    """Settings of all rows, which those of a row override."""

    preset: str | None = None
    overrides: tuple[str, ...] = ()
    """Texts `section.key=value`."""
    chosen: Mapping[str, str] = field(default_factory=dict)
    """Names of components by section."""
    plugins: tuple[str, ...] = ()
    """Files given with --plugin."""
    seeds: int = 1
    """Number of seeds per row, from its own seed upward, of which the best one is kept."""


class Configurations:
    """Configurations of the rows of a batch. Rows that differ in prompt and seed only are composed once."""

    def __init__(self, settings: BatchSettings, schema: Schema) -> None:
        self.settings, self._schema = settings, schema
        self._composed: dict[str, Any] = {}

    def of(self, row: Row, candidate: int = 0) -> Any:
        """The configuration of a row, a `schema.run`. Raises SettingsError.

        Args:
            row: The row.
            candidate: Added to the seed.
        """
        try:
            prompt = text(row.prompt)
        except Refused as refusal:
            raise SettingsError(f"the prompt is {shown(row.prompt)}{refusal}") from None
        own = {key: value for key, value in row.settings.items() if key != "seed"}
        key = json.dumps([row.preset, dict(row.chosen), own], sort_keys=True)
        if key not in self._composed:
            self._composed[key] = self._compose(replace(row, prompt="an object", settings=own))
        config = self._composed[key]
        seed = _seed(row.settings.get("seed", config.seed)) + candidate
        if seed > MAX_SEED:
            raise SettingsError(f"seed is {seed}; at most {MAX_SEED} is accepted")
        config = replace(config, prompt=prompt, seed=seed)
        check_run(config)
        return config

    def _compose(self, row: Row) -> Any:
        common, plugins = self.settings, list(self.settings.plugins)
        preset = row.preset or common.preset or DEFAULT_PRESET
        layers = [*preset_layers(preset), *given_layers(common.overrides, {"plugins": plugins or None}), *row.layers]
        refuse_missing_plugins(layers, [Path(file) for file in plugins])
        return compose_as(self._schema, layers, {**common.chosen, **row.chosen})

    def candidates(self, row: Row) -> list[Any]:
        """The configurations of all seeds of a row. Raises SettingsError."""
        return [self.of(row, candidate) for candidate in range(self.settings.seeds)]


def check_row(config: Any) -> None:
    """Raises UserError for a prompt that a shipped prior cannot read, and for a file that does not exist."""
    check_named_files(config)
    check_words(config.names["prior"], config.prior, config.prompt, config.negative_prompt)


def folder_name(config: Any) -> str:
    """Name of a run's folder: words of the prompt, and a digest of all settings that change the result."""
    plain = {key: value for key, value in to_plain(config).items() if key not in _WITHOUT_EFFECT}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()
    return f"{slug(config.prompt)[:40].strip('-')}-{digest[:_DIGITS]}"


def race_path(out: Path, name: str, seeds: int) -> Path:
    """The file of a race.

    Args:
        out: Folder of the batch.
        name: Name of the folder of its first run.
        seeds: Number of its runs.
    """
    return out / "races" / f"{name}-best-of-{seeds}.json"


def _seed(value: Any) -> int:
    try:
        seed = whole(value)
    except Refused as refusal:
        raise SettingsError(f"seed is {shown(value)}{refusal}") from None
    if not 0 <= seed <= MAX_SEED:
        raise SettingsError(f"seed is {seed}; 0 to {MAX_SEED} is accepted")
    return seed
