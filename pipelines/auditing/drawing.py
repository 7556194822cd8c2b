"""Images of an asset for the HTML page: lit, as gray clay, and its texture coordinates."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from steindreamer.representations import Cameras, Placement
from steindreamer.representations.mesh.formats.parts import GRAY
from steindreamer.representations.mesh.painted import Paint, PaintedMesh
from steindreamer.representations.mesh.rasterization import interpolate, rasterize

from ..export.lighting import CLAY, shaded, toward_key_light
from .atlas import Atlas
from .subject import Subject

AZIMUTHS = (30.0, 150.0, 270.0)
"""Cameras of the images, in degrees from the front."""
ELEVATION = 20.0
SUPERSAMPLE = 2
MAX_LINES = 200_000
"""Largest number of triangles whose outlines are drawn."""


@lru_cache(maxsize=1)
def painted_mesh(subject: Subject) -> PaintedMesh:
    """The surface as a mesh with a material per face, where every corner is a vertex; in the scene's coordinates."""
    surface, file = subject.surface, subject.file
    count = len(surface.faces)
    coordinates, tints = np.zeros((count, 3, 2)), np.ones((count, 3, 3))
    normals = np.repeat(surface.crosses[:, None], 3, 1)
    paints: list[Paint] = []
    for index, part in enumerate(surface.parts):
        rows = surface.rows(index)
        corners = surface.corners[rows]
        material = file.materials[part.material] if part.material >= 0 else None
        paints.append(material.paint if material else Paint() if part.colors is not None else GRAY)
        use = material.textures.get("base_color") if material else None
        uvs = part.uvs.get(use.uv_set if use else 0)
        if uvs is not None:
            moved = uvs[corners]
            if use is not None and use.transform is not None:
                moved = moved @ use.transform[:, :2].T + use.transform[:, 2]
            coordinates[rows] = np.clip(np.nan_to_num(moved), -1e6, 1e6)
        if part.colors is not None:
            tints[rows] = np.clip(np.nan_to_num(part.colors[corners]), 0, 1)
        if part.directions is not None:
            normals[rows] = np.nan_to_num(part.directions[corners])
    length = np.linalg.norm(normals, axis=-1, keepdims=True)
    return PaintedMesh(
        torch.from_numpy(surface.triangles.reshape(-1, 3)),
        torch.arange(3 * count).reshape(-1, 3),
        normals=torch.from_numpy(normals / np.maximum(length, 1e-300)).reshape(-1, 3).float(),
        paints=tuple(paints),
        paint_of_face=torch.from_numpy(surface.part.astype(np.int64)),
        tints=torch.from_numpy(tints.reshape(-1, 3)),
        coordinates=torch.from_numpy(coordinates.reshape(-1, 2)),
        linear=file.format in ("glb", "gltf"),
    )


def rendered(subject: Subject, size: int) -> UInt8[np.ndarray, "h w 3"]:
    """Views of the asset in its colors and, below, as clay, both under a key light that moves with the camera.

    Args:
        subject: The asset.
        size: Width and height of a view in pixels.
    """
    mesh = painted_mesh(subject)
    vertices = Placement.fit(mesh.vertices).apply(mesh.vertices).float()
    if subject.up == 2:
        x, y, z = vertices.unbind(1)
        vertices = torch.stack([x, z, -y], 1)
    assert mesh.normals is not None
    normals = mesh.normals if subject.up == 1 else mesh.normals[:, [0, 2, 1]] * torch.tensor([1.0, 1.0, -1.0])
    views = []
    for azimuth in AZIMUTHS:
        camera = Cameras.orbit([azimuth], [ELEVATION], height=size * SUPERSAMPLE)
        fragments = rasterize(vertices, mesh.faces, camera)
        mask = fragments.triangle[0] >= 0
        base = torch.ones(1, 3, *mask.shape)
        base[0, :, mask] = mesh.colors_at(fragments.triangle[0][mask].long(), fragments.barycentrics[0][mask]).T
        normal = F.normalize(interpolate(fragments, mesh.faces, normals), dim=1)
        normal = torch.where(fragments.front[:, None], normal, -normal)
        toward = toward_key_light(camera)
        rows = [torch.where(mask, shaded(color, normal, toward), 1.0) for color in (base, torch.full_like(base, CLAY))]
        views.append(torch.cat(rows, 2))
    image = F.avg_pool2d(torch.cat(views, 3), SUPERSAMPLE)[0]
    return (255 * image.clamp(0, 1)).round().byte().permute(1, 2, 0).numpy()


def layout(subject: Subject, atlas: Atlas, size: int) -> UInt8[np.ndarray, "s s 3"]:
    """The texture coordinates of a material over its base color; overlaps are red.

    Args:
        subject: The asset.
        atlas: The texture coordinates.
        size: Width and height of the image in pixels.
    """
    texture = subject.file.materials[atlas.material].paint.texture if atlas.material >= 0 else None
    if texture is None:
        image = Image.new("RGB", (size, size), (235, 235, 235))
    else:
        image = Image.fromarray(texture.texels.numpy()).resize((size, size))
        image = Image.blend(image, Image.new("RGB", image.size, "white"), 0.35)
    count = Image.fromarray(((atlas.raster[0] > 1) * 255).astype(np.uint8)).resize((size, size))
    image.paste((220, 30, 30), mask=count)
    if len(atlas.uvs) <= MAX_LINES:
        draw = ImageDraw.Draw(image)
        for triangle in np.clip(atlas.uvs, -1, 2) * size:
            draw.polygon([tuple(corner) for corner in triangle.tolist()], outline=(40, 60, 90))
    return np.asarray(image)
