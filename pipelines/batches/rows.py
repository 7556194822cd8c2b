"""Reading of a file of prompts: .txt (a prompt per line), .csv (with a header) or .jsonl (an object per line)."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import SettingsError, nearest
from ..files import read_regular
from ..plain_text import shown
from ..settings.setting_text import word
from ..settings.yaml_text import MAX_DEPTH, Given

CHOSEN = ("representation", "method", "prior")
"""Columns with the name of a component."""
SETTINGS = {
    "negative_prompt": "negative_prompt",
    "seed": "seed",
    "particles": "particles",
    "refine": "refine",
    "height": "export.height_meters",
}
"""Columns that are short for a setting."""
COLUMNS = ("prompt", "preset", *CHOSEN, *SETTINGS)
"""Columns besides the dotted key of any setting, such as `export.face_budget`."""
MAX_BYTES = 256 << 20
"""Largest file of prompts."""


@dataclass(frozen=True)
class Row:
    """One prompt with its own settings."""

    line: int
    """Line in the file, from 1."""
    prompt: str
    preset: str | None = None
    chosen: Mapping[str, str] = field(default_factory=dict)
    """Names of components by section."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Values by dotted key: text from .csv, JSON values from .jsonl."""

    @property
    def layers(self) -> list[Mapping[str, Any]]:
        """The settings as layers of a configuration."""
        return [{"prompt": self.prompt}, *(_nested(key, value) for key, value in self.settings.items())]


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a file; empty lines, and in .txt files lines that start with '#', are skipped.

    Raises SettingsError if the file cannot be read, has no rows or has a column that there is not.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise SettingsError(f"cannot read {path} as prompts; a .txt, .csv or .jsonl file is accepted")
    try:
        text = read_regular(path, MAX_BYTES).decode("utf-8-sig")
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise SettingsError(f"cannot read {path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    rows = [_row(path, line, cells) for line, cells in reader(path, text)]
    if not rows:
        raise SettingsError(f"{path} has no prompts; write one per line")
    return rows


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, by their numbers."""
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield number, line.strip()


def _plain(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    del path
    for number, line in _lines(text):
        if not line.startswith("#"):
            yield number, {"prompt": line}


def _table(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    reader = csv.reader(text.splitlines(keepends=True), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_columns(path, header)
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise SettingsError(
                    f"{path}, line {reader.line_num}: {len(cells)} cells for {len(header)} columns; quote a cell that "
                    "contains a comma"
                )
            given = zip(header, map(str.strip, cells), strict=True)
            yield reader.line_num, {name: cell for name, cell in given if cell}
    except csv.Error as error:
        raise SettingsError(f"{path}, line {reader.line_num}: {error}") from None


def _objects(path: Path, text: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    checked: set[str] = set()
    for number, line in _lines(text):
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise SettingsError(f"{path}, line {number}: {error}; write one JSON object per line") from None
        if not isinstance(found, dict):
            raise SettingsError(f'{path}, line {number}: got {shown(found)}; write {{"prompt": "a red mug"}}')
        if "prompt" not in found or not checked >= found.keys():
            _check_columns(f"{path}, line {number}", list(found))
            checked |= found.keys()
        yield number, {name: value for name, value in found.items() if value is not None}


_READERS: dict[str, Callable[[Path, str], Iterable[tuple[int, Mapping[str, Any]]]]] = {
    ".txt": _plain,
    ".csv": _table,
    ".jsonl": _objects,
}


def _check_columns(where: object, names: list[str]) -> None:
    """Raises SettingsError for a column that there is not, one that occurs twice, and a missing `prompt`."""
    for name in names:
        if name not in COLUMNS and ("." not in name or not all(name.split("."))):
            raise SettingsError(
                f"{where}: unknown column '{word(name)}'{nearest(name, COLUMNS)}; known: {', '.join(COLUMNS)}, and the "
                "dotted key of any setting, such as export.face_budget"
            )
        if len(name.split(".")) > MAX_DEPTH:
            raise SettingsError(f"{where}: the column '{word(name)}' is not the key of a setting")
    if twice := [name for name in names if names.count(name) > 1]:
        raise SettingsError(f"{where}: the column '{twice[0]}' occurs twice")
    if "prompt" not in names:
        raise SettingsError(f"{where}: there is no column 'prompt'")


def _row(path: Path, line: int, cells: Mapping[str, Any]) -> Row:
    texts = {name: cells[name] for name in ("prompt", "preset", *CHOSEN) if name in cells}
    for name, value in texts.items():
        if not isinstance(value, str):
            raise SettingsError(f"{path}, line {line}: {name} is {shown(value)}; text is accepted")
    settings = {SETTINGS.get(name, name): value for name, value in cells.items() if name not in texts}
    chosen = {name: value for name, value in texts.items() if name in CHOSEN}
    return Row(line, texts.get("prompt", ""), texts.get("preset"), chosen, settings)


def _nested(key: str, value: Any) -> Mapping[str, Any]:
    """The layer of one setting; text is read by the type of the setting, as on the command line."""
    nested: Any = Given(value) if isinstance(value, str) else value
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return nested
