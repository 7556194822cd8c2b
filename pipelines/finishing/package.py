"""The files of a finished asset, in the folder that an engine imports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..engines import ENGINES, FileFormat
from ..export.gltf_builder import GltfBuilder, png
from .colliders import Collider
from .config import FinishConfig
from .finished import Finished, Look
from .keep import KeptDocument
from .naming import Names
from .placing import Frame
from .writing.fbx import write_fbx
from .writing.gltf_files import write_document
from .writing.obj import write_obj
from .writing.physics import add_body
from .writing.scene import add_hulls, collider_document, scene
from .writing.stl import write_stl
from .writing.textures import TextureFiles, engine_image
from .writing.usdz import write_usdz

__all__ = ["Finished", "Look", "write_kept", "write_package", "write_stl"]
_NODES = ("ucx", "convcolonly")
"""Styles of colliders whose hulls are nodes of the main file."""


def write_package(asset: Finished, folder: Path, config: FinishConfig | None = None) -> list[Path]:
    """Write the files of an asset for its engine. Returns their paths, the main file first.

    Args:
        asset: the asset.
        folder: the folder, which is created.
        config: the formats, compression and images; default `FinishConfig()`.
    """
    config, names, engine = config or FinishConfig(), asset.names, asset.names.engine
    folder.mkdir(parents=True, exist_ok=True)
    textures, written = TextureFiles(folder), list[Path]()
    for level, material in asset.materials().items():
        for kind, image in material.images().items():
            textures.add(names.texture(kind, level), png(engine_image(kind, image, engine.packing, engine.green)))
    for file_format in config.files(engine):
        written += _write_format(file_format, asset, folder, textures, config)
    return [*written, *textures.paths]


def _write_format(
    file_format: FileFormat, asset: Finished, folder: Path, textures: TextureFiles, config: FinishConfig
) -> list[Path]:
    match file_format:
        case "glb" | "gltf":
            return _write_gltf(asset, folder, f".{file_format}", textures, config)
        case "obj":
            return write_obj(asset, folder, textures)
        case "fbx":
            return write_fbx(asset, folder, textures, config.blender)
        case "usdz":
            return write_usdz(asset, folder)
        case "stl":
            path = folder / f"{asset.names.mesh}.stl"
            write_stl(path, asset.looks[0].mesh, asset.frame, ENGINES["print"].unit_meters)
            return [path]


def _write_gltf(asset: Finished, folder: Path, suffix: str, textures: TextureFiles, config: FinishConfig) -> list[Path]:
    names, engine = asset.names, asset.names.engine
    together = engine.lods in ("msft_lod", "nodes")
    omi = config.collider_format == "omi"
    collider = "omi" if omi else "nodes" if engine.collider in _NODES else "none"
    main = scene(asset, range(len(asset.levels)) if together else [0], collider)
    documents = {names.mesh: main}
    if engine.lods == "files":
        documents |= {names.lod(level): scene(asset, [level]) for level in range(1, len(asset.levels))}
    if asset.collider is not None and engine.collider == "file" and not omi:
        documents[f"{names.mesh}_Collider"] = collider_document(asset.collider, names, asset.frame)
    return _write_documents(documents, folder, suffix, textures, config)


def write_kept(
    document: KeptDocument,
    faces: Sequence[dict[int, list[np.ndarray]]],
    coverage: Sequence[float],
    collider: Collider | None,
    names: Names,
    frame: Frame,
    folder: Path,
    config: FinishConfig | None = None,
) -> list[Path]:
    """Write a kept document with its levels of detail and collider. Returns the paths, the main file first.

    Args:
        document: the document.
        faces: its levels, see `KeptDocument.levels`.
        coverage: `Level.screen_coverage` of each.
        collider: the collider, if there is one.
        names: names of the files; the name of the mesh is that of the first node.
        frame: the frame of the collider.
        folder: the folder.
        config: the formats, `glb` or `gltf`; default `FinishConfig()`.
    """
    config, engine = config or FinishConfig(), names.engine
    title = engine.mesh_name.format(name=names.asset)
    folder.mkdir(parents=True, exist_ok=True)
    together = engine.lods in ("msft_lod", "nodes")
    builder = document.with_levels(faces if together else faces[:1], coverage)
    omi = config.collider_format == "omi"
    if collider is not None and (omi or engine.collider in _NODES):
        added = [add_body(builder, collider, names, frame)] if omi else add_hulls(builder, collider, names, frame)
        tree = builder.tree
        tree["scenes"][tree.get("scene", 0)].setdefault("nodes", []).extend(added)
    documents = {title: builder}
    if engine.lods == "files":
        documents |= {f"{title}_LOD{level}": document.alone(faces[level]) for level in range(1, len(faces))}
    if collider is not None and engine.collider == "file" and not omi:
        documents[f"{title}_Collider"] = collider_document(collider, replace(names, mesh=title), frame)
    textures, written = TextureFiles(folder), list[Path]()
    for file_format in config.files(engine):
        if file_format in ("glb", "gltf"):
            written += _write_documents(documents, folder, f".{file_format}", textures, config)
    return [*written, *textures.paths]


def _write_documents(
    documents: dict[str, GltfBuilder], folder: Path, suffix: str, textures: TextureFiles, config: FinishConfig
) -> list[Path]:
    """Write documents by the names of their files."""
    written = []
    for title, document in documents.items():
        written += write_document(document, folder / f"{title}{suffix}", textures, config)
    return written
