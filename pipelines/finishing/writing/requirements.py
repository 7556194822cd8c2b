"""Checks of formats, compression and optional packages before anything is computed."""

from __future__ import annotations

from steindreamer.optional import load

from ...engines import Engine
from ...errors import UserError
from ..config import KEPT_FORMATS, FinishConfig
from .compression import EXTENSIONS, PACKAGES
from .fbx import blender_command
from .usdz import load_pxr
from .webp import EXTENSION as WEBP


def check_files(config: FinishConfig, engine: Engine) -> None:
    """Raises UserError for formats and compressions that do not fit each other, or that need a missing package."""
    formats = config.files(engine)
    listed = f"[{','.join(formats)}]"
    packing = (("compression", config.compression, "none"), ("images", config.images, "png"))
    packed = [f"{name}={value}" for name, value, usual in packing if value != usual]
    of_gltf = [*packed, *(["collider_format=omi"] if config.collider_format == "omi" else [])]
    if config.keep and engine.prints:
        raise UserError(f"--keep adds levels of detail, colliders and lightmap coordinates; {engine.title} takes none")
    if of_gltf and not set(formats) & set(KEPT_FORMATS):
        raise UserError(f"{of_gltf[0]} is for glTF files, and formats is {listed}; add glb or gltf, or leave it out")
    needed = EXTENSIONS.get(config.compression, ()) + ((WEBP,) if config.images == "webp" else ())
    unread = [name for name in needed if engine.extensions is not None and not name.startswith(engine.extensions)]
    if unread:
        raise UserError(f"{' and '.join(packed)}: {engine.title} does not read {', '.join(unread)}; leave it out")
    if config.keep and packed:
        raise UserError(f"--keep leaves the arrays and images of the file as they are; leave out {packed[0]} or --keep")
    if config.keep and set(formats) - set(KEPT_FORMATS):
        raise UserError(f"--keep writes glTF files, and formats is {listed}; choose from glb and gltf, or leave it out")
    try:
        if config.compression in PACKAGES:
            load(*PACKAGES[config.compression])
        if "usdz" in formats:
            load_pxr()
        if "fbx" in formats:
            blender_command(config.blender)
    except ValueError as error:
        raise UserError(error) from None
