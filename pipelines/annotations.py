"""What the annotations of a dataclass say about its settings."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints


@cache
def kinds_of(section: type) -> dict[str, Any]:
    """The annotation of every setting of a dataclass, with what `Annotated` says."""
    hints = get_type_hints(section, include_extras=True)
    return {field.name: hints[field.name] for field in fields(section) if field.init}


def bare(kind: Any) -> Any:
    """The annotation without `Annotated`."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    return kind


def section_of(kind: Any) -> type | None:
    """The dataclass that an annotation names, alone or beside None; or None."""
    kinds = [bare(kind), *(bare(part) for part in alternatives(bare(kind)))]
    return next((part for part in kinds if isinstance(part, type) and is_dataclass(part)), None)


def alternatives(kind: Any) -> tuple[Any, ...]:
    """The kinds that a union joins; none for anything else."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else ()
