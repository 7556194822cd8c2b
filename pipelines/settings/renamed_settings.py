"""Renamed settings: a key with its old name is rejected with a message that gives the new one."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

from ..errors import SettingsError

RENAMED: Mapping[str, str] = {
    "mesh": "stages.geometry.representation",
    "texture": "stages.texture.representation",
    "stages.*.scene": "stages.*.representation.name",
    "stages.*.regularisers": "stages.*.regularizers",
    "stages.*.normals": "stages.*.modalities.normal",
    "output.picture_size": "output.image_size",
    "prior.picture_size": "prior.image_size",
    "export.colour_source": "export.color_source",
    "export.height_metres": "export.height_meters",
    "stages.*.views.centre_perturb": "stages.*.views.center_perturb",
    "representation.colour": "representation.color",
    "representation.colour_logits_rate": "representation.color_logits_rate",
    "stages.*.representation.colour": "stages.*.representation.color",
    "stages.*.representation.colour_logits_rate": "stages.*.representation.color_logits_rate",
}
"""Old key -> new key, as dotted paths; `*` matches one name, such as a stage's.

A section includes all of its keys: `texture` -> `texturing` rejects `texture` and `texture.size`."""

RENAMED_IN_METHOD: Mapping[str, str] = {
    "baseline": "control_variates.terms",
    "copy_rate": "lora_rate",
    "copy_steps": "lora_steps",
    **{
        name: f"control_variates.{name}"
        for name in (
            *("coefficients", "variant", "bands", "timestep_bins"),
            *("decay", "prior_observations", "per_channel", "learning_rate"),
        )
    },
}
"""Old key -> new key of the methods, in `method` and `stages.*.method`."""

NOTES: Mapping[str, str] = {
    "stages.*.scene": ": dmtet for mesh, textured_mesh for texture; instead of coarse write representation: null",
    "stages.*.regularisers": "; the loss is summed over the latent now: multiply earlier weights by 3 h w of the "
    "views, 12288 at 64 pixels (docs/stages.md)",
    "stages.*.normals": " (0.5 is modalities: {color: 0.5, normal: 0.5}), with normals_as_color: true for a prior "
    "that only supports color",
}
"""Additional notes on renamed keys, by old name."""


def refuse_renamed(tree: Mapping[str, Any], renamed: Mapping[str, str] | None = None) -> None:
    """Raises SettingsError for the first renamed key in nested settings."""
    for old, new in (RENAMED if renamed is None else renamed).items():
        for key in _matches(tree, old.split("."), ()):
            kept = iter(name for name, part in zip(key, old.split("."), strict=True) if part == "*")
            now = ".".join(next(kept) if part == "*" else part for part in new.split("."))
            raise SettingsError(f"'{'.'.join(key)}' was renamed to '{now}'; use the new name{NOTES.get(old, '')}")


def refuse_renamed_in_method(path: str, given: Any, known: Container[str]) -> None:
    """Raises SettingsError for the first renamed key in the settings of a method at `path`.

    Args:
        known: the keys of the method. One with an old name is the method's own; without control variates, none is
            renamed.
    """
    for old, new in RENAMED_IN_METHOD.items():
        if isinstance(given, Mapping) and old in given and old not in known and "control_variates" in known:
            raise SettingsError(f"'{path}.{old}' was renamed to '{path}.{new}'; use the new name")


def _matches(tree: Mapping[str, Any], parts: Sequence[str], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """The keys of nested settings that match a pattern."""
    first, *rest = parts
    for name in tree if first == "*" else {first} & tree.keys():
        if not rest:
            yield (*above, name)
        elif isinstance(tree[name], Mapping):
            yield from _matches(tree[name], rest, (*above, name))
