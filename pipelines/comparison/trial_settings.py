"""Settings of a run in a comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..settings.composing import compose_as
from ..settings.layers import given_layers, preset_layers
from ..settings.schema import Schema
from .candidates import shared_settings

QUIET = ("output.preview_every=0", "output.turntable_frames=0", "export.enabled=false")


def trial_settings(
    schema: Schema,
    method: str,
    prompt: str,
    seed: int,
    representation: str,
    prior: str,
    preset: str,
    settings: Sequence[str],
    plugins: Sequence[str] = (),
) -> Any:
    """Return a `schema.run` with coarse stages only and without probes; `settings` take precedence.

    The world prior holds one object unless `settings` change that, so that the true object is known.

    Raises:
        SettingsError: A setting is unknown or invalid.
    """
    chosen = {"representation": representation, "prior": prior}
    chosen = {section: name for section, name in chosen.items() if name}
    usual = compose_as(schema, preset_layers(preset), chosen)
    known = ["prior.objects=1"] if usual.names["prior"] == "world" else []
    top = {"prompt": prompt, "seed": seed, "refine": False, "plugins": list(plugins) or None}
    layers = [
        *preset_layers(preset),
        shared_settings(usual, schema.choices["method"]),
        *given_layers([*QUIET, *known, *settings], top),
    ]
    config = compose_as(schema, layers, {**chosen, "method": method})
    return replace(config, stages={name: replace(stage, probe_every=0) for name, stage in config.stages.items()})
