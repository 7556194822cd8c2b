"""Shards: every n-th row of a batch, for schedulers that start the same command on several machines."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..errors import SettingsError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """The rows `number`, `number` + `count`, ..., counted from 1."""

    number: int
    count: int

    @property
    def suffix(self) -> str:
        """Part of the names of the shard's own files."""
        return f"{self.number}-of-{self.count}"

    def of(self, rows: Sequence[Item]) -> list[Item]:
        """The rows of the shard."""
        return list(rows[self.number - 1 :: self.count])


def read_shard(text: str) -> Shard:
    """Read `number/count`. Raises SettingsError."""
    found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise SettingsError(f"--shard is '{text}'; number/count is accepted, from 1/8 to 8/8 for eight shards")
    return Shard(int(found[1]), int(found[2]))
