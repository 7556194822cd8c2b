"""Export of a retextured mesh: its file with another base color texture."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8

from steindreamer.representations import RetexturedMesh
from steindreamer.representations.mesh.file import read_fitted_mesh, read_mesh
from steindreamer.representations.mesh.formats.gltf_document import GltfDocument
from steindreamer.representations.mesh.formats.gltf_packing import is_glb
from steindreamer.representations.mesh.formats.obj_bundle import ObjBundle

from ..meshing.simplify import is_closed_manifold, welded_faces
from ..meshing.stopwatch import Stopwatch
from ..meshing.views import photograph
from .asset import FILE_NAME, IMAGE_NAME, IMAGE_SIZE, MAPS_NAME, ExportReport
from .fidelity import compare_renders, fidelity_cameras, render_any
from .gltf_builder import GltfBuilder, png
from .gltf_texture import BASE_COLOR, with_alpha, with_base_color
from .painted_glb import painted_glb
from .painted_image import painted_image
from .previews import save_lit_sheet, save_maps

logger = logging.getLogger(__name__)
_CREASE_ANGLE = 40.0
"""Angle in degrees above which edges of an OBJ file are sharp in the GLB."""


def export_retextured(
    scene: RetexturedMesh, directory: Path, *, provenance: dict[str, Any] | None = None
) -> ExportReport:
    """Write `directory/asset.glb`, renders of it (`asset.png`), and its textures before and after (`maps.png`).

    An OBJ file is written to `directory/obj/` with its material files and images; the GLB has the same triangles.

    Args:
        scene: The scene to export.
        directory: The folder of the files.
        provenance: JSON values (prompt, seed, versions ...) that are written into the GLB, as
            `asset.extras.retextured`.
    """
    watch = Stopwatch()
    with watch("texture"):
        image = painted_image(scene)
    path, file = directory / FILE_NAME, scene.document.cpu().numpy().tobytes()
    with watch("write"):
        builder = _gltf(scene, file, image, directory) if is_glb(file) else _obj(scene, file, image, directory)
        asset = builder.tree["asset"]
        if provenance:
            kept = asset.get("extras", {})
            asset["extras"] = {**(kept if isinstance(kept, dict) else {"extras": kept}), "retextured": provenance}
        builder.write(path)
    with watch("compare"):
        written = read_mesh(path)
        extent = written.vertices.amax(0) - written.vertices.amin(0)
        placement = scene.placement
        assert placement is not None
        written = replace(written, vertices=placement.apply(written.vertices.double()).float())
        fidelity = compare_renders(photograph(scene, fidelity_cameras()), lambda camera: render_any(written, camera))
        save_lit_sheet(scene, path.with_name(IMAGE_NAME), IMAGE_SIZE)
        save_maps([scene.source.cpu().numpy(), image], path.with_name(MAPS_NAME))
    mesh = replace(scene.mesh(), texture=torch.from_numpy(image).permute(2, 0, 1).float() / 255)
    painted = float(scene.painted.float().mean())
    sizes = [f"{atlas.region.width} x {atlas.region.height}" for atlas in scene.atlases()]
    logger.info(
        f"kept {len(mesh.faces)} faces and all texture coordinates; painted {painted:.1%} of the "
        f"{' and '.join(sizes)} texture; compared with the scene: color difference "
        f"{fidelity.color_difference:.2f} (mean CIEDE2000), silhouettes overlap {fidelity.silhouette_iou:.1%}"
    )
    return ExportReport(
        path,
        len(mesh.vertices),
        len(mesh.faces),
        is_closed_manifold(welded_faces(mesh)[0]),
        fidelity.color_difference,
        fidelity.silhouette_iou,
        0.0,
        any(material.get("normalTexture") for material in builder.tree.get("materials", [])),
        tuple(extent.tolist()),
        mesh,
        seconds=watch.seconds,
        maps=("base color of the file", "new base color"),
        painted=painted,
    )


def _gltf(scene: RetexturedMesh, file: bytes, image: UInt8[np.ndarray, "h w 3"], directory: Path) -> GltfBuilder:
    """The glTF file with other textures."""
    builder = None
    for atlas in scene.atlases():
        document = GltfDocument(file if builder is None else builder.to_bytes(), directory)
        builder = with_base_color(document, atlas.materials, atlas.region.of(torch.from_numpy(image)).numpy())
    assert builder is not None
    return builder


def _obj(scene: RetexturedMesh, file: bytes, image: UInt8[np.ndarray, "h w 3"], directory: Path) -> GltfBuilder:
    """Write the OBJ file with other textures. Returns a glTF file with the same triangles and materials."""
    bundle = ObjBundle.unpack(file)
    for atlas in scene.atlases():
        names = [bundle.materials[index] for index in atlas.materials if index is not None]
        old = bundle.image_file(bundle.image_of(names[0])) or b""
        texels = atlas.region.of(torch.from_numpy(image)).numpy()
        bundle = bundle.with_image(names, with_alpha(texels, old) if old else png(texels), BASE_COLOR)
    folder = directory / "obj"
    shutil.rmtree(folder, ignore_errors=True)
    mesh, placement = read_fitted_mesh(bundle.write(folder))
    return painted_glb(mesh, placement, Path(bundle.name).stem, _CREASE_ANGLE)
