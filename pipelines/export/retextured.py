"""Export of a retextured mesh: its file with another base color texture."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from steindreamer.representations import RetexturedMesh
from steindreamer.representations.mesh.file import read_mesh
from steindreamer.representations.mesh.formats.gltf_document import GltfDocument

from ..meshing.simplify import is_closed_manifold, welded_faces
from ..meshing.stopwatch import Stopwatch
from ..meshing.views import photograph
from .asset import FILE_NAME, IMAGE_NAME, IMAGE_SIZE, MAPS_NAME, ExportReport
from .fidelity import compare_renders, fidelity_cameras, render_any
from .gltf_texture import with_base_color
from .painted_image import painted_image
from .previews import save_lit_sheet, save_maps

logger = logging.getLogger(__name__)


def export_retextured(
    scene: RetexturedMesh, directory: Path, *, provenance: dict[str, Any] | None = None
) -> ExportReport:
    """Write `directory/asset.glb`, renders of it (`asset.png`), and its texture before and after (`maps.png`).

    Args:
        scene: The scene to export.
        directory: The folder of the files.
        provenance: JSON values (prompt, seed, versions ...) that are written into the file, as
            `asset.extras.retextured`.
    """
    watch = Stopwatch()
    with watch("texture"):
        image = painted_image(scene)
    with watch("write"):
        document = GltfDocument(scene.document.cpu().numpy().tobytes(), directory)
        materials = [None if index < 0 else index for index in scene.materials.tolist()]
        builder = with_base_color(document, materials, image)
        asset = builder.tree["asset"]
        if provenance:
            kept = asset.get("extras", {})
            asset["extras"] = {**(kept if isinstance(kept, dict) else {"extras": kept}), "retextured": provenance}
        path = directory / FILE_NAME
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
    logger.info(
        f"kept {len(mesh.faces)} faces and all texture coordinates; painted {painted:.1%} of the "
        f"{image.shape[1]} x {image.shape[0]} texture; compared with the scene: color difference "
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
        any(material.get("normalTexture") for material in document.items("materials")),
        tuple(extent.tolist()),
        mesh,
        seconds=watch.seconds,
        maps=("base color of the file", "new base color"),
        painted=painted,
    )
