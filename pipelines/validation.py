"""Which values settings may have, alone and together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .annotations import kinds_of
from .composing import active_stages, assemble, method_of
from .errors import SettingsError
from .ranges import check_ranges
from .schema import SCENES, Schema

MAX_PROMPT_CHARACTERS = 1000


def compose_as(schema: Schema, layers: Sequence[Mapping[str, Any]], chosen: Mapping[str, str] | None = None) -> Any:
    """`assemble`, and look at the values too. Returns a `schema.run`. Raises SettingsError, UnknownNameError."""
    config = assemble(schema, layers, chosen or {})
    validate_run(config, schema)
    return config


def validate_run(config: Any, schema: Schema) -> None:
    """Raises SettingsError for values that are not accepted, alone or together. An outline has only their ranges."""
    if not config.prompt.strip():
        raise SettingsError('the prompt is empty; say what to make, for example --prompt "a red mug"')
    for name, text in (("the prompt", config.prompt), ("negative_prompt", config.negative_prompt)):
        if len(text) > MAX_PROMPT_CHARACTERS:
            raise SettingsError(f"{name} has {len(text)} characters; at most {MAX_PROMPT_CHARACTERS} are accepted")
    scenes = {stage.scene for stage in active_stages(config).values()}
    used = [name for name in kinds_of(schema.run) if name not in {"stages", "names", *({"mesh", "texture"} - scenes)}]
    check_ranges(config, only=used)
    for name in used:
        check_itself(getattr(config, name), name)
    _validate_stages(config, schema)
    size = config.texture.size
    if "texture" in scenes and size & (size - 1):
        raise SettingsError(
            f"texture.size is {size}; powers of two are accepted, such as 1024, and 0: export.texture_size"
        )


def check_itself(section: Any, path: str, *arguments: str) -> None:
    """Ask a section that can judge its own settings."""
    validate = getattr(section, "validate", None)
    if not callable(validate):
        return
    try:
        validate(*arguments)
    except SettingsError:
        raise
    except ValueError as error:
        raise SettingsError(f"{path}: {' '.join(str(error).split())}") from None


def _validate_stages(config: Any, schema: Schema) -> None:
    """What is switched off is not looked at, but for what switches it."""
    for name, stage in config.stages.items():
        check_ranges(stage, f"stages.{name}.", only=("scene", "steps"))
    active = active_stages(config)
    for name, stage in active.items():
        check_ranges(stage, f"stages.{name}.")
        check_itself(stage, f"stages.{name}", f"stages.{name}")
        check_itself(method_of(config, name, schema), f"stages.{name}.method")
    order = [SCENES.index(stage.scene) for stage in active.values()]
    if not order or order[0] != 0:
        raise SettingsError(
            f"the first stage must train the coarse scene; the stages are {', '.join(active) or 'none'}"
        )
    if order != sorted(order):
        listed = ", ".join(f"{name} ({stage.scene})" for name, stage in active.items())
        raise SettingsError(f"stages go from {' to '.join(SCENES)}, never back; got {listed}")
    for key in ("initial_mesh", "initial_yaw"):
        if getattr(config.mesh, key):
            raise SettingsError(
                f"mesh.{key} is not read: a mesh stage begins with the scene before it; "
                "to start from a mesh of your own give --repr mesh representation.initial_mesh=FILE"
            )
    refined = [name for name, stage in active.items() if stage.scene != SCENES[0]]
    if refined and not config.export.enabled:
        raise SettingsError(
            f"export.enabled=false needs refine=false (--no-refine): stage '{refined[0]}' trains a mesh, "
            "which is made as the export makes it"
        )
