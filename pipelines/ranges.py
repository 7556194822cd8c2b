"""What values settings may have, as their annotations say it.

`Annotated[int, Interval(ge=1, le=4096)]` is a number from 1 to 4096, and `Annotated[str, ("cpu", "torch")]` one of two
words; both may stand inside `list[...]` and beside `None`. A number without an interval must still be finite.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import is_dataclass
from typing import Annotated, Any, get_args, get_origin

from annotated_types import Interval

from .annotations import kinds_of
from .errors import SettingsError, nearest
from .plain_text import shown


def check_ranges(settings: Any, path: str = "", only: Collection[str] | None = None) -> None:
    """Raises SettingsError for the first value of a dataclass, or of one inside it, that its annotation excludes.

    Args:
        path: what messages put before a setting's name, with a dot at its end.
        only: names of the settings to look at; None: all.
    """
    for name, kind in kinds_of(type(settings)).items():
        if only is None or name in only:
            check_range(kind, getattr(settings, name), f"{path}{name}")


def accepted(interval: Interval) -> str:
    """'1 to 10', 'above 0 and up to 1', 'at least 1', ..."""
    low, high = interval.ge, interval.le
    if low is not None and high is not None:
        return f"{_short(low)} to {_short(high)}"
    below = [f"at least {_short(low)}"] if low is not None else []
    below += [f"above {_short(interval.gt)}"] if interval.gt is not None else []
    above = [f"up to {_short(high)}"] if high is not None else []
    above += [f"below {_short(interval.lt)}"] if interval.lt is not None else []
    return " and ".join([*below, *above])


def check_range(kind: Any, value: Any, path: str) -> None:
    """Raises SettingsError, naming `path`, if the annotation `kind` excludes the value or one inside it."""
    if is_dataclass(value):
        check_ranges(value, f"{path}.")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_range(_inside(kind), item, f"{path}[{index}]")
    elif isinstance(value, Mapping):
        for key, item in value.items():
            check_range(_inside(kind), item, f"{path}.{key}")
    elif value is not None:
        for limit in limits_of(kind):
            if isinstance(value, str) == isinstance(limit, tuple):
                _check_one(limit, value, path)


def limits_of(kind: Any) -> list[Any]:
    """Intervals and tuples of words in an annotation, whatever they stand inside of."""
    own = [part for part in get_args(kind)[1:] if isinstance(part, Interval | tuple)] if _is_annotated(kind) else []
    inner = get_args(kind)[:1] if _is_annotated(kind) else get_args(kind)
    return [*own, *(limit for part in inner for limit in limits_of(part))]


def _check_one(limit: Any, value: Any, path: str) -> None:
    if isinstance(limit, tuple):
        if value not in limit:
            near = nearest(str(value)[:100], limit)
            raise SettingsError(f"{path} is {shown(value)}{near}; accepted: {', '.join(limit)}")
    elif not _contains(limit, value):
        raise SettingsError(f"{path} is {shown(value)}; {accepted(limit)} is accepted")


def _contains(interval: Interval, value: Any) -> bool:
    return (
        (interval.ge is None or value >= interval.ge)
        and (interval.gt is None or value > interval.gt)
        and (interval.le is None or value <= interval.le)
        and (interval.lt is None or value < interval.lt)
    )


def _inside(kind: Any) -> Any:
    """The annotation of what a list or a dict holds: the last of its arguments."""
    kind = get_args(kind)[0] if _is_annotated(kind) else kind
    return (get_args(kind) or (Any,))[-1]


def _is_annotated(kind: Any) -> bool:
    return get_origin(kind) is Annotated


def _short(number: Any) -> str:
    return str(number) if isinstance(number, int) else f"{number:g}"
