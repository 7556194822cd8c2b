"""Candidates of a comparison: distillation methods by name, each with its own settings."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from ..errors import SettingsError, UnknownNameError, nearest

if TYPE_CHECKING:
    from ..config.run_config import RunConfig

Methods = Mapping[str, type] | None
"""Registered methods by name.

For calls that must not import torch, this is the outline of `METHODS`; None means `METHODS` itself.
"""

FIXED = "method.control_variates.coefficients=fixed"
"""Setting that disables the learned coefficients, for the ablation."""

_LABELED = re.compile(r"(?P<label>[\w.+-]+)=(?P<rest>[\w-]+(?::.*)?)")
_NEXT_SETTING = re.compile(r":(?=[\w.]+=)")


@dataclass(frozen=True)
class Candidate:
    """A method with its settings."""

    label: str
    """Name in tables, plots and folders: letters, digits, `-`, `_`, `.`, `+`."""
    method: str
    settings: tuple[str, ...] = ()
    """Settings of the method, each `section.key=value`."""


def parse_candidate(text: str, known: Methods = None) -> Candidate:
    """Parse the text of a candidate.

    The forms are `ssd`, `ssd:method.control_variates.terms=[depth]`, and with a label
    `pairs=sds:method.antithetic=true:method.guidance_scale=10`.

    Args:
        text: Text of the candidate.
        known: Registered methods; None means `METHODS`.

    Raises:
        SettingsError: The method is unknown, or the text after a colon is not `section.key=value`.
    """
    known = _registered(known)
    labeled = _LABELED.fullmatch(text)
    label, rest = (labeled["label"], labeled["rest"]) if labeled else ("", text)
    method, *settings = _NEXT_SETTING.split(rest)
    if method not in known:
        raise UnknownNameError(
            f"'{text}' does not name a known method{nearest(method, known)}; write NAME, NAME:section.key=value or "
            f"LABEL=NAME:section.key=value with NAME one of {', '.join(known)}"
        )
    return Candidate(label or _automatic_label(method, settings), method, tuple(settings))


def parse_candidates(texts: Sequence[str], known: Methods = None) -> tuple[Candidate, ...]:
    """Parse several candidates. Raises SettingsError, also if two have the same label."""
    out = tuple(parse_candidate(text, known) for text in texts)
    labels = [candidate.label for candidate in out]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise SettingsError(f"several methods are called {', '.join(twice)}; label them: LABEL=NAME:section.key=value")
    return out


def with_fixed_coefficients(candidates: Sequence[Candidate], known: Methods = None) -> tuple[Candidate, ...]:
    """Insert after each method with learned coefficients the same method with fixed ones (SteinDreamer, Fig. 6)."""
    known, out = _registered(known), list[Candidate]()
    for candidate in candidates:
        out.append(candidate)
        if hasattr(known[candidate.method](), "control_variates") and FIXED not in candidate.settings:
            out.append(replace(candidate, label=f"{candidate.label}-fixed", settings=(*candidate.settings, FIXED)))
    return tuple(out)


def shared_settings(config: Any, known: Methods = None) -> dict[str, Any]:
    """Return the guidance, timestep and weighting settings of a configuration as a layer for another method.

    The method options of a preset apply to its own method only. In a comparison, these options have to be equal for all
    methods.
    """
    known = _registered(known)
    own, usual = asdict(config.method), asdict(known[config.names["method"]]())
    names = {field.name for field in fields(known["sds"])} - {"antithetic", "draws"}
    return {"method": {name: own[name] for name in names if own[name] != usual[name]}}


def texts_of(config: RunConfig, stage: str) -> tuple[str, str]:
    """Return the prompt and the negative prompt as the stage's method passes them to the prior."""
    return config.methods[stage].texts(config.prompt, config.negative_prompt)


def fixed_pairs(candidates: Sequence[Candidate]) -> list[tuple[Candidate, Candidate]]:
    """Return pairs (learned, fixed) that differ only in the coefficients."""

    def others(candidate: Candidate) -> tuple[str, frozenset[str]]:
        return candidate.method, frozenset(candidate.settings) - {FIXED}

    fixed = {others(candidate): candidate for candidate in candidates if FIXED in candidate.settings}
    learned = [candidate for candidate in candidates if FIXED not in candidate.settings]
    return [(candidate, fixed[others(candidate)]) for candidate in learned if others(candidate) in fixed]


def _registered(known: Methods) -> Mapping[str, type]:
    if known is not None:
        return known

    from steindreamer.distill import METHODS

    return METHODS


def _automatic_label(method: str, settings: Sequence[str]) -> str:
    short = (setting.removeprefix("method.").removeprefix("control_variates.") for setting in settings)
    words = re.findall(r"[A-Za-z0-9.]+", " ".join(short))
    return "-".join([method, *words])
