"""One row of an audit: a check with its value, its limit and what to do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

Severity: TypeAlias = Literal["ok", "info", "warning", "error"]
"""`ok`: within the limit; `info`: stated, without a limit for this file; `warning`: imported, but costs quality or
speed; `error`: shown incorrectly, or not accepted."""


@dataclass(frozen=True)
class Finding:
    """The result of one check."""

    check: str
    """Name of the check, such as "uv-overlap"."""
    severity: Severity
    value: float | str
    """The measured value; a fraction where the limit is a percentage."""
    limit: str
    """The accepted values, such as "at most 5"; empty for a statement."""
    remedy: str = ""
    """The way to fix it; empty if nothing is wrong."""
    where: str = ""
    """Names of the objects, materials or images concerned."""

    @property
    def text(self) -> str:
        """The value as shown in tables."""
        if isinstance(self.value, str):
            return self.value
        if isinstance(self.value, int):
            return f"{self.value:,}"
        return f"{self.value:.4g}" if "%" not in self.limit else f"{100 * self.value:.3g}%"

    def to_plain(self) -> dict[str, Any]:
        """The finding as JSON values, which have no infinity."""
        infinite = isinstance(self.value, float) and not math.isfinite(self.value)
        return {**asdict(self), "value": str(self.value) if infinite else self.value}


def checked(
    check: str,
    value: float | str,
    limit: str,
    passed: bool,
    remedy: str,
    *,
    severity: Severity = "warning",
    where: Iterable[str] = (),
) -> Finding:
    """A finding of this severity, or a row without remedy if the check passed."""
    if passed:
        return Finding(check, "ok", value, limit)
    return Finding(check, severity, value, limit, remedy, listed(where))


def stated(check: str, value: float | str, reason: str = "") -> Finding:
    """A row for information: a measure without a limit, or the reason why a check does not apply."""
    return Finding(check, "info", value, "", reason)


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first distinct names that are not empty, and the number of the others."""
    known = list(dict.fromkeys(name for name in names if name))
    more = f" and {len(known) - most} more" if len(known) > most else ""
    return ", ".join(name if len(name) <= 60 else f"{name[:57]}..." for name in known[:most]) + more
