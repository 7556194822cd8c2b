"""What is compared: distillation methods by name, each with settings of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError, UnknownNameError, nearest

if TYPE_CHECKING:
    from ..config import RunConfig

Methods = Mapping[str, type] | None
"""By name: the outline of `METHODS`, for calls that must not load the program; None: `METHODS` itself."""

FIXED = "method.coefficients=fixed"
"""The setting that makes SSD the ablation without learned coefficients."""

_LABELLED = re.compile(r"(?P<label>[\w.+-]+)=(?P<rest>[\w-]+(?::.*)?)")
_NEXT_SETTING = re.compile(r":(?=[\w.]+=)")


@dataclass(frozen=True)
class Contender:
    """A method with its settings."""

    label: str
    """What tables, plots and folders call it: letters, digits, `-`, `_`, `.`, `+`."""
    method: str
    settings: tuple[str, ...] = ()
    """`section.key=value`."""


def parse_contender(text: str, known: Methods = None) -> Contender:
    """`ssd`, `ssd:method.baseline=[depth]`, or with a label `ssd-depth=ssd:method.baseline=[depth]:method.bands=6`.

    Raises SettingsError for an unknown method, or for something else than `section.key=value` after a colon.
    """
    known = _registered(known)
    labelled = _LABELLED.fullmatch(text)
    label, rest = (labelled["label"], labelled["rest"]) if labelled else ("", text)
    method, *settings = _NEXT_SETTING.split(rest)
    if method not in known:
        raise UnknownNameError(
            f"'{text}' names no known method{nearest(method, known)}; write NAME, NAME:section.key=value or "
            f"LABEL=NAME:section.key=value with NAME one of {', '.join(known)}"
        )
    return Contender(label or _automatic_label(method, settings), method, tuple(settings))


def parse_contenders(texts: Sequence[str], known: Methods = None) -> tuple[Contender, ...]:
    """All of them. Raises SettingsError also if two have the same label."""
    out = tuple(parse_contender(text, known) for text in texts)
    labels = [contender.label for contender in out]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise SettingsError(f"several methods are called {', '.join(twice)}; label them: LABEL=NAME:section.key=value")
    return out


def with_fixed_twins(contenders: Sequence[Contender], known: Methods = None) -> tuple[Contender, ...]:
    """Every method with learned coefficients followed by its twin without (SteinDreamer's Fig. 6)."""
    known, out = _registered(known), list[Contender]()
    for contender in contenders:
        out.append(contender)
        if hasattr(known[contender.method](), "coefficients") and FIXED not in contender.settings:
            out.append(replace(contender, label=f"{contender.label}-fixed", settings=(*contender.settings, FIXED)))
    return tuple(out)


def shared_settings(config: Any, known: Methods = None) -> dict[str, Any]:
    """Guidance, noise levels and weighting as far as a configuration sets them, as a layer for another method.

    A preset's options are meant for its own method and left out for others; a comparison wants these to be the same.
    """
    known = _registered(known)
    own, usual = asdict(config.method), asdict(known[config.names["method"]]())
    names = {field.name for field in fields(known["sds"])} - {"antithetic"}
    return {"method": {name: own[name] for name in names if own[name] != usual[name]}}


def texts_of(config: RunConfig, stage: str) -> tuple[str, str]:
    """Prompt and negative prompt as the stage's method puts them to the prior."""
    return config.method_of(stage).texts(config.prompt, config.negative_prompt)


def twins(contenders: Sequence[Contender]) -> list[tuple[Contender, Contender]]:
    """Pairs (learned, fixed) that differ in nothing but the coefficients."""

    def others(contender: Contender) -> tuple[str, frozenset[str]]:
        return contender.method, frozenset(contender.settings) - {FIXED}

    fixed = {others(contender): contender for contender in contenders if FIXED in contender.settings}
    learned = [contender for contender in contenders if FIXED not in contender.settings]
    return [(contender, fixed[others(contender)]) for contender in learned if others(contender) in fixed]


def _registered(known: Methods) -> Mapping[str, type]:
    if known is not None:
        return known

    from ...distill import METHODS

    return METHODS


def _automatic_label(method: str, settings: Sequence[str]) -> str:
    words = re.findall(r"[A-Za-z0-9.]+", " ".join(setting.removeprefix("method.") for setting in settings))
    return "-".join([method, *words])
