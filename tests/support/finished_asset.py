"""A small finished asset, made without the steps of `finish`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh

from steindreamer.pipelines.engines import ENGINES, Engine, FileFormat
from steindreamer.pipelines.finishing.bake import BakedMaterial
from steindreamer.pipelines.finishing.colliders import Collider
from steindreamer.pipelines.finishing.config import FinishConfig
from steindreamer.pipelines.finishing.finished import Finished, Look
from steindreamer.pipelines.finishing.lods import Level
from steindreamer.pipelines.finishing.naming import names_of
from steindreamer.pipelines.finishing.package import write_package
from steindreamer.pipelines.finishing.placing import Frame
from steindreamer.representations import TriangleMesh

SCALE, OFFSET = 0.5, (0.1, 0.4, -0.2)


def finished_asset(engine: Engine, *, metallic: bool = True, size: int = 32) -> Finished:
    """An egg of 0.5 x 0.8 x 0.5 m with two levels of detail, all textures, lightmap coordinates and two hulls."""
    levels = [_egg(16, 12), _egg(8, 6)]
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (size, size, 3)).astype(np.uint8) for _ in range(4)]
    if not metallic:
        images[1][..., 2] = 0
    looks = []
    for mesh in levels:
        assert mesh.normals is not None and mesh.uvs is not None
        tangents = np.cross([0.0, 1.0, 0.0], mesh.normals.numpy())
        tangents /= np.maximum(np.linalg.norm(tangents, axis=1, keepdims=True), 1e-9)
        tangents[np.linalg.norm(tangents, axis=1) < 0.5] = (1, 0, 0)
        tangents = np.concatenate([tangents, np.full((len(tangents), 1), 1.0)], 1)
        material = BakedMaterial(images[0], images[1], images[2], tangents, images[3], metallic, 5.0)
        looks.append(Look(mesh, material, mesh.uvs.numpy()[:, ::-1] * 0.5))
    hulls = [_hull(center) for center in (-0.5, 0.5)]
    return Finished(
        names_of("egg", engine),
        Frame(SCALE, OFFSET),
        [Level(mesh, ratio, 0.0, 1.0, 1.0) for mesh, ratio in zip(levels, (1.0, 0.25), strict=True)],
        looks,
        Collider(hulls, 0.0, 0.0),
        {"source": "egg.obj"},
    )


def write_asset(folder: Path, engine: str, *formats: FileFormat, **settings: Any) -> tuple[Finished, list[str]]:
    """Write `finished_asset` with the settings. Returns it and the names of the files, which are all of the folder."""
    asset = finished_asset(ENGINES[engine])
    paths = write_package(asset, folder, FinishConfig(formats=formats, **settings))
    assert sorted(path.name for path in paths) == sorted(path.name for path in folder.iterdir())
    return asset, [path.name for path in paths]


def _egg(columns: int, rows: int) -> TriangleMesh:
    """An ellipsoid with a texture seam; the poles are vertices with several texture coordinates."""
    u, v = np.meshgrid(np.arange(columns + 1) / columns, np.arange(rows + 1) / rows, indexing="ij")
    around, down = 2 * np.pi * (u % 1), np.pi * v
    normal = np.stack([np.sin(around) * np.sin(down), np.cos(down), np.cos(around) * np.sin(down)], -1)
    normal[:, [0, -1]] = [[0, 1, 0], [0, -1, 0]]
    points = normal * [0.5, 0.8, 0.5]
    corner = (np.arange(columns)[:, None] * (rows + 1) + np.arange(rows)).reshape(-1)
    across = corner + rows + 1
    faces = np.concatenate(
        [
            np.stack([corner, corner + 1, across + 1], 1)[np.arange(len(corner)) % rows < rows - 1],
            np.stack([corner, across + 1, across], 1)[np.arange(len(corner)) % rows > 0],
        ]
    )
    points, normal = (torch.from_numpy(each.reshape(-1, 3).astype(np.float32)) for each in (points, normal))
    uvs = torch.from_numpy(np.stack([u, v], -1).reshape(-1, 2).astype(np.float32) * 0.9 + 0.05)
    return TriangleMesh(points, torch.from_numpy(faces), normals=normal, uvs=uvs)


def _hull(height: float) -> TriangleMesh:
    box = trimesh.creation.box((0.8, 0.7, 0.8))
    box.apply_translation([0, height, 0])
    return TriangleMesh(
        torch.from_numpy(np.array(box.vertices, np.float32)), torch.from_numpy(np.array(box.faces, np.int64))
    )
