"""Runs of a benchmark that are kept in a file of JSON lines, so that none is repeated."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")
"""What determines a run."""
Record = dict[str, Any]


class KeptRuns(Generic[Key]):
    """The runs of a file, each made at its first use unless `frozen`, which raises KeyError."""

    def __init__(self, path: Path, key_of: Callable[[Mapping[str, Any]], Key], *, frozen: bool = False) -> None:
        """Read the runs that are there.

        Args:
            path: The file; it need not exist.
            key_of: The key of a record.
            frozen: Whether no run is made.
        """
        self.path, self.frozen = path, frozen
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.known: dict[Key, Record] = {key_of(record): record for record in map(json.loads, lines)}

    def kept(
        self, key: Key, make: Callable[[], Record], suffices: Callable[[Record], bool] = lambda record: True
    ) -> Record:
        """The record of a run, made and appended to the file if there is none that suffices."""
        found = self.known.get(key)
        if found is None or not suffices(found):
            if self.frozen:
                raise KeyError(key)
            found = self.known[key] = make()
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
            print(json.dumps(found), flush=True)
        return found
