"""Schedule of a number over a stage, written by name: `10`, or `{from: 10, to: 1000, begin: 0.1, end: 0.5}`.

Weights of regularizers and factors on learning rates are schedules.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from annotated_types import Interval

from ..errors import SettingsError, nearest
from ..plain_text import shown
from .setting_text import Refused, number, word
from .validation import LIMITS, accepted

SHAPES = ("linear", "exponential", "sqrt")
KEYS = ("from", "to", "begin", "end", "shape")
ANY = Interval(ge=-1e12, le=1e12)
"""The accepted values of a schedule without limits of its own."""

_HOLDS = {"ge": operator.ge, "gt": operator.gt, "le": operator.le, "lt": operator.lt}


@dataclass(frozen=True)
class Schedule:
    """A number that is `start` until `begin`, `target` from `end` on, and interpolated along `shape` between them.

    linear       start + (target - start) * s, with s running from 0 to 1 between `begin` and `end`
    exponential  start * (target / start) ** s: equal factors in equal times, the usual decay of learning rates
    sqrt         start + (target - start) * sqrt(s): fast first (HiFA [Zhu & Zhuang 2023], its noise level annealing)
    """

    start: float
    target: float
    begin: float = 0.0
    """Fraction of the stage at which the change begins, in [0, 1]."""
    end: float = 1.0
    """Fraction of the stage at which the change ends, in [0, 1]; equal to `begin` for a jump."""
    shape: str = "linear"

    def value_at(self, progress: float) -> float:
        """The value at the fraction `progress` of the stage, which is clamped to [0, 1]."""
        if progress >= self.end:
            return self.target
        if progress <= self.begin:
            return self.start
        fraction = (progress - self.begin) / (self.end - self.begin)
        if self.shape == "exponential":
            return self.start * (self.target / self.start) ** fraction
        if self.shape == "sqrt":
            fraction = math.sqrt(fraction)
        return self.start + (self.target - self.start) * fraction


def parse_schedule(value: Any, name: str, limits: Interval = ANY) -> Schedule:
    """Read a schedule from plain values, as a YAML file or the command line gives them.

    Args:
        value: a finite number, or a mapping with `from` and `to`, and optionally `begin`, `end` (fractions of the
            stage, default 0 and 1) and `shape` (see `Schedule`, default linear).
        name: the setting's name in error messages, such as `stages.coarse.regularizers.sparsity`.
        limits: the accepted values.

    Raises SettingsError for anything else.

    Example:
        >>> parse_schedule({"from": 10, "to": 1000}, "sparsity").value_at(0.5)
        505.0
    """
    if not isinstance(value, Mapping):
        constant = _number(value, name, limits)
        return Schedule(constant, constant)
    for key in value:
        if key not in KEYS:
            raise SettingsError(
                f"{name}.{word(key)} is not a key of a schedule{nearest(word(key), KEYS)}; known: {', '.join(KEYS)}"
            )
    missing = [key for key in ("from", "to") if key not in value]
    if missing:
        raise SettingsError(f"{name} lacks '{missing[0]}'; give a number, or {{from: 1, to: 10, begin: 0.0, end: 1.0}}")
    start, target = (_number(value[key], f"{name}.{key}", limits) for key in ("from", "to"))
    begin, end = _share(value.get("begin", 0.0), f"{name}.begin"), _share(value.get("end", 1.0), f"{name}.end")
    if begin > end:
        raise SettingsError(
            f"{name} would begin at {begin:g} and end at {end:g} of the stage; begin must not exceed end"
        )
    shape = value.get("shape", "linear")
    if shape not in SHAPES:
        raise SettingsError(
            f"{name}.shape is {shown(shape)}{nearest(word(shape), SHAPES)}; accepted: {', '.join(SHAPES)}"
        )
    if shape == "exponential" and not start * target > 0:
        raise SettingsError(
            f"{name} runs from {start:g} to {target:g}, which an exponential cannot: both must be positive, or both "
            "negative; use shape: linear"
        )
    return Schedule(start, target, begin, end, shape)


def _number(value: Any, name: str, limits: Interval) -> float:
    try:
        found = number(value)
    except Refused as refusal:
        raise SettingsError(f"{name} is {shown(value)}{refusal}") from None
    given = {key: limit for key in LIMITS if (limit := getattr(limits, key)) is not None}
    if not all(_HOLDS[key](found, limit) for key, limit in given.items()):
        raise SettingsError(f"{name} is {found:g}; {accepted(given)} is accepted")
    return found


def _share(value: Any, name: str) -> float:
    fraction = _number(value, name, ANY)
    if not 0 <= fraction <= 1:
        raise SettingsError(f"{name} is {fraction:g}; a fraction of the stage between 0 and 1 is accepted")
    return fraction
